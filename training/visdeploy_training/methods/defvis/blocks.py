"""What encoder and decoder of DefVIS share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from visdeploy_training.methods.defvis.config import DefVISConfig


class FeedForward(nn.Module):
    """A layer's feed-forward network, two linear layers, and its dropout."""

    def __init__(self, config: DefVISConfig) -> None:
        super().__init__()
        self.dropout = nn.Dropout(config.dropout)
        self.linear1 = nn.Linear(config.hidden_dim, config.feedforward_dim)
        self.linear2 = nn.Linear(config.feedforward_dim, config.hidden_dim)

    def feed(self, x: Tensor) -> Tensor:
        """The feed-forward branch, without the sum."""
        out: Tensor = self.dropout(self.linear2(self.dropout(F.relu(self.linear1(x)))))
        return out


class Layers(nn.Module):
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
