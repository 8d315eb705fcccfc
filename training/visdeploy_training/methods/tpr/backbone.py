"""Backbones of TPR with their feature pyramid, from p3 to p7."""

from __future__ import annotations

from typing import Any, cast

import torch.nn.functional as F
from torch import Tensor, nn

from visdeploy_training.backbones.efficientnet_lite import EfficientNetLite0
from visdeploy_training.backbones.resnet import ResNet
from visdeploy_training.backbones.swin import SwinTransformer
from visdeploy_training.fpn import FPN
from visdeploy_training.methods.tpr.config import TPRConfig

SWIN: dict[str, dict[str, Any]] = {
    "swin_t": {"dim": 96, "depths": (2, 2, 6, 2), "heads": (3, 6, 12, 24)},
    "swin_b": {"dim": 128, "depths": (2, 2, 18, 2), "heads": (4, 8, 16, 32)},
    "swin_l": {"dim": 192, "depths": (2, 2, 18, 2), "heads": (6, 12, 24, 48)},
}
STAGES = ("res2", "res3", "res4", "res5")


class TopBlock(nn.Module):
    """Levels p6 and p7, each from a 3x3 convolution with stride 2."""

    def __init__(self, cin: int, channels: int) -> None:
        super().__init__()
        self.p6 = nn.Conv2d(cin, channels, 3, stride=2, padding=1)
        self.p7 = nn.Conv2d(channels, channels, 3, stride=2, padding=1)
        for conv in (self.p6, self.p7):
            nn.init.kaiming_uniform_(conv.weight, a=1)
            nn.init.zeros_(cast(Tensor, conv.bias))

    def forward(self, x: Tensor) -> list[Tensor]:
        """Map the input `[B, cin, H, W]` to p6 and p7, with sizes that are rounded up."""
        p6 = self.p6(x)
        return [p6, self.p7(F.relu(p6))]


class Pyramid(nn.Module):
    """Backbone with feature pyramid.

    Args:
        config: Configuration with the backbone.
    """

    def __init__(self, config: TPRConfig) -> None:
        super().__init__()
        self.swin, self.freeze_at = config.swin, config.freeze_at
        self.bottom_up: SwinTransformer | EfficientNetLite0 | ResNet
        if config.swin:
            self.bottom_up = SwinTransformer(**SWIN[config.backbone], drop_path=config.drop_path)
            self._freeze()
        elif config.backbone == "efficientnet_lite0":
            self.bottom_up = EfficientNetLite0(freeze_at=config.freeze_at, train_norm=config.freeze_at == 0)
        else:
            self.bottom_up = ResNet(
                int(config.backbone.removeprefix("resnet")),
                out_features=STAGES[1:],
                freeze_at=config.freeze_at,
                stride_in_1x1=True,
                deformable=("res4", "res5") if config.deformable_backbone else (),
            )
        channels = self.bottom_up.channels
        self.names = STAGES if config.swin else STAGES[1:]
        self.fpn = FPN([channels[name] for name in self.names], config.channels)
        # published: p6 of a ResNet comes from its last stage, p6 of a Swin Transformer from p5
        self.top_block = TopBlock(config.channels if config.swin else channels["res5"], config.channels)

    def _frozen(self) -> list[nn.Module]:
        """Return the frozen parts of a Swin Transformer: patch embedding, then whole stages."""
        if not isinstance(self.bottom_up, SwinTransformer):
            return []
        return [self.bottom_up.patch_embed, *self.bottom_up.stages][: self.freeze_at]

    def _freeze(self) -> None:
        for part in self._frozen():
            part.requires_grad_(False)

    def train(self, mode: bool = True) -> Pyramid:
        """Set the mode; frozen parts of a Swin Transformer stay in evaluation mode."""
        super().train(mode)
        for part in self._frozen():
            part.eval()
        return self

    def forward(self, images: Tensor, *, finest: bool = False) -> list[Tensor]:
        """Compute the pyramid of normalised images.

        Args:
            images: BGR `[B, 3, H, W]`, H and W multiples of 32.
            finest: Include p2, which only exists for a Swin Transformer and which no head uses.

        Returns:
            Maps `[B, C, H_l, W_l]`, p3 to p7; with `finest`, p2 to p7.
        """
        maps = self.bottom_up(images)
        skip = 0 if finest or not self.swin else 1
        levels: list[Tensor] = self.fpn([maps[name] for name in self.names], skip=skip)
        top: list[Tensor] = self.top_block(levels[-1] if self.swin else maps["res5"])
        return levels + top
