"""Transformer of DefVIS: encoder, decoder and the learned instance tokens."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from visdeploy_training.methods.defvis.config import DefVISConfig
from visdeploy_training.methods.defvis.decoder import Decoder, Memory
from visdeploy_training.methods.defvis.encoder import DeformableAttention, Encoder
from visdeploy_training.methods.defvis.geometry import Levels


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
            levels: Levels of these frames.
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
