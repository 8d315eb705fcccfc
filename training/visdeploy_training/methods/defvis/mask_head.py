"""Mask head of DefVIS, that of VisTR's instance sequence segmentation (Wang et al., CVPR 2021).

Attention maps, a convolutional head per frame and a sequence head compute the masks of all slots and frames at once.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from visdeploy_training.attention import split_heads
from visdeploy_training.layers import DeformConv2d
from visdeploy_training.methods.defvis.config import DefVISConfig


class AttentionMap(nn.Module):
    """Attention map of each slot in its frame: one softmax over all heads and pixels, without values."""

    def __init__(self, config: DefVISConfig) -> None:
        super().__init__()
        self.heads = config.num_heads
        self.q_linear = nn.Linear(config.hidden_dim, config.hidden_dim)
        self.k_linear = nn.Linear(config.hidden_dim, config.hidden_dim)
        for linear in (self.q_linear, self.k_linear):
            nn.init.xavier_uniform_(linear.weight)
            nn.init.zeros_(linear.bias)

    def forward(self, slots: Tensor, memory: Tensor, padding: Tensor | None) -> Tensor:
        """Return the attention maps of all slots.

        Args:
            slots: `[B, S, T, C]`.
            memory: `[B, T, pixels, C]`.
            padding: `[B, T, pixels]` bool; None if there is no padding.

        Returns:
            `[B, S, T, heads, pixels]`, which sums to one for every slot and frame.
        """
        query = split_heads(self.q_linear(slots).transpose(1, 2), self.heads)  # [B, T, heads, S, d]
        key = split_heads(self.k_linear(memory), self.heads)
        scores = torch.matmul(query * query.shape[-1] ** -0.5, key.transpose(-1, -2))
        if padding is not None:
            scores = scores.masked_fill(padding[:, :, None, None], float("-inf"))
        scores = scores.permute(0, 3, 1, 2, 4)
        return scores.flatten(3).softmax(dim=-1).view(scores.shape)


class MaskHead(nn.Module):
    """Convolutional head from attention maps to features at stride 4; slots and frames form one batch."""

    def __init__(self, config: DefVISConfig, channels: Mapping[str, int]) -> None:
        super().__init__()
        dim, groups = config.hidden_dim, config.mask_groups
        first = dim + config.num_heads
        self.map_channels = config.num_heads
        half, quarter, eighth, narrow = config.mask_widths
        self.lay1, self.gn1 = nn.Conv2d(first, first, 3, padding=1), nn.GroupNorm(groups, first)
        self.lay2, self.gn2 = nn.Conv2d(first, half, 3, padding=1), nn.GroupNorm(groups, half)
        self.lay3, self.gn3 = nn.Conv2d(half, quarter, 3, padding=1), nn.GroupNorm(groups, quarter)
        self.lay4, self.gn4 = nn.Conv2d(quarter, eighth, 3, padding=1), nn.GroupNorm(groups, eighth)
        self.adapter1 = nn.Conv2d(channels["res4"], half, 1)
        self.adapter2 = nn.Conv2d(channels["res3"], quarter, 1)
        self.adapter3 = nn.Conv2d(channels["res2"], eighth, 1)
        self.conv_offset = nn.Conv2d(eighth, 18, 1)
        self.dcn = DeformConv2d(eighth, narrow, 3, padding=1)
        self.gn5 = nn.GroupNorm(groups, narrow)
        self._init(config.map_gain)

    def _init(self, map_gain: float) -> None:
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_uniform_(module.weight, a=1)
                nn.init.zeros_(cast(Tensor, module.bias))
        nn.init.zeros_(self.conv_offset.weight)
        with torch.no_grad():
            self.lay1.weight[:, -self.map_channels :] *= map_gain

    def forward(self, memory: Tensor, maps: Tensor, laterals: Mapping[str, Tensor]) -> Tensor:
        """Return the features of all slots.

        Args:
            memory: `[B, T, C, h, w]`, encoder output at stride 32.
            maps: `[B, S, T, heads, h, w]`.
            laterals: Backbone maps `res4`, `res3`, `res2`, each `[B * T, channels, height, width]`.

        Returns:
            `[B, S, T, C / 16, H / 4, W / 4]`.
        """
        x = F.relu(self.gn1(self._first(memory, maps)))
        x = F.relu(self.gn2(self.lay2(x)))
        x = _add_lateral(x, self.adapter1(laterals["res4"]), maps)
        x = F.relu(self.gn3(self.lay3(x)))
        x = _add_lateral(x, self.adapter2(laterals["res3"]), maps)
        x = F.relu(self.gn4(self.lay4(x)))
        x = _add_lateral(x, self.adapter3(laterals["res2"]), maps)
        x = self.dcn(x, self.conv_offset(x))
        features: Tensor = F.relu(self.gn5(x)).unflatten(0, maps.shape[:3])
        return features

    def _first(self, memory: Tensor, maps: Tensor) -> Tensor:
        """Apply `lay1` to the concatenation of memory and maps, without repeating the memory for every slot.

        The convolution of concatenated channels equals the sum of the convolutions of its parts.
        """
        weight, bias, dim = self.lay1.weight, self.lay1.bias, memory.shape[2]
        shared = F.conv2d(memory.flatten(0, 1), weight[:, :dim], bias, padding=1).unflatten(0, memory.shape[:2])
        own = F.conv2d(maps.flatten(0, 2), weight[:, dim:], padding=1).unflatten(0, maps.shape[:3])
        total: Tensor = own + shared[:, None]
        return total.flatten(0, 2)


def _add_lateral(x: Tensor, lateral: Tensor, maps: Tensor) -> Tensor:
    """Resize `x` `[B * S * T, C, h, w]` to the lateral `[B * T, C, H, W]`, and add the lateral to every slot."""
    batch, slots, frames = maps.shape[:3]
    x = F.interpolate(x, size=lateral.shape[-2:], mode="nearest").unflatten(0, (batch, slots, frames))
    total: Tensor = x + lateral.unflatten(0, (batch, 1, frames))
    return total.flatten(0, 2)


def sequence_head(config: DefVISConfig) -> nn.Sequential:
    """Return three dilated 3-D convolutions over the clip of a slot and the output of its mask logits.

    The indices of the layers are those of the official checkpoints.
    """
    layers: list[nn.Module] = []
    width, groups = config.sequence_dim, config.sequence_groups
    for cin in (config.mask_widths[-1], width, width):
        layers += [nn.Conv3d(cin, width, 3, padding=2, dilation=2), nn.GroupNorm(groups, width), nn.ReLU()]
    last = nn.Conv3d(width, 1, 1)
    if config.mask_prior > 0:
        nn.init.constant_(cast(Tensor, last.bias), -math.log(1 / config.mask_prior - 1))
    return nn.Sequential(*layers, last)
