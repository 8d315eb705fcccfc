"""Training output of TPR networks."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

STRIDES = (8, 16, 32, 64, 128)
"""Strides of the pyramid levels p3 to p7."""
BASE_STRIDE, MAP_STRIDE = 4, 8
"""Strides of the bases, and of the embedding maps and the semantic map."""


class TPROutput(NamedTuple):
    """Output of the network in training for B pairs of frames, or B images, with levels p3 to p7.

    Attributes:
        class_logits: `[B, num_classes, H_l, W_l]` for each level.
        distances: Left, top, right, bottom in strides, not negative, `[B, 4, H_l, W_l]` for each level.
        centreness: Logits `[B, 1, H_l, W_l]` for each level.
        attention: Attention maps of every location, `[B, bases * side * side, H_l, W_l]` for each level.
        bases: `[B, num_bases, H / 4, W / 4]`.
        query_map: Embeddings of the first frames, `[B, track_dim, H / 8, W / 8]`; without channels in the image stage.
        reference_map: Embeddings of the second frames, same shape.
        soft_cost: Cost of the gated convolutions with every position weighted by its gate, relative to the full cost,
            `[B]`; 0 in the image stage.
        used_cost: The same with the positions of open gates, without gradient.
        semantic: Logits of the auxiliary semantic head `[B, num_classes, H / 8, W / 8]`; None without this head.
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
