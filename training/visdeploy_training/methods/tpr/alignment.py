"""Temporal alignment: dynamic aligned cell routing (DACR) of each level, followed by cross pyramid routing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from visdeploy_training.layers import DeformConv2d, ModulatedDeformConv2d, split_modulation
from visdeploy_training.methods.tpr.config import TPRConfig
from visdeploy_training.methods.tpr.gates import GatedBlock, Gates
from visdeploy_training.methods.tpr.routing import LAYERS

TAPS = 9
"""Positions of a 3x3 kernel."""


class TemporalAlign(nn.Module):
    """Alignment of the pyramid of the previous frame with that of the current frame, from fine to coarse.

    Temporal Pyramid Routing (Li et al., TPAMI 2023). DACR shares its weights between the levels; every level has its
    own routing layers.

    Args:
        config: Configuration with channels and routing layers.
    """

    def __init__(self, config: TPRConfig) -> None:
        super().__init__()
        width, groups = config.channels, config.num_groups
        self.offset_gen = nn.Sequential(
            nn.Conv2d(2 * width, width, 3, padding=1, bias=False),
            nn.GroupNorm(groups, width),
            nn.ReLU(),
            nn.Conv2d(width, 2 * 3 * TAPS, 3, padding=1, bias=False),
        )
        self.fuse2_1 = DeformConv2d(width, width, 3, padding=1)
        self.fuse2_2 = DeformConv2d(width, width, 3, padding=1)
        self.gate = nn.Conv2d(2 * width, 1, 1)
        self.align_tower = nn.Sequential(
            ModulatedDeformConv2d(2 * width, width, 1, bias=False),
            GatedBlock(width, groups),
            GatedBlock(width, groups),
        )
        layer = LAYERS[config.cpr]
        self.fuse_subnets = nn.ModuleList(
            nn.ModuleList(layer(width, groups) for _ in range(depth)) for depth in config.cpr_depths
        )
        self._init()

    def _init(self) -> None:
        """Initialise as published; the gates of the positions therefore start about half closed."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, std=0.01)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        nn.init.zeros_(self.gate.weight)
        nn.init.ones_(cast(Tensor, self.gate.bias))

    def align(self, reference: Tensor, query: Tensor, gates: Gates | None = None) -> Tensor:
        """Align one level (DACR).

        Args:
            reference: Map of the previous frame, `[B, C, H, W]`.
            query: Map of the current frame, same shape.
            gates: Record to which the gates are added.
        """
        raw = self.offset_gen(torch.cat([reference, query], dim=1))
        moved = [
            conv(x, *split_modulation(part, TAPS))
            for conv, x, part in zip(
                (self.fuse2_1, self.fuse2_2), (reference, query), raw.split(3 * TAPS, dim=1), strict=True
            )
        ]
        fused = torch.cat(moved, dim=1)
        outer = self.gate(fused).sigmoid()
        sampled, *blocks = self.align_tower
        tower = sampled(fused)
        for block in blocks:
            tower = block(tower, gates)
        return cast(Tensor, outer * query + (1 - outer) * tower)

    def forward(self, reference: Sequence[Tensor], query: Sequence[Tensor], gates: Gates | None = None) -> list[Tensor]:
        """Align five levels, p3 to p7.

        Args:
            reference: Pyramid of the previous frame, `[B, C, H_l, W_l]`.
            query: Pyramid of the current frame, same shapes.
            gates: Record to which the gates are added.

        Returns:
            The aligned pyramid, same shapes.
        """
        levels, found = list(query), []
        for i, layers in enumerate(self.fuse_subnets):
            levels[i] = self.align(reference[i], levels[i], gates)
            # the coarsest levels are routed together with p5 and p6, whose results are already fixed
            first = min(i, len(levels) - 3)
            part = levels[first:]
            for layer in cast(nn.ModuleList, layers):
                part = layer(part, gates)
            levels[first:] = part
            found.append(levels[i])
        return found
