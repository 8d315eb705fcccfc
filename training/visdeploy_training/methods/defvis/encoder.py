"""Encoder of DefVIS with spatio-temporal deformable attention, with the names of the official checkpoints."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from visdeploy_plugins.torch_ops import ms_deform_attn_fused
from visdeploy_training.methods.defvis.blocks import FeedForward, Layers
from visdeploy_training.methods.defvis.config import DefVISConfig
from visdeploy_training.methods.defvis.geometry import Levels


class DeformableAttention(nn.Module):
    """Spatio-temporal deformable attention (Yarram et al., ICASSP 2022).

    It is the multi-scale deformable attention of Deformable DETR (Zhu et al., ICLR 2021, equation 3) in which each
    frame of the clip is one level: every token samples a few points in every frame.
    """

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
        """Initialise as Deformable DETR: point p of head m lies p + 1 pixels away in direction m, in every level."""
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
        """Return the projected values `[B, tokens, heads, C / heads]`, zero at padding."""
        value: Tensor = self.value_proj(tokens)
        if padding is not None:
            value = value.masked_fill(padding[..., None], 0.0)
        return value.unflatten(-1, (self.heads, -1))  # type: ignore[no-any-return]

    def samples(self, query: Tensor) -> tuple[Tensor, Tensor]:
        """Return offsets (x, y) in cells `[B, tokens, heads, L, P, 2]` and weight logits `[B, tokens, heads, L, P]`."""
        shape = (self.heads, self.levels, self.points)
        offsets = self.sampling_offsets(query).unflatten(-1, (*shape, 2))
        return offsets, self.attention_weights(query).unflatten(-1, shape)

    def forward(self, tokens: Tensor, levels: Levels) -> Tensor:
        """Return the attention output of tokens `[B, tokens, C]`, in the same shape."""
        offsets, logits = self.samples(tokens + levels.position)
        value = self.values(tokens, levels.padding)
        reference = levels.reference.expand(len(tokens), -1, -1, -1).contiguous()
        sampled = ms_deform_attn_fused(value, levels.shapes, levels.starts, reference, offsets, logits)
        out: Tensor = self.output_proj(sampled)
        return out


class EncoderLayer(FeedForward):
    """Deformable attention and feed-forward network, each with residual sum and norm."""

    def __init__(self, config: DefVISConfig) -> None:
        super().__init__(config)
        self.self_attn = DeformableAttention(config)
        self.norm1 = nn.LayerNorm(config.hidden_dim)
        self.norm2 = nn.LayerNorm(config.hidden_dim)

    def forward(self, tokens: Tensor, levels: Levels) -> Tensor:
        """Transform tokens `[B, tokens, C]` to the same shape."""
        tokens = self.norm1(tokens + self.dropout(self.self_attn(tokens, levels)))
        out: Tensor = self.norm2(tokens + self.feed(tokens))
        return out


class Encoder(Layers):
    """Encoder layers, without a final norm."""

    def __init__(self, config: DefVISConfig) -> None:
        super().__init__(config)
        self.layers = nn.ModuleList(EncoderLayer(config) for _ in range(config.encoder_layers))

    def forward(self, tokens: Tensor, levels: Levels) -> Tensor:
        """Transform tokens `[B, tokens, C]` to the same shape."""
        return self.outputs(tokens, levels)[-1]
