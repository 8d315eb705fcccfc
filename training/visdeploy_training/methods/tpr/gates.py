"""Spatial gates and gated residual blocks of Temporal Pyramid Routing (Li et al., TPAMI 2023)."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from visdeploy_plugins.torch_ops import masked_conv, masked_group_norm

THRESHOLD = 1.5
"""Shift of the activation of a gate, tau."""


@dataclass
class Gates:
    """Record of the gates of one forward pass: the cost of the convolutions behind them, and how many are open.

    The cost of a convolution is its number of multiplications at a position.

    Attributes:
        soft: Cost with every position weighted by its gate, one entry `[B]` for each convolution.
        used: Cost of the positions with an open gate, without gradient.
        full: Cost of all positions.
        opened: Share of open gates in each gated block, one entry `[B]`.
    """

    soft: list[Tensor] = field(default_factory=list)
    used: list[Tensor] = field(default_factory=list)
    full: list[Tensor] = field(default_factory=list)
    opened: list[Tensor] = field(default_factory=list)

    def add(self, gate: Tensor, cost: int) -> None:
        """Add a convolution of this cost, with one gate per position `[B, 1, H, W]`."""
        self.soft.append(cost * gate.float().sum(dim=(1, 2, 3)))
        self.used.append(cost * (gate != 0).float().sum(dim=(1, 2, 3)))
        self.full.append(cost * torch.ones_like(gate, dtype=torch.float32).sum(dim=(1, 2, 3)))

    def shares(self) -> tuple[Tensor, Tensor]:
        """Return the soft and the used share of the full cost, each `[B]`."""
        full = torch.stack(self.full).sum(dim=0)
        return torch.stack(self.soft).sum(dim=0) / full, torch.stack(self.used).sum(dim=0) / full


class SpatialGate(nn.Module):
    """Gate per position, 0 for a non-positive activation and below 1 elsewhere."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gate_conv = nn.Conv2d(channels, 1, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Map `[B, C, H, W]` to `[B, 1, H, W]`."""
        rest = math.tanh(THRESHOLD)
        activation = self.gate_conv(x)
        gate = F.relu((torch.tanh(activation - THRESHOLD) + rest) / (1 + rest))
        # An activation of exactly 0, as where all features are 0, is common. The sum is then 0 in PyTorch, but 6e-8 in
        # ONNX Runtime, whose tanh rounds differently, and the gate would be open there.
        return torch.where(activation > 0, gate, 0.0)


class NormedConv(nn.Conv2d):
    """3x3 convolution without bias, followed by a group norm, over all positions or over the active ones."""

    def __init__(self, channels: int, groups: int) -> None:
        super().__init__(channels, channels, 3, padding=1, bias=False)
        self.norm = nn.GroupNorm(groups, channels)

    def dense(self, x: Tensor) -> Tensor:
        """Transform `[B, C, H, W]` at all positions."""
        return cast(Tensor, self.norm(super().forward(x)))

    def masked(self, x: Tensor, mask: Tensor) -> Tensor:
        """Transform `[B, C, H, W]` where the mask `[B, H, W]` is positive; the result is undefined elsewhere.

        The statistics of the norm are those of the active positions.
        """
        norm = self.norm
        x = masked_conv(x.contiguous(), mask.contiguous(), self.weight.contiguous(), padding=(1, 1))
        return masked_group_norm(
            x, mask, norm.weight, norm.bias, groups=norm.num_groups, eps=norm.eps, inside_only=True
        )


class Bottleneck(nn.Module):
    """The two convolutions of a gated residual block."""

    def __init__(self, channels: int, groups: int) -> None:
        super().__init__()
        self.conv1 = NormedConv(channels, groups)
        self.conv2 = NormedConv(channels, groups)


class GatedBlock(nn.Module):
    """Residual block whose branch is computed at open gates only.

    In training it is computed everywhere, so that closed gates receive a gradient; the published evaluation differs
    from this wherever a gate is closed, because the norms then see other positions.
    """

    def __init__(self, channels: int, groups: int) -> None:
        super().__init__()
        self.bottleneck = Bottleneck(channels, groups)
        self.gate = SpatialGate(channels)

    def forward(self, x: Tensor, gates: Gates | None = None) -> Tensor:
        """Transform `[B, C, H, W]` to non-negative values of the same shape.

        Args:
            x: Input.
            gates: Record to which the gates are added.
        """
        gate = self.gate(x)
        # the second convolution reads the neighbours of open positions
        around = F.max_pool2d(gate, 3, stride=1, padding=1)
        if gates is not None:
            self._record(gates, gate, around)
        first, second = self.bottleneck.conv1, self.bottleneck.conv2
        if self.training:
            h = second.dense(F.relu(first.dense(x)))
        else:
            # undefined values are not read: the second convolution sees no others than those of `around`, and a closed
            # gate is 0
            h = second.masked(F.relu(first.masked(x, around[:, 0])), gate[:, 0])
        return F.relu(gate * h + x)

    def _record(self, gates: Gates, gate: Tensor, around: Tensor) -> None:
        weight = self.bottleneck.conv1.weight
        cost = weight.numel() + weight.shape[0]
        gates.add(around, cost)
        gates.add(gate, cost)
        gates.opened.append((gate > 0).float().mean(dim=(1, 2, 3)))


class GatedDepthwise(nn.Module):
    """Gated depthwise 3x3 convolution with a group norm over all positions."""

    def __init__(self, channels: int, groups: int) -> None:
        super().__init__()
        self.convs = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1, groups=channels), nn.GroupNorm(groups, channels)
        )
        self.gate = SpatialGate(channels)

    def forward(self, x: Tensor, gates: Gates | None = None) -> Tensor:
        """Transform `[B, C, H, W]` to the same shape; see `GatedBlock.forward`."""
        gate = self.gate(x)
        if gates is not None:
            self._record(gates, gate, x.shape[1])
        return cast(Tensor, gate * self.convs(x))

    @torch.no_grad()
    def count(self, x: Tensor, gates: Gates) -> None:
        """Add the cost of a branch that is not computed."""
        self._record(gates, self.gate(x), x.shape[1])

    @staticmethod
    def _record(gates: Gates, gate: Tensor, channels: int) -> None:
        # twice the convolution, for the norm; published training has no gradient through this cost
        gates.add(gate.detach(), 2 * 9 * channels + channels)
