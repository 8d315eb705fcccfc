"""Positions of the encoder's tokens: positional encodings, levels, reference points."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


class Levels(NamedTuple):
    """Layout of the encoder's tokens: the pixels of all frames, frame by frame and row by row, then instance tokens.

    Attributes:
        shapes: `[L, 2]` int64, rows and columns of each level.
        starts: `[L]` int64, first token of each level.
        reference: `[1 or B, tokens, L, 2]`, reference point x and y in 0..1 of each sampled level; never in half
            precision, which cannot represent positions of pixels accurately.
        position: Positional encoding `[1 or B, tokens, C]`.
        padding: `[B, tokens]` bool, True for padding; None if there is no padding.
    """

    shapes: Tensor
    starts: Tensor
    reference: Tensor
    position: Tensor
    padding: Tensor | None


def sine_position(valid: Tensor, features: int) -> Tensor:
    """Return the sine and cosine encoding of the position along every axis, normalised to the valid part.

    Args:
        valid: `[B, *axes]` float, 1 for valid positions and 0 for padding.
        features: Channels per axis, even.

    Returns:
        `[B, *axes, features * number of axes]`, first axis first.
    """
    pair = torch.arange(0, features, 2, device=valid.device, dtype=valid.dtype)
    scale = 10000 ** (pair / features)
    encoded = []
    for axis in range(1, valid.ndim):
        count = valid.cumsum(axis)
        last = count.narrow(axis, count.shape[axis] - 1, 1)
        angle = (count / (last + 1e-6) * (2 * math.pi)).unsqueeze(-1) / scale
        encoded.append(torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(-2))
    return torch.cat(encoded, dim=-1)


def pixel_centres(height: int, width: int, like: Tensor) -> Tensor:
    """Return the centres of the cells of a grid in 0..1: `[height * width, 2]`, x first, row by row."""
    y = (torch.arange(height, device=like.device, dtype=like.dtype) + 0.5) / height
    x = (torch.arange(width, device=like.device, dtype=like.dtype) + 0.5) / width
    return torch.stack([x.expand(height, width), y[:, None].expand(height, width)], dim=-1).flatten(0, 1)


def resize_padding(padding: Tensor, height: int, width: int) -> Tensor:
    """Resize a padding mask to the size of a feature map, by nearest neighbour.

    Args:
        padding: `[N, H, W]` bool.
        height: Rows of the result.
        width: Columns of the result.

    Returns:
        `[N, height, width]` bool.
    """
    return F.interpolate(padding[:, None].float(), size=(height, width), mode="nearest")[:, 0].bool()


def make_levels(frames: Tensor, tokens: Sequence[int] | None, padding: Tensor | None) -> Levels:
    """Return the levels of a batch of clips.

    Args:
        frames: `[B, T, C, h, w]`, of which only shape, dtype and device are used.
        tokens: Rows and columns of the grid of instance tokens; None if there are none.
        padding: `[B, T, h, w]` bool, True for padding; None if there is no padding.
    """
    _, count, channels, height, width = frames.shape
    # `repeat` and a product instead of lists: with symbolic sizes, a list adds several nodes per frame to the graph
    shapes = torch.tensor([[height, width]], dtype=torch.int64, device=frames.device).repeat(count, 1)
    if tokens:
        shapes = torch.cat([shapes, torch.tensor([[*tokens]], dtype=torch.int64, device=frames.device)])
    starts = torch.arange(len(shapes), device=frames.device) * (height * width)
    # positions are float32 in every precision of the network, because differences of nearby positions matter
    like = frames.new_ones((), dtype=torch.float32)
    valid = like.expand(1, count, height, width) if padding is None else (~padding).float()
    position = sine_position(valid, channels // 3).flatten(1, 3)
    reference = pixel_centres(height, width, like).repeat(count, 1)[None, :, None]
    if padding is not None:
        reference = _padded_reference(reference, valid, tokens is not None)
    if tokens:
        grid = sine_position(like.expand(1, *tokens), channels // 2).flatten(1, 2)
        own = pixel_centres(tokens[0], tokens[1], like)[None, :, None]
        if padding is not None:
            grid = grid.expand(len(position), -1, -1)
            own = own * _valid_ratio(valid, True)[:, None]
            padding = F.pad(padding.flatten(1), (0, tokens[0] * tokens[1]))
        position, reference = torch.cat([position, grid], dim=1), torch.cat([reference, own], dim=1)
    elif padding is not None:
        padding = padding.flatten(1)
    wide = torch.promote_types(frames.dtype, torch.float32)
    reference = reference.to(wide).expand(-1, -1, len(shapes), -1)
    return Levels(shapes, starts, reference, position.to(frames.dtype), padding)


def _valid_ratio(valid: Tensor, tokens: bool) -> Tensor:
    """Return the fraction of each level that is not padding, x and y: `[B, L, 2]`; 1 for the grid of tokens."""
    ratio = torch.stack([valid[:, :, 0].mean(dim=-1), valid[..., 0].mean(dim=-1)], dim=-1)
    return F.pad(ratio, (0, 0, 0, 1), value=1.0) if tokens else ratio


def _padded_reference(reference: Tensor, valid: Tensor, tokens: bool) -> Tensor:
    """Rescale reference points from the valid part of the token's frame to that of each level.

    Returns:
        `[B, T * h * w, L, 2]`.
    """
    ratio = _valid_ratio(valid, tokens)
    pixels = valid.shape[2] * valid.shape[3]
    own = ratio[:, : valid.shape[1]].repeat_interleave(pixels, dim=1)
    return reference / own[:, :, None] * ratio[:, None]
