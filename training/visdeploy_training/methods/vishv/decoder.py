"""Squeeze-expand decoder of STEm-Seg (Athar et al., ECCV 2020, section 3.3): 3-D convolutions with temporal pooling."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from visdeploy.errors import ConfigError
from visdeploy_training.methods.vishv.config import WINDOWS, VIShvConfig


def pools(frames: int) -> int:
    """Return the number of temporal poolings at stride 32, at most three: a clip keeps at least two frames.

    Raises:
        ConfigError: There is no layout for this number of frames.
    """
    if frames not in WINDOWS:
        raise ConfigError(
            "vishv: wrong number of frames of a clip",
            seen=str(frames),
            expected=f"one of {', '.join(map(str, WINDOWS))}",
        )
    return {2: 0, 4: 1, 8: 2}.get(frames, 3)


def enlarge(x: Tensor, *, frames: int = 1, space: int = 2) -> Tensor:
    """Resize trilinearly by whole factors, corners not aligned.

    The interpolation is separable. In two steps, it needs only operators with two axes, which all engines have.

    Args:
        x: `[B, C, T, h, w]`.
        frames: Factor of the frames.
        space: Factor of rows and columns.

    Returns:
        `[B, C, frames * T, space * h, space * w]`.
    """
    length = x.shape[2]
    flat = F.interpolate(x.flatten(1, 2), scale_factor=float(space), mode="bilinear", align_corners=False)
    wide: Tensor = flat.unflatten(1, (-1, length))
    if frames == 1:
        return wide
    factors = (float(frames), 1.0)
    flat = F.interpolate(wide.flatten(3, 4), scale_factor=factors, mode="bilinear", align_corners=False)
    long: Tensor = flat.unflatten(3, (wide.shape[3], -1))
    return long


class Block(nn.Sequential):
    """3x3x3 convolutions, each followed by norm, ReLU, and an optional temporal pooling.

    The pooling is not a layer of its own, because it depends on the length of the clip. An identity takes its place, so
    that the names of the layers are those of the published checkpoints.

    Args:
        cin: Channels of the input.
        cout: Channels of the output.
        depth: Number of convolutions.
        config: Norm and pooling.
    """

    def __init__(self, cin: int, cout: int, depth: int, config: VIShvConfig) -> None:
        layers: list[nn.Module] = []
        for i in range(depth):
            norm = nn.GroupNorm(config.num_groups, cout) if config.norm == "group" else nn.Identity()
            layers += [nn.Conv3d(cout if i else cin, cout, 3, padding=1), norm, nn.ReLU(), nn.Identity()]
        super().__init__(*layers)
        self.pool = config.pool

    def forward(self, x: Tensor, pooled: int = 0) -> Tensor:
        """Map `[B, cin, T, h, w]` to `[B, cout, T / 2**pooled, h, w]`; `pooled` is the number of poolings."""
        for i, layer in enumerate(self):
            x = layer(x)
            if i % 4 == 3 and i // 4 < pooled:
                x = self._pool(x)
        return x

    def _pool(self, x: Tensor) -> Tensor:
        stride = (2, 1, 1)
        if self.pool == "max":
            return F.max_pool3d(x, 3, stride, 1)
        # the published pooling counts the padding, also at the borders of a frame
        return F.avg_pool3d(x, 3, stride, 1, count_include_pad=True)


class Decoder(nn.Module):
    """Body of a head: coarse maps are squeezed in time, then merged with finer ones.

    Args:
        channels: Channels at strides 32, 16, 8 and 4.
        config: Pyramid, norm and pooling.
    """

    def __init__(self, channels: Sequence[int], config: VIShvConfig) -> None:
        super().__init__()
        cin = config.pyramid_channels
        c32, c16, c8, c4 = channels
        self.block_32x = Block(cin, c32, 3, config)
        self.block_16x = Block(cin, c16, 2, config)
        self.block_8x = Block(cin, c8, 1, config)
        self.block_4x = Block(cin, c4, 1, config)
        self.conv_16 = nn.Conv3d(c32 + c16, c16, 1, bias=False)
        self.conv_8 = nn.Conv3d(c16 + c8, c8, 1, bias=False)
        self.conv_4 = nn.Conv3d(c8 + c4, c4, 1, bias=False)

    def decode(self, levels: Sequence[Tensor]) -> Tensor:
        """Decode the pyramid of clips.

        Args:
            levels: Maps `[B, C, T, H / s, W / s]` for the strides s = 4, 8, 16 and 32.

        Returns:
            `[B, c4, T, H / 4, W / 4]`.

        Raises:
            ConfigError: There is no layout for T frames.
        """
        x4, x8, x16, x32 = levels
        count = pools(x4.shape[2])
        x = self.block_32x(x32, count)
        blocks = (self.block_16x(x16, min(count, 2)), self.block_8x(x8, min(count, 1)), self.block_4x(x4))
        # one step to a finer map undoes one of the poolings; the last steps do if there are fewer
        for step, (fine, conv) in enumerate(zip(blocks, (self.conv_16, self.conv_8, self.conv_4), strict=True)):
            x = conv(torch.cat([enlarge(x, frames=2 if step >= 3 - count else 1), fine], dim=1))
        return cast(Tensor, x)


class OutputHead(Decoder):
    """Decoder with one output layer, for semantic classes or the seediness.

    Args:
        channels: Channels at strides 32, 16, 8 and 4.
        out: Channels of the output.
        config: Pyramid, norm and pooling.
    """

    def __init__(self, channels: Sequence[int], out: int, config: VIShvConfig) -> None:
        super().__init__(channels, config)
        self.conv_out = nn.Conv3d(channels[-1], out, 1, bias=False)

    def forward(self, levels: Sequence[Tensor]) -> Tensor:
        """Map the pyramid to `[B, out, T, H / 4, W / 4]`, see `decode`."""
        return cast(Tensor, self.conv_out(self.decode(levels)))
