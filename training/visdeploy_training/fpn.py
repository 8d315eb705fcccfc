"""Feature pyramid network (Lin et al., CVPR 2017) with the names of mmdet's checkpoints."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, cast

import torch.nn.functional as F
from torch import Tensor, nn


class NamedConv(nn.Module):
    """Convolution with the name `conv` and Xavier weights that keeps the size."""

    def __init__(self, cin: int, cout: int, kernel: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(cin, cout, kernel, padding=kernel // 2)
        nn.init.xavier_uniform_(self.conv.weight)
        nn.init.zeros_(cast(Tensor, self.conv.bias))

    def forward(self, x: Tensor) -> Tensor:
        """Map `[N, cin, H, W]` to `[N, cout, H, W]`."""
        return cast(Tensor, self.conv(x))


class FPN(nn.Module):
    """Feature pyramid: lateral 1x1 convolutions, top-down sums, 3x3 convolutions, without norms and activations.

    Args:
        channels: Channels of the input maps, finest map first.
        dim: Channels of the outputs.
        upsampling: Interpolation of a map before it is added to the next finer one.
    """

    def __init__(
        self, channels: Sequence[int], dim: int, *, upsampling: Literal["nearest", "bilinear"] = "nearest"
    ) -> None:
        super().__init__()
        self.upsampling = upsampling
        self.lateral_convs = nn.ModuleList(NamedConv(cin, dim, 1) for cin in channels)
        self.fpn_convs = nn.ModuleList(NamedConv(dim, dim, 3) for _ in channels)

    def forward(self, maps: Sequence[Tensor], *, skip: int = 0) -> list[Tensor]:
        """Transform maps `[N, C_l, H_l, W_l]`, each half the size of the previous one, to `[N, dim, H_l, W_l]`.

        Args:
            maps: Input maps, finest first.
            skip: Number of finest levels that are not computed.
        """
        merged = [conv(x) for conv, x in zip(self.lateral_convs[skip:], maps[skip:], strict=True)]
        for i in range(len(merged) - 1, 0, -1):
            merged[i - 1] = merged[i - 1] + F.interpolate(merged[i], scale_factor=2.0, mode=self.upsampling)
        return [conv(x) for conv, x in zip(self.fpn_convs[skip:], merged, strict=True)]
