"""Feature pyramid, named as in mmdet's checkpoints."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch.nn.functional as F
from torch import Tensor, nn


class NamedConv(nn.Module):
    """A convolution under the name `conv` that keeps the size, Xavier weights."""

    def __init__(self, cin: int, cout: int, kernel: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(cin, cout, kernel, padding=kernel // 2)
        nn.init.xavier_uniform_(self.conv.weight)
        nn.init.zeros_(cast(Tensor, self.conv.bias))

    def forward(self, x: Tensor) -> Tensor:
        """`[N, cin, H, W]` to `[N, cout, H, W]`."""
        return cast(Tensor, self.conv(x))


class FPN(nn.Module):
    """1x1 convolutions to one width, sums from coarse to fine, 3x3 convolutions; no norm, no activation.

    Args:
        channels: Of the input maps, finest first.
        dim: Width of the outputs.
    """

    def __init__(self, channels: Sequence[int], dim: int) -> None:
        super().__init__()
        self.lateral_convs = nn.ModuleList(NamedConv(cin, dim, 1) for cin in channels)
        self.fpn_convs = nn.ModuleList(NamedConv(dim, dim, 3) for _ in channels)

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Maps `[N, C_l, H_l, W_l]`, each half the size of the one before, to `[N, dim, H_l, W_l]`."""
        merged = [conv(x) for conv, x in zip(self.lateral_convs, maps, strict=True)]
        for i in range(len(merged) - 1, 0, -1):
            merged[i - 1] = merged[i - 1] + F.interpolate(merged[i], scale_factor=2.0, mode="nearest")
        return [conv(x) for conv, x in zip(self.fpn_convs, merged, strict=True)]
