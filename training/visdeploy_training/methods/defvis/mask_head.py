"""Masks of all slots and frames at once (spec section 3.5): attention maps, convolutional head, sequence head."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from visdeploy_training.attention import split_heads
from visdeploy_training.layers import DeformConv2d
from visdeploy_training.methods.defvis.config import DefVISConfig


class AttentionMap(nn.Module):
    """Where each slot looks in its frame: one softmax over all heads and pixels, no values."""

    def __init__(self, config: DefVISConfig) -> None:
        super().__init__()
        self.heads = config.num_heads
        self.q_linear = nn.Linear(config.hidden_dim, config.hidden_dim)
        self.k_linear = nn.Linear(config.hidden_dim, config.hidden_dim)
        for linear in (self.q_linear, self.k_linear):
            nn.init.xavier_uniform_(linear.weight)
            nn.init.zeros_(linear.bias)

    def forward(self, slots: Tensor, memory: Tensor, padding: Tensor | None) -> Tensor:
        """Maps of all slots.

        Args:
            slots: `[B, S, T, C]`.
            memory: `[B, T, pixels, C]`.
            padding: `[B, T, pixels]` bool, None for none.

        Returns:
            `[B, S, T, heads, pixels]`; every slot and frame sums to one.
        """
        query = split_heads(self.q_linear(slots).transpose(1, 2), self.heads)  # [B, T, heads, S, d]
        key = split_heads(self.k_linear(memory), self.heads)
        scores = torch.matmul(query * query.shape[-1] ** -0.5, key.transpose(-1, -2))
        if padding is not None:
            scores = scores.masked_fill(padding[:, :, None, None], float("-inf"))
        scores = scores.permute(0, 3, 1, 2, 4)
        return scores.flatten(3).softmax(dim=-1).view(scores.shape)


class MaskHead(nn.Module):
    """From attention maps to features at stride 4, a slot and frame at a time, all of them in one batch."""

    def __init__(self, config: DefVISConfig, channels: Mapping[str, int]) -> None:
        super().__init__()
        dim, groups = config.hidden_dim, config.mask_groups
        first = dim + config.num_heads
        widths = (first, *config.mask_widths)
        self.lay1, self.gn1 = nn.Conv2d(first, first, 3, padding=1), nn.GroupNorm(groups, first)
        for i in (2, 3, 4):
            self.add_module(f"lay{i}", nn.Conv2d(widths[i - 2], widths[i - 1], 3, padding=1))
            self.add_module(f"gn{i}", nn.GroupNorm(groups, widths[i - 1]))
        for i, stage in enumerate(("res4", "res3", "res2"), start=1):
            self.add_module(f"adapter{i}", nn.Conv2d(channels[stage], widths[i], 1))
        self.conv_offset = nn.Conv2d(widths[3], 18, 1)
        self.dcn = DeformConv2d(widths[3], widths[4], 3, padding=1)
        self.gn5 = nn.GroupNorm(groups, widths[4])
        self._init()

    def _init(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_uniform_(module.weight, a=1)
                nn.init.zeros_(cast(Tensor, module.bias))
        nn.init.zeros_(self.conv_offset.weight)

    def forward(self, memory: Tensor, maps: Tensor, laterals: Mapping[str, Tensor]) -> Tensor:
        """Features of all slots.

        Args:
            memory: `[B, T, C, h, w]`, encoder output at stride 32.
            maps: `[B, S, T, heads, h, w]`.
            laterals: Backbone maps `res4`, `res3`, `res2`, each `[B * T, channels, height, width]`.

        Returns:
            `[B, S, T, C / 16, H / 4, W / 4]`.
        """
        lead = maps.shape[:3]
        x = F.relu(self.gn1(self._first(memory, maps)))
        x = F.relu(self.gn2(self.get_submodule("lay2")(x)))
        for i, stage in enumerate(("res4", "res3", "res2"), start=1):
            lateral = self.get_submodule(f"adapter{i}")(laterals[stage])
            x = F.interpolate(x, size=lateral.shape[-2:], mode="nearest")
            # a frame's lateral is the same for all slots
            x = (x.unflatten(0, lead) + lateral.unflatten(0, (lead[0], 1, lead[2]))).flatten(0, 2)
            if i < 3:
                x = F.relu(self.get_submodule(f"gn{i + 2}")(self.get_submodule(f"lay{i + 2}")(x)))
        x = self.dcn(x, self.conv_offset(x))
        features: Tensor = F.relu(self.gn5(x)).unflatten(0, lead)
        return features

    def _first(self, memory: Tensor, maps: Tensor) -> Tensor:
        """`lay1` of memory and maps put together, without repeating the memory for every slot.

        A convolution of concatenated channels is the sum of the convolutions of the parts.
        """
        weight, bias, dim = self.lay1.weight, self.lay1.bias, memory.shape[2]
        shared = F.conv2d(memory.flatten(0, 1), weight[:, :dim], bias, padding=1).unflatten(0, memory.shape[:2])
        own = F.conv2d(maps.flatten(0, 2), weight[:, dim:], padding=1).unflatten(0, maps.shape[:3])
        return (own + shared[:, None]).flatten(0, 2)


def sequence_head(config: DefVISConfig) -> nn.Sequential:
    """Three dilated 3-D convolutions over a slot's clip, then its mask logits; the indices are official names."""
    layers: list[nn.Module] = []
    width, groups = config.sequence_dim, config.sequence_groups
    for cin in (config.mask_widths[-1], width, width):
        layers += [nn.Conv3d(cin, width, 3, padding=2, dilation=2), nn.GroupNorm(groups, width), nn.ReLU()]
    return nn.Sequential(*layers, nn.Conv3d(width, 1, 1))
