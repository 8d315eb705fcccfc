"""Deformable encoder and dense decoder (spec sections 3.3 and 3.4); names are those of the official checkpoints."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from visdeploy_plugins.torch_ops import ms_deform_attn
from visdeploy_training.attention import PackedAttention, PackedProjections
from visdeploy_training.methods.defvis.config import DefVISConfig
from visdeploy_training.methods.defvis.geometry import Levels


class DeformableAttention(nn.Module):
    """Every token samples a few points in every level; each frame of the clip is one level."""

    def __init__(self, config: DefVISConfig) -> None:
        super().__init__()
        dim, self.heads = config.hidden_dim, config.num_heads
        self.levels, self.points = config.num_levels, config.num_points
        samples = self.heads * self.levels * self.points
        self.sampling_offsets = nn.Linear(dim, 2 * samples)
        self.attention_weights = nn.Linear(dim, samples)
        self.value_proj = nn.Linear(dim, dim)
        self.output_proj = nn.Linear(dim, dim)

    def reset(self) -> None:
        """Upstream's start: head m looks in direction m, point p at a distance of p + 1 pixels, all alike."""
        for linear in (self.value_proj, self.output_proj):
            nn.init.xavier_uniform_(linear.weight)
            nn.init.zeros_(linear.bias)
        for linear in (self.sampling_offsets, self.attention_weights):
            nn.init.zeros_(linear.weight)
            nn.init.zeros_(linear.bias)
        angle = torch.arange(self.heads, dtype=torch.float32) * (2 * math.pi / self.heads)
        direction = torch.stack([angle.cos(), angle.sin()], dim=-1)
        direction = direction / direction.abs().amax(dim=-1, keepdim=True)
        distance = torch.arange(1, self.points + 1, dtype=torch.float32)
        offsets = direction[:, None, None] * distance[:, None]
        with torch.no_grad():
            self.sampling_offsets.bias.copy_(offsets.expand(-1, self.levels, -1, -1).flatten())

    def values(self, tokens: Tensor, padding: Tensor | None) -> Tensor:
        """Projected values `[B, tokens, heads, C / heads]`, zero where there is padding."""
        value: Tensor = self.value_proj(tokens)
        if padding is not None:
            value = value.masked_fill(padding[..., None], 0.0)
        return value.unflatten(-1, (self.heads, -1))  # type: ignore[no-any-return]

    def sampling(self, query: Tensor, levels: Levels) -> tuple[Tensor, Tensor]:
        """Sampling locations `[B, tokens, heads, L, P, 2]` (x, y) and their weights `[B, tokens, heads, L, P]`."""
        shape = (self.heads, self.levels, self.points)
        offsets = self.sampling_offsets(query).unflatten(-1, (*shape, 2))
        size = levels.shapes.flip(-1).to(offsets.dtype)
        locations = levels.reference[:, :, None, :, None] + offsets / size[:, None]
        weights = self.attention_weights(query).unflatten(-1, (self.heads, -1)).softmax(dim=-1)
        return locations, weights.unflatten(-1, shape[1:])

    def forward(self, tokens: Tensor, levels: Levels) -> Tensor:
        """`[B, tokens, C]` to `[B, tokens, C]`."""
        locations, weights = self.sampling(tokens + levels.position, levels)
        value = self.values(tokens, levels.padding)
        # one precision for all, that of the locations: under autocast the linear layers' is lower
        value, weights = value.to(locations.dtype), weights.to(locations.dtype)
        sampled = ms_deform_attn(value, levels.shapes, levels.starts, locations, weights)
        out: Tensor = self.output_proj(sampled)
        return out


class _FeedForward(nn.Module):
    """What encoder and decoder layers share: two linear layers, and dropout."""

    def __init__(self, config: DefVISConfig) -> None:
        super().__init__()
        self.dropout = nn.Dropout(config.dropout)
        self.linear1 = nn.Linear(config.hidden_dim, config.feedforward_dim)
        self.linear2 = nn.Linear(config.feedforward_dim, config.hidden_dim)

    def feed(self, x: Tensor) -> Tensor:
        """The feed-forward branch, without the sum."""
        out: Tensor = self.dropout(self.linear2(self.dropout(F.relu(self.linear1(x)))))
        return out


class EncoderLayer(_FeedForward):
    """Deformable attention and feed-forward network, each with its sum and norm."""

    def __init__(self, config: DefVISConfig) -> None:
        super().__init__(config)
        self.self_attn = DeformableAttention(config)
        self.norm1 = nn.LayerNorm(config.hidden_dim)
        self.norm2 = nn.LayerNorm(config.hidden_dim)

    def forward(self, tokens: Tensor, levels: Levels) -> Tensor:
        """`[B, tokens, C]`, shape kept."""
        tokens = self.norm1(tokens + self.dropout(self.self_attn(tokens, levels)))
        out: Tensor = self.norm2(tokens + self.feed(tokens))
        return out


class Memory:
    """What the decoder reads: the tokens of the frames, common to all groups, and each group's own.

    Args:
        tokens: Encoder output `[B, tokens, C]`.
        levels: Where they are.
        config: Says how many are instance tokens.

    Attributes:
        frames: `[B, T * h * w, C]`.
        keys: The same plus positions.
        own: Instance tokens `[B, groups, tokens of a group, C]`, None for the layout without.
        own_keys: The same plus positions.
        padding: `[B, T * h * w]` bool, None for none.
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
    """Attention of every group's queries over the frames and the group's own tokens.

    One softmax over both, as if the two were one sequence; the frames are projected once for all groups.
    """

    def forward(self, query: Tensor, memory: Memory) -> Tensor:
        """`[B, groups, queries, C]` to the same shape."""
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


class DecoderLayer(_FeedForward):
    """Self-attention within a group, cross-attention, feed-forward network, each with its sum and norm."""

    def __init__(self, config: DefVISConfig) -> None:
        super().__init__(config)
        self.self_attn = PackedAttention(config.hidden_dim, config.num_heads, dropout=config.dropout)
        self.multihead_attn = CrossAttention(config.hidden_dim, config.num_heads, dropout=config.dropout)
        self.norm1 = nn.LayerNorm(config.hidden_dim)
        self.norm2 = nn.LayerNorm(config.hidden_dim)
        self.norm3 = nn.LayerNorm(config.hidden_dim)

    def forward(self, x: Tensor, position: Tensor, memory: Memory) -> Tensor:
        """`[B, groups, queries, C]`, shape kept; `position` is `[queries, C]`."""
        query = x + position
        x = self.norm1(x + self.dropout(self.self_attn(query, query, x)))
        x = self.norm2(x + self.dropout(self.multihead_attn(x + position, memory)))
        out: Tensor = self.norm3(x + self.feed(x))
        return out


class _Layers(nn.Module):
    """Layers one after the other, computed again for the gradients where the configuration says so."""

    layers: nn.ModuleList

    def __init__(self, config: DefVISConfig) -> None:
        super().__init__()
        self.recompute = config.recompute

    def outputs(self, x: Tensor, *others: Any) -> Sequence[Tensor]:
        """What leaves each layer; all layers take the others as they are."""
        found = []
        for layer in self.layers:
            if self.recompute and self.training:
                x = cast(Tensor, checkpoint(layer, x, *others, use_reentrant=False))
            else:
                x = layer(x, *others)
            found.append(x)
        return found


class Encoder(_Layers):
    """Encoder layers, without a norm behind."""

    def __init__(self, config: DefVISConfig) -> None:
        super().__init__(config)
        self.layers = nn.ModuleList(EncoderLayer(config) for _ in range(config.encoder_layers))

    def forward(self, tokens: Tensor, levels: Levels) -> Tensor:
        """`[B, tokens, C]`, shape kept."""
        return self.outputs(tokens, levels)[-1]


class Decoder(_Layers):
    """Decoder layers; the norm is applied to what leaves each layer, not to what goes on to the next."""

    def __init__(self, config: DefVISConfig) -> None:
        super().__init__(config)
        self.layers = nn.ModuleList(DecoderLayer(config) for _ in range(config.decoder_layers))
        self.norm = nn.LayerNorm(config.hidden_dim)

    def forward(self, position: Tensor, memory: Memory) -> Tensor:
        """Queries `[queries, C]` to the normed outputs of all layers `[layers, B, groups, queries, C]`."""
        groups = 1 if memory.own is None else memory.own.shape[1]
        x = position.new_zeros(memory.frames.shape[0], groups, *position.shape)
        return torch.stack([self.norm(each) for each in self.outputs(x, position, memory)])


class Transformer(nn.Module):
    """Encoder, decoder and the learned instance tokens."""

    def __init__(self, config: DefVISConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(config)
        self.decoder = Decoder(config)
        count = config.instance_groups * config.tokens_per_group
        self.instance_encoders = nn.Embedding(count, config.hidden_dim) if count else None
        self._reset()

    def _reset(self) -> None:
        for parameter in self.parameters():
            if parameter.ndim > 1:
                nn.init.xavier_uniform_(parameter)
        for module in self.modules():
            if isinstance(module, DeformableAttention):
                module.reset()

    def forward(self, frames: Tensor, levels: Levels, queries: Tensor) -> tuple[Tensor, Tensor]:
        """Encode a clip and decode its queries.

        Args:
            frames: `[B, T, C, h, w]`.
            levels: Of these frames.
            queries: `[queries, C]`.

        Returns:
            Frame memory `[B, T, h * w, C]`, decoder outputs `[layers, B, groups, queries, C]`.
        """
        tokens = frames.flatten(3).transpose(2, 3).flatten(1, 2)
        if self.instance_encoders is not None:
            own = self.instance_encoders.weight
            tokens = torch.cat([tokens, own.expand(tokens.shape[0], -1, -1)], dim=1)
        memory = Memory(self.encoder(tokens, levels), levels, self.config)
        decoded = self.decoder(queries, memory)
        return memory.frames.unflatten(1, (frames.shape[1], -1)), decoded
