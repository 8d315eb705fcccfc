"""Cross pyramid routing (CPR): layers that exchange information between neighbouring pyramid levels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from visdeploy_training.layers import DeformConv2d
from visdeploy_training.methods.tpr.gates import GatedBlock, GatedDepthwise, Gates


def resize_like(x: Tensor, like: Tensor) -> Tensor:
    """Resize a map to the size of another, bilinearly with aligned corners, without antialiasing."""
    return F.interpolate(x, size=like.shape[-2:], mode="bilinear", align_corners=True)


class PyramidConv(DeformConv2d):
    """3x3 convolution that is deformable except for the finest level (SEPC, Wang et al., CVPR 2020)."""

    def __init__(self, channels: int, stride: int) -> None:
        super().__init__(channels, channels, 3, stride=stride, padding=1, bias=True)
        nn.init.normal_(self.weight, std=0.01)
        self.conv_offset = nn.Conv2d(channels, 2 * 9, 3, stride=stride, padding=1)

    def at(self, position: int, x: Tensor) -> Tensor:
        """Transform a map `[B, C, H, W]` for the level at this position of the list; 0 is the finest."""
        if position == 0:
            return F.conv2d(x, self.weight, self.bias, stride=self.stride, padding=self.padding)
        return cast(Tensor, self(x, self.conv_offset(x)))


class PyramidConvolution(nn.Module):
    """Routing layer `sepc`: sums of convolutions of a level and of its two neighbours, with shared weights."""

    def __init__(self, channels: int, groups: int) -> None:
        super().__init__()
        self.Pconv = nn.ModuleList(PyramidConv(channels, stride) for stride in (1, 1, 2))

    def forward(self, levels: Sequence[Tensor], gates: Gates | None = None) -> list[Tensor]:
        """Transform levels `[B, C, H_l, W_l]`, finest first, to the same shapes; there are no gates."""
        coarser, same, finer = (cast(PyramidConv, conv) for conv in self.Pconv)
        found = []
        for position, x in enumerate(levels):
            y = same.at(position, x)
            if position > 0:
                y = y + finer.at(position, levels[position - 1])
            if position + 1 < len(levels):
                y = y + resize_like(coarser.at(position, levels[position + 1]), y)
            found.append(F.relu(y))
        return found


class RoutingCells(nn.Module):
    """Routing layer `routing`: gated depthwise convolutions of the two neighbours, then a gated residual block."""

    def __init__(self, channels: int, groups: int) -> None:
        super().__init__()
        self.scale_weight = nn.Parameter(torch.zeros(1))
        self.output_weight = nn.Parameter(torch.ones(1))
        self.dynamic_convs = nn.ModuleList(GatedDepthwise(channels, groups) for _ in range(2))
        self.depth_module = GatedBlock(channels, groups)

    def forward(self, levels: Sequence[Tensor], gates: Gates | None = None) -> list[Tensor]:
        """Transform levels `[B, C, H_l, W_l]`, finest first, to the same shapes; see `GatedBlock.forward`."""
        finer, coarser = (cast(GatedDepthwise, each) for each in self.dynamic_convs)
        found = []
        if gates is not None and self.training:
            # the published implementation computes both branches of all levels; no level takes these two
            finer.count(levels[-1], gates)
            coarser.count(levels[0], gates)
        for position, x in enumerate(levels):
            routed = []
            if position > 0:
                routed.append(resize_like(finer(levels[position - 1], gates), x))
            if position + 1 < len(levels):
                routed.append(resize_like(coarser(levels[position + 1], gates), x))
            mixed = self.output_weight * x
            if routed:
                mixed = self.scale_weight * (routed[0] if len(routed) == 1 else routed[0] + routed[1]) + mixed
            found.append(self.depth_module(mixed, gates))
        return found


LAYERS: dict[str, type[PyramidConvolution] | type[RoutingCells]] = {
    "sepc": PyramidConvolution,
    "routing": RoutingCells,
}
