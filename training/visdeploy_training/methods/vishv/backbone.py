"""Backbone with a feature pyramid: a ResNet with Caffe's weights, or EfficientNet-Lite0."""

from __future__ import annotations

from contextlib import nullcontext
from typing import cast

import torch
from torch import Tensor, nn

from visdeploy_training.backbones import EfficientNetLite0, ResNet
from visdeploy_training.fpn import FPN
from visdeploy_training.methods.vishv.config import VIShvConfig

STAGES = ("res2", "res3", "res4", "res5")


class Backbone(nn.Module):
    """Maps of four stages, merged from coarse to fine with bilinear interpolation.

    The batch norms of a ResNet have no epsilon, and the stride of a block is in its first convolution.

    Args:
        config: Configuration with the backbone.
    """

    def __init__(self, config: VIShvConfig) -> None:
        super().__init__()
        self.frozen = config.freeze_backbone
        self.body: EfficientNetLite0 | ResNet
        if config.backbone == "efficientnet_lite0":
            self.body = EfficientNetLite0(freeze_at=config.freeze_at, train_norm=config.freeze_at == 0)
        else:
            depth = int(config.backbone.removeprefix("resnet"))
            self.body = ResNet(depth, out_features=STAGES, freeze_at=config.freeze_at, stride_in_1x1=True, norm_eps=0.0)
            for module in self.body.modules():
                if isinstance(module, nn.Conv2d):
                    nn.init.kaiming_uniform_(module.weight, a=1)
        self.fpn = FPN([self.body.channels[name] for name in STAGES], config.pyramid_channels, upsampling="bilinear")
        for module in self.fpn.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_uniform_(module.weight, a=1)
                nn.init.zeros_(cast(Tensor, module.bias))

    def train(self, mode: bool = True) -> Backbone:
        """Set the mode; a frozen backbone stays in evaluation mode."""
        super().train(mode and not self.frozen)
        return self

    def forward(self, images: Tensor) -> list[Tensor]:
        """Compute the pyramid of normalised images.

        Args:
            images: BGR (RGB for EfficientNet) `[N, 3, H, W]`, H and W multiples of 32.

        Returns:
            Maps `[N, C, H / s, W / s]` for the strides s = 4, 8, 16 and 32.
        """
        with torch.no_grad() if self.frozen else nullcontext():
            maps = self.body(images)
            levels: list[Tensor] = self.fpn([maps[name] for name in STAGES])
        return levels
