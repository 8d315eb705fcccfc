"""Decoder of DefVIS with dense attention, run per group, with the names of the official checkpoints."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from visdeploy_training.attention import PackedAttention, PackedProjections
from visdeploy_training.methods.defvis.blocks import FeedForward, Layers
from visdeploy_training.methods.defvis.config import DefVISConfig
from visdeploy_training.methods.defvis.geometry import Levels


class Memory:
    """Memory of the decoder: the tokens of the frames, shared by all groups, and the instance tokens of each group.

    Args:
        tokens: Encoder output `[B, tokens, C]`.
        levels: Positions of the tokens.
        config: Configuration with the number of instance tokens.

    Attributes:
        frames: Tokens of the frames `[B, T * h * w, C]`.
        keys: The same plus positional encodings.
        own: Instance tokens `[B, groups, tokens of a group, C]`; None in the layout without groups.
        own_keys: The same plus positional encodings.
        padding: `[B, T * h * w]` bool; None if there is no padding.
    """

    def __init__(self, tokens: Tensor, levels: Levels, config: DefVISConfig) -> None:
        groups, count = config.instance_groups, config.instance_groups * config.tokens_per_group
        pixels = tokens.shape[1] - count
        keys = tokens + levels.position
        self.frames, self.keys = tokens[:, :pixels], keys[:, :pixels]
        self.own: Tensor | None = tokens[:, pixels:].unflatten(1, (groups, -1)) if groups else None
        self.own_keys: Tensor | None = keys[:, pixels:].unflatten(1, (groups, -1)) if groups else None
        self.padding = None if levels.padding is None else levels.padding[:, :pixels]


class CrossAttention(PackedProjections):
    """Attention of the queries of each group over the tokens of the frames and of the group.

    The softmax runs over both as over one sequence. The frames are projected once for all groups.
    """

    def forward(self, query: Tensor, memory: Memory) -> Tensor:
        """Return the attention output of queries `[B, groups, queries, C]`, in the same shape."""
        q = self.query(query).transpose(1, 2)  # [B, heads, groups, queries, d]
        q = q * q.shape[-1] ** -0.5
        groups, queries = q.shape[2:4]
        key, value = self.key(memory.keys), self.value(memory.frames)
        scores = torch.matmul(q.flatten(2, 3), key.transpose(-1, -2))
        if memory.padding is not None:
            scores = scores.masked_fill(memory.padding[:, None, None], float("-inf"))
        if memory.own is None or memory.own_keys is None:
            return self.merge(torch.matmul(self.weights(scores), value).unflatten(2, (groups, queries)).transpose(1, 2))
        own_key, own_value = (x.transpose(1, 2) for x in (self.key(memory.own_keys), self.value(memory.own)))
        own = torch.matmul(q, own_key.transpose(-1, -2)).flatten(2, 3)
        weights = self.weights(torch.cat([scores, own], dim=-1))
        shared, own = weights.split([scores.shape[-1], own.shape[-1]], dim=-1)
        read = torch.matmul(shared, value).unflatten(2, (groups, queries))
        read = read + torch.matmul(own.unflatten(2, (groups, queries)), own_value)
        return self.merge(read.transpose(1, 2))


class DecoderLayer(FeedForward):
    """Self-attention within a group, cross-attention and feed-forward network, each with residual sum and norm."""

    def __init__(self, config: DefVISConfig) -> None:
        super().__init__(config)
        self.self_attn = PackedAttention(config.hidden_dim, config.num_heads, dropout=config.dropout)
        self.multihead_attn = CrossAttention(config.hidden_dim, config.num_heads, dropout=config.dropout)
        self.norm1 = nn.LayerNorm(config.hidden_dim)
        self.norm2 = nn.LayerNorm(config.hidden_dim)
        self.norm3 = nn.LayerNorm(config.hidden_dim)

    def forward(self, x: Tensor, position: Tensor, memory: Memory) -> Tensor:
        """Transform queries `[B, groups, queries, C]` to the same shape; `position` is `[queries, C]`."""
        query = x + position
        x = self.norm1(x + self.dropout(self.self_attn(query, query, x)))
        x = self.norm2(x + self.dropout(self.multihead_attn(x + position, memory)))
        out: Tensor = self.norm3(x + self.feed(x))
        return out


class Decoder(Layers):
    """Decoder layers with a norm of their outputs; the next layer receives the output without this norm."""

    def __init__(self, config: DefVISConfig) -> None:
        super().__init__(config)
        self.layers = nn.ModuleList(DecoderLayer(config) for _ in range(config.decoder_layers))
        self.norm = nn.LayerNorm(config.hidden_dim)

    def forward(self, position: Tensor, memory: Memory) -> Tensor:
        """Map queries `[queries, C]` to the normalised outputs of all layers `[layers, B, groups, queries, C]`."""
        groups = 1 if memory.own is None else memory.own.shape[1]
        x = position.new_zeros(memory.frames.shape[0], groups, *position.shape)
        return torch.stack([self.norm(each) for each in self.outputs(x, position, memory)])
