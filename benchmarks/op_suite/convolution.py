"""Deformable and masked convolution, 256 -> 256 channels with 3x3 taps."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional
from torchvision.ops import deform_conv2d

from op_suite.attention import LEVELS, SMALL_LEVELS
from op_suite.case import Case, Tensors, node
from visdeploy_plugins.torch_ops import deform_conv, masked_conv

CHANNELS, SMALL_CHANNELS, TAPS, ACTIVE = 256, 16, 9, 0.25


def deform_conv_cases(*, small: bool) -> Iterator[Case]:
    """Yield cases of version 1 (offsets) and 2 (offsets and masks) for every level of the pyramid."""
    channels = SMALL_CHANNELS if small else CHANNELS
    for version in (1, 2):
        for height, width in SMALL_LEVELS if small else LEVELS:
            yield _deform_conv(version, channels, height, width)


def _deform_conv(version: int, channels: int, height: int, width: int) -> Case:
    inputs = _convolution(channels, height, width) | {"offset": 2 * _random(1, 2 * TAPS, height, width)}
    order = ["X", "W", "offset", "B"]
    if version == 2:
        inputs["mask"] = torch.sigmoid(_random(1, TAPS, height, width))
        order.append("mask")

    def ours(t: Tensors) -> Tensor:
        output: Tensor = deform_conv(
            *(t["X"], t["offset"], t["W"], t.get("mask"), t["B"]),
            stride=(1, 1),
            padding=(1, 1, 1, 1),
            dilation=(1, 1),
            groups=1,
            offset_groups=1,
        )
        return output

    # per sample one fused operation for each of 4 neighbours, and one for the mask; per tap about 20 for coordinates
    sampling = height * width * TAPS * (channels * (8 + version - 1) + 20)
    return Case(
        op="deform_conv",
        setting=f"v{version}, {height}x{width}",
        inputs=inputs,
        nodes=[node("DeformConv", order, kernel_shape=[3, 3], pads=[1, 1, 1, 1])],
        ours=ours,
        eager={
            "torchvision": lambda t: deform_conv2d(t["X"], t["offset"], t["W"], t["B"], padding=1, mask=t.get("mask"))
        },
        flops=2 * height * width * TAPS * channels * channels + sampling,
        constants=frozenset({"W", "B"}),
        stock="ORT DeformConv",
    )


def masked_conv_cases(*, small: bool) -> Iterator[Case]:
    """Yield cases with a quarter of the positions active, at random positions and in blobs."""
    channels = SMALL_CHANNELS if small else CHANNELS
    height, width = (SMALL_LEVELS if small else LEVELS)[0]
    strewn = torch.rand((1, 1, height, width), generator=torch.Generator().manual_seed(2))
    smooth = functional.avg_pool2d(strewn, 9, stride=1, padding=4, count_include_pad=False)
    for setting, noise in (("random", strewn), ("blobs", smooth)):
        mask = (noise >= noise.flatten().quantile(1 - ACTIVE)).float()
        active = int(mask.sum())
        inputs = _convolution(channels, height, width)
        yield Case(
            op="masked_conv",
            setting=f"{active / mask.numel():.0%} active, {setting}, {height}x{width}",
            inputs={"X": inputs["X"], "mask": mask[0], "W": inputs["W"], "B": inputs["B"]},
            nodes=[node("MaskedConv", ["X", "mask", "W", "B"], pads=[1, 1, 1, 1])],
            ours=lambda t: masked_conv(t["X"], t["mask"], t["W"], t["B"], padding=(1, 1)),
            eager={"PyTorch conv2d": lambda t: functional.conv2d(t["X"], t["W"], t["B"], padding=1) * t["mask"]},
            flops=2 * active * TAPS * channels * channels,
            constants=frozenset({"W", "B"}),
            touched={"X": float(functional.max_pool2d(mask, 3, stride=1, padding=1).mean())},
            stock="ORT function body (dense)",
        )


def _convolution(channels: int, height: int, width: int) -> dict[str, Tensor]:
    scale = (TAPS * channels) ** -0.5
    return {
        "X": _random(1, channels, height, width),
        "W": scale * _random(channels, channels, 3, 3),
        "B": _random(channels),
    }


def _random(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(len(shape)))
