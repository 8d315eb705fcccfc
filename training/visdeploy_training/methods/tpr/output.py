"""Training output of TPR networks, the interface between the network and the losses."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

STRIDES = (8, 16, 32, 64, 128)
"""Input pixels per cell of the pyramid levels p3..p7."""
BASE_STRIDE, MAP_STRIDE = 4, 8
"""Input pixels per cell of the bases, and of the embedding maps and the semantic map."""


class TPROutput(NamedTuple):
    """Training output for B pairs of frames, or for B single images (image stage), on the levels p3..p7.

    Attributes:
        class_logits: `[B, C, H_l, W_l]` per level.
        distances: `[B, 4, H_l, W_l]` per level, from a location to the left, top, right and bottom of its box in
            strides, not negative.
        centreness: `[B, 1, H_l, W_l]` logits per level.
        attention: `[B, bases * s * s, H_l, W_l]` per level; channels are bases, then rows and columns of attention
            maps of s x s cells.
        bases: `[B, bases, H / 4, W / 4]`.
        query_map: Embeddings of the query frames, `[B, 512, H / 8, W / 8]`; empty for single images.
        reference_map: The same for the reference frames.
        soft_cost: `[B]`, computation of the gated blocks weighted with their gates, as a fraction of the full one.
        used_cost: `[B]`, the same with every gate that is not 0 counted as 1; without gradient, for logs.
        semantic: Logits of the auxiliary semantic head, `[B, C, H / 8, W / 8]`, or None.
    """

    class_logits: list[Tensor]
    distances: list[Tensor]
    centreness: list[Tensor]
    attention: list[Tensor]
    bases: Tensor
    query_map: Tensor
    reference_map: Tensor
    soft_cost: Tensor
    used_cost: Tensor
    semantic: Tensor | None = None
