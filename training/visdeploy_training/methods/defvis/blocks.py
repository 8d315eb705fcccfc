"""Modules shared by the encoder and the decoder of DefVIS."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from visdeploy_training.methods.defvis.config import DefVISConfig


class FeedForward(nn.Module):
    """Base class of layers with a feed-forward network of two linear layers, and with dropout."""

    def __init__(self, config: DefVISConfig) -> None:
        super().__init__()
        self.dropout = nn.Dropout(config.dropout)
        self.linear1 = nn.Linear(config.hidden_dim, config.feedforward_dim)
        self.linear2 = nn.Linear(config.feedforward_dim, config.hidden_dim)

    def feed(self, x: Tensor) -> Tensor:
        """Return the output of the feed-forward branch, without the residual sum."""
        out: Tensor = self.dropout(self.linear2(self.dropout(F.relu(self.linear1(x)))))
        return out


class Layers(nn.Module):
    """Sequence of layers, with activation checkpointing in training if the configuration enables it."""

    layers: nn.ModuleList

    def __init__(self, config: DefVISConfig) -> None:
        super().__init__()
        self.recompute = config.recompute

    def outputs(self, x: Tensor, *others: Any) -> Sequence[Tensor]:
        """Return the output of each layer; all layers receive the same `others`."""
        found = []
        for layer in self.layers:
            if self.recompute and self.training:
                x = cast(Tensor, checkpoint(layer, x, *others, use_reentrant=False))
            else:
                x = layer(x, *others)
            found.append(x)
        return found
