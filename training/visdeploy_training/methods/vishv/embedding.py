"""Embedding head and appearance decoder: embedding, bandwidth and seediness of every pixel of a clip."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from visdeploy_training.methods.vishv.config import VIShvConfig
from visdeploy_training.methods.vishv.decoder import Decoder, enlarge

BANDWIDTH_SCALE = 10.0
"""Bandwidth of a raw variance of 0."""


class Embeddings(NamedTuple):
    """Output of the embedding head for B clips of T frames, at a quarter of the input size.

    Attributes:
        values: Embedding of each pixel, `[B, E, T, h, w]`.
        variances: Raw variance of the first dimensions, `[B, B', T, h, w]`; see `bandwidths`.
        seediness: Probability that a pixel represents its object, `[B, 1, T, h, w]`; None if it has its own decoder.
    """

    values: Tensor
    variances: Tensor
    seediness: Tensor | None


class EmbeddingHead(Decoder):
    """Decoder with the outputs of an embedding: position with a learned correction, free dimensions, bandwidths.

    Args:
        config: Dimensions of the embedding, and layers.

    Attributes:
        time_scale: Largest time coordinate, stored in the checkpoint; the clip ranges from its negative to it.
    """

    time_scale: Tensor

    def __init__(self, config: VIShvConfig) -> None:
        super().__init__(config.decoder_channels, config)
        self.position, self.free_dims, self.detach = config.position, config.free_dims, config.offset_detach
        c4 = config.decoder_channels[-1]
        self.conv_embedding = nn.Conv3d(c4, config.embedding_dims, 1, bias=False)
        self.conv_variance = nn.Conv3d(c4, config.bandwidth_dims, 1)
        self.conv_seediness = None if config.separate_seediness else nn.Conv3d(c4, 1, 1, bias=False)
        self.register_buffer("time_scale", torch.tensor(config.time_scale))

    def forward(self, levels: Sequence[Tensor], appearance: Tensor | None = None) -> Embeddings:
        """Compute the embeddings of a pyramid.

        Args:
            levels: Maps `[B, C, T, H / s, W / s]` for the strides s = 4, 8, 16 and 32.
            appearance: Centre of the free dimensions, `[B, F, T, H / 4, W / 4]`; None for 0.
        """
        x = self.decode(levels)
        raw = self.conv_embedding(x)
        free = x.new_zeros(()) if appearance is None else appearance
        free = free.expand(len(x), self.free_dims, *x.shape[2:])
        centre = torch.cat([coordinate_grid(x, self.position, self.time_scale), free], dim=1)
        centre = centre.detach() if self.detach else centre
        seediness = None if self.conv_seediness is None else self.conv_seediness(x).sigmoid()
        return Embeddings((0.25 * raw).tanh() + centre, self.conv_variance(x), seediness)


class AppearanceDecoder(nn.Module):
    """Appearance embedding of every pixel, from the coarsest map alone (VIShv).

    The two convolutions follow the upsampling in the published implementation. They act on single pixels and are
    linear, so they commute with it, and are cheaper before it.

    Args:
        config: Channels.
    """

    def __init__(self, config: VIShvConfig) -> None:
        super().__init__()
        self.conv1_add = nn.Sequential(
            nn.Conv3d(config.pyramid_channels, config.appearance_dim, 1),
            nn.Conv3d(config.appearance_dim, config.free_dims, 1),
        )

    def forward(self, coarse: Tensor) -> Tensor:
        """Map `[B, C, T, H / 32, W / 32]` to `[B, F, T, H / 4, W / 4]`."""
        return enlarge(self.conv1_add(coarse), space=8)


def flow_input(appearance: Tensor, bits: int, *, straight_through: bool) -> Tensor:
    """Reduce and quantise the appearance embedding to the input of the flow.

    Args:
        appearance: `[B, F, T, h, w]`.
        bits: Bits per value.
        straight_through: Ignore the rounding in the gradient; otherwise there is no gradient.

    Returns:
        `[B, F, T, h / 4, w / 4]`, from -0.5 to less than 0.5.
    """
    pooled = F.avg_pool3d(F.avg_pool3d(appearance, (1, 2, 2)), (1, 2, 2))
    value = pooled.sigmoid() * 255
    if bits < 8:
        value = value / 2 ** (8 - bits)
        rounded = value.floor()
        value = value + (rounded - value).detach() if straight_through else rounded
    scaled: Tensor = value / 2**bits - 0.5
    return scaled


def bandwidths(variances: Tensor) -> Tensor:
    """Convert raw variances of any shape to bandwidths, the inverse squared size of a cluster."""
    return BANDWIDTH_SCALE * variances.exp()


def coordinate_grid(like: Tensor, position: str, time_scale: Tensor) -> Tensor:
    """Return the coordinates of the pixels of clips, end points included.

    The shorter side ranges from -1 to 1, the longer one is in proportion, and time ranges from `-time_scale` to
    `time_scale`.

    Args:
        like: `[B, C, T, h, w]`.
        position: Coordinates in order, of `t`, `y` and `x`.
        time_scale: Scalar.

    Returns:
        `[B, len(position), T, h, w]`.
    """
    frames, height, width = like.shape[2:]
    rows, columns = _counts(height, like), _counts(width, like)
    # sizes as tensors keep symbolic sizes symbolic in an exported graph
    ratio = (columns[-1] + 1) / (rows[-1] + 1)
    lines = {
        "t": (_line(_counts(frames, like)) * time_scale).view(1, 1, -1, 1, 1),
        "y": (_line(rows) * (1 / ratio).clamp(min=1)).view(1, 1, 1, -1, 1),
        "x": (_line(columns) * ratio.clamp(min=1)).view(1, 1, 1, 1, -1),
    }
    shape = (len(like), 1, frames, height, width)
    return torch.cat([lines[axis].expand(shape) for axis in position], dim=1)


def _counts(size: int, like: Tensor) -> Tensor:
    return torch.arange(size, device=like.device, dtype=torch.promote_types(like.dtype, torch.float32))


def _line(counts: Tensor) -> Tensor:
    """Return values from -1 to 1 at equal distances."""
    return counts * (2.0 / counts[-1].clamp(min=1)) - 1.0
