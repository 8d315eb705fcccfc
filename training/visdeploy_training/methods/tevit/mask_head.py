"""Dynamic mask head of QueryInst (Fang et al., ICCV 2021), which computes masks from RoI features."""

from __future__ import annotations

from typing import cast

import torch.nn.functional as F
from torch import Tensor, nn

from visdeploy_training.methods.tevit.config import TeViTConfig
from visdeploy_training.methods.tevit.head import DynamicConv, init_matrices


class ConvUnit(nn.Module):
    """3x3 convolution without bias, batch norm, ReLU."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(dim, dim, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(dim)

    def forward(self, x: Tensor) -> Tensor:
        """Transform `[R, C, h, w]` to the same shape."""
        return F.relu(self.bn(self.conv(x)))


class MaskHead(nn.Module):
    """Dynamic convolution by the query, convolutions, upsampling by two, and one mask per class."""

    def __init__(self, config: TeViTConfig) -> None:
        super().__init__()
        dim = config.hidden_dim
        self.instance_interactive_conv = DynamicConv(dim, config.dynamic_dim, cells=None)
        self.convs = nn.ModuleList(ConvUnit(dim) for _ in range(config.mask_convs))
        self.upsample = nn.ConvTranspose2d(dim, dim, 2, 2)
        self.conv_logits = nn.Conv2d(dim, config.num_classes, 1)
        init_matrices(self)
        nn.init.zeros_(cast(Tensor, self.conv_logits.bias))

    def forward(self, queries: Tensor, features: Tensor) -> Tensor:
        """Map attended queries `[R, C]` and features `[R, C, h, w]` to mask logits `[R, num_classes, 2 h, 2 w]`."""
        x = self.instance_interactive_conv(queries, features)
        x = x.transpose(1, 2).unflatten(2, features.shape[2:])
        for conv in self.convs:
            x = conv(x)
        return cast(Tensor, self.conv_logits(F.relu(self.upsample(x))))
