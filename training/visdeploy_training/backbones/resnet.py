"""ResNet backbone with bottleneck blocks, frozen batch norm, strided 3x3 convolutions and the names of detectron2."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import cast

import torch.nn.functional as F
from torch import Tensor, nn

from visdeploy.errors import ConfigError
from visdeploy_training.layers import ConvNorm, DeformConv2d, FrozenBatchNorm2d, split_modulation

DEPTHS = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}


def _conv(
    cin: int,
    cout: int,
    kernel: int,
    *,
    stride: int = 1,
    dilation: int = 1,
    relu: bool = True,
    train_norm: bool = False,
    norm_eps: float = 1e-5,
) -> ConvNorm:
    norm = FrozenBatchNorm2d(cout, eps=norm_eps, trainable=train_norm)
    return ConvNorm(cin, cout, kernel, stride=stride, dilation=dilation, norm=norm, relu=relu, bias=False)


class Stem(nn.Module):
    """7x7 convolution with stride 2, norm, ReLU and 3x3 max pooling with stride 2."""

    def __init__(self, *, train_norm: bool = False, norm_eps: float = 1e-5) -> None:
        super().__init__()
        self.conv1 = _conv(3, 64, 7, stride=2, train_norm=train_norm, norm_eps=norm_eps)

    def forward(self, x: Tensor) -> Tensor:
        """Map `[B, 3, H, W]` to `[B, 64, H/4, W/4]`."""
        return F.max_pool2d(self.conv1(x), kernel_size=3, stride=2, padding=1)


class DeformUnit(DeformConv2d):
    """Modulated deformable 3x3 convolution without bias, frozen batch norm, ReLU; offsets are an input."""

    def __init__(self, cin: int, cout: int, *, stride: int, train_norm: bool, norm_eps: float) -> None:
        super().__init__(cin, cout, 3, stride=stride, padding=1)
        self.norm = FrozenBatchNorm2d(cout, eps=norm_eps, trainable=train_norm)

    def forward(self, x: Tensor, offset: Tensor, modulation: Tensor | None = None) -> Tensor:
        """Map `[B, cin, H, W]` to `[B, cout, H/stride, W/stride]`, see `DeformConv2d.forward`."""
        return F.relu(self.norm(super().forward(x, offset, modulation)))


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolution, and a shortcut, projected where the shape changes.

    Args:
        cin: Channels of the input.
        width: Channels of the 3x3 convolution.
        cout: Channels of the output.
        stride: Stride of the block.
        dilation: Dilation of the 3x3 convolution.
        train_norm: Train the scales and shifts of the batch norms.
        stride_in_1x1: The first convolution has the stride, as in the original implementation; otherwise the 3x3 one.
        deformable: The 3x3 convolution is a modulated deformable convolution.
        norm_eps: Added to the variances of the batch norms.
    """

    def __init__(
        self,
        cin: int,
        width: int,
        cout: int,
        stride: int,
        *,
        dilation: int = 1,
        train_norm: bool = False,
        stride_in_1x1: bool = False,
        deformable: bool = False,
        norm_eps: float = 1e-5,
    ) -> None:
        super().__init__()
        unit = partial(_conv, train_norm=train_norm, norm_eps=norm_eps)
        first, second = (stride, 1) if stride_in_1x1 else (1, stride)
        self.shortcut = unit(cin, cout, 1, stride=stride, relu=False) if cin != cout or stride != 1 else None
        self.conv1 = unit(cin, width, 1, stride=first)
        self.conv2_offset: nn.Conv2d | None = None
        self.conv2: ConvNorm | DeformUnit
        if deformable:
            self.conv2_offset = nn.Conv2d(width, 3 * 9, 3, stride=second, padding=1)
            nn.init.zeros_(self.conv2_offset.weight)
            nn.init.zeros_(cast(Tensor, self.conv2_offset.bias))
            self.conv2 = DeformUnit(width, width, stride=second, train_norm=train_norm, norm_eps=norm_eps)
        else:
            self.conv2 = unit(width, width, 3, stride=second, dilation=dilation)
        self.conv3 = unit(width, cout, 1, relu=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map `[B, cin, H, W]` to `[B, cout, H/stride, W/stride]`."""
        y = self.conv1(x)
        y = self.conv2(y) if self.conv2_offset is None else self.conv2(y, *split_modulation(self.conv2_offset(y), 9))
        y = self.conv3(y)
        return F.relu(y + (x if self.shortcut is None else self.shortcut(x)))


class ResNet(nn.Module):
    """Bottleneck ResNet that returns the requested stages; later stages are not built.

    Args:
        depth: 50, 101 or 152.
        out_features: Names of the returned stages, of `res2` (stride 4) ... `res5` (stride 32).
        freeze_at: 0 trains all layers, 1 freezes the stem, 2 also res2, and so on.
        train_norm: Train the scales and shifts of the batch norms (statistics are always fixed).
        dilated: Replace the stride of res5 by dilated convolutions ("DC5"); the tensors are the same.
        stride_in_1x1: Stride in the first 1x1 convolution of a block, as in the weights of the original implementation.
        deformable: Names of the stages with modulated deformable 3x3 convolutions.
        norm_eps: Added to the variances of the batch norms; 0 in weights that were trained with Caffe's batch norm.

    Attributes:
        channels: Channels of each returned stage.
    """

    def __init__(
        self,
        depth: int = 50,
        *,
        out_features: Sequence[str] = ("res2", "res3", "res4"),
        freeze_at: int = 2,
        train_norm: bool = False,
        dilated: bool = False,
        stride_in_1x1: bool = False,
        deformable: Sequence[str] = (),
        norm_eps: float = 1e-5,
    ) -> None:
        super().__init__()
        names = [f"res{i}" for i in range(2, 6)]
        if depth not in DEPTHS or not out_features or not set(out_features) <= set(names):
            raise ConfigError(
                "cannot build a ResNet", seen=f"depth {depth}, {out_features}", expected=f"{list(DEPTHS)}, {names}"
            )
        self.out_features = tuple(out_features)
        self.stem = Stem(train_norm=train_norm, norm_eps=norm_eps)
        self.stages = names[: max(names.index(n) for n in out_features) + 1]
        self.channels = {name: 256 << i for i, name in enumerate(names) if name in out_features}
        cin = 64
        for i, name in enumerate(self.stages):
            cout, dense = 256 << i, dilated and name == "res5"
            block = partial(
                Bottleneck,
                width=64 << i,
                cout=cout,
                train_norm=train_norm,
                stride_in_1x1=stride_in_1x1,
                deformable=name in deformable,
                norm_eps=norm_eps,
            )
            # the first block is not dilated, because its input has the resolution of the previous stage
            first = block(cin, stride=1 if i == 0 or dense else 2)
            others = [block(cout, stride=1, dilation=2 if dense else 1) for _ in range(1, DEPTHS[depth][i])]
            self.add_module(name, nn.Sequential(first, *others))
            cin = cout
        for name in ["stem", *self.stages][:freeze_at]:
            self.get_submodule(name).requires_grad_(False)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Return a map from stage name to features of normalised RGB `[B, 3, H, W]`.

        `res{i}` has stride `2**i`, a dilated res5 has stride 16.
        """
        x = self.stem(x)
        features: dict[str, Tensor] = {}
        for name in self.stages:
            x = cast(Tensor, self.get_submodule(name)(x))
            if name in self.out_features:
                features[name] = x
        return features


def from_torchvision(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename the tensors of a torchvision ResNet file; drop `fc` and the batch counters.

    `layer4` becomes `res5`, which a backbone without this stage ignores.
    """
    renamed: dict[str, Tensor] = {}
    for key, value in state.items():
        if key.startswith("fc.") or key.endswith("num_batches_tracked"):
            continue
        renamed[_rename(key)] = value
    return renamed


def _rename(key: str) -> str:
    parts = key.split(".")
    if parts[0].startswith("layer"):
        parts[0] = f"res{int(parts[0][5:]) + 1}"
    else:
        parts.insert(0, "stem")
    name = ".".join(parts).replace("downsample.0.", "shortcut.").replace("downsample.1.", "shortcut.norm.")
    for k in (1, 2, 3):
        name = name.replace(f".bn{k}.", f".conv{k}.norm.")
    return name
