"""Multi-head attention with packed projections, named as in PyTorch, for methods that need its parts."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class PackedProjections(nn.Module):
    """Projections of multi-head attention as separate methods, so that shared inputs are projected only once.

    State dict: `in_proj_weight` `[3C, C]` (query, key, value), `in_proj_bias`, `out_proj`.

    Args:
        dim: Width C.
        heads: Number of heads.
        dropout: Dropout rate of the attention weights in training.
    """

    def __init__(self, dim: int, heads: int, *, dropout: float = 0.0) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.in_proj_weight = nn.Parameter(torch.empty(3 * dim, dim))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * dim))
        self.out_proj = nn.Linear(dim, dim)
        nn.init.xavier_uniform_(self.in_proj_weight)
        nn.init.zeros_(self.out_proj.bias)

    def _project(self, x: Tensor, part: int) -> Tensor:
        weight, bias = self.in_proj_weight.chunk(3)[part], self.in_proj_bias.chunk(3)[part]
        return split_heads(F.linear(x, weight, bias), self.heads)

    def query(self, x: Tensor) -> Tensor:
        """Project `[..., N, C]` to queries `[..., heads, N, C / heads]`."""
        return self._project(x, 0)

    def key(self, x: Tensor) -> Tensor:
        """Project `[..., N, C]` to keys `[..., heads, N, C / heads]`."""
        return self._project(x, 1)

    def value(self, x: Tensor) -> Tensor:
        """Project `[..., N, C]` to values `[..., heads, N, C / heads]`."""
        return self._project(x, 2)

    def weights(self, scores: Tensor) -> Tensor:
        """Return the attention weights: softmax of the scores over the last axis, with dropout in training.

        Scores must already be divided by the square root of the head width.
        """
        return F.dropout(scores.softmax(dim=-1), self.dropout, self.training)

    def merge(self, x: Tensor) -> Tensor:
        """Map `[..., heads, N, C / heads]` to `[..., N, C]` by the output projection."""
        out: Tensor = self.out_proj(x.transpose(-3, -2).flatten(-2))
        return out


class PackedAttention(PackedProjections):
    """Standard multi-head attention."""

    def forward(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Return `[..., N, C]` from queries `[..., N, C]`, keys `[..., K, C]` and values `[..., K, C]`."""
        q, k, v = self.query(query), self.key(key), self.value(value)
        scores = torch.matmul(q * q.shape[-1] ** -0.5, k.transpose(-1, -2))
        return self.merge(torch.matmul(self.weights(scores), v))


def split_heads(x: Tensor, heads: int) -> Tensor:
    """Map `[..., N, C]` to `[..., heads, N, C / heads]`."""
    split: Tensor = x.unflatten(-1, (heads, -1))
    return split.transpose(-3, -2)
