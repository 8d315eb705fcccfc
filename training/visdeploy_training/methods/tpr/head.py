"""Heads of TPR: detection (FCOS, Tian et al., ICCV 2019), bases (BlendMask, Chen et al., CVPR 2020), embeddings."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from visdeploy_training.layers import ModulatedDeformConv2d
from visdeploy_training.methods.tpr.config import TPRConfig
from visdeploy_training.methods.tpr.output import STRIDES


class Predictions(NamedTuple):
    """Predictions of the detection head, one entry for each level.

    Attributes:
        class_logits: `[B, num_classes, H_l, W_l]`.
        distances: Left, top, right, bottom in strides of the level, not negative, `[B, 4, H_l, W_l]`.
        centreness: Logits `[B, 1, H_l, W_l]`.
        towers: Features of the box tower `[B, C, H_l, W_l]`.
    """

    class_logits: list[Tensor]
    distances: list[Tensor]
    centreness: list[Tensor]
    towers: list[Tensor]


class Scale(nn.Module):
    """Learned factor."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))

    def forward(self, x: Tensor) -> Tensor:
        """Scale a tensor of any shape."""
        return x * self.scale


def _tower(config: TPRConfig) -> nn.Sequential:
    width, modules = config.channels, list[nn.Module]()
    for i in range(config.tower_depth):
        deformable = config.deformable_tower and i + 1 == config.tower_depth
        conv = ModulatedDeformConv2d(width, width, 3) if deformable else nn.Conv2d(width, width, 3, padding=1)
        modules += [conv, nn.GroupNorm(config.num_groups, width), nn.ReLU()]
    return nn.Sequential(*modules)


class FCOSHead(nn.Module):
    """Detection head, shared by all levels except for the scales of the distances."""

    def __init__(self, config: TPRConfig) -> None:
        super().__init__()
        width = config.channels
        self.cls_tower, self.bbox_tower = _tower(config), _tower(config)
        self.cls_logits = nn.Conv2d(width, config.num_classes, 3, padding=1)
        self.bbox_pred = nn.Conv2d(width, 4, 3, padding=1)
        self.ctrness = nn.Conv2d(width, 1, 3, padding=1)
        self.scales = nn.ModuleList(Scale() for _ in STRIDES)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, std=0.01)
                nn.init.zeros_(cast(Tensor, module.bias))
        nn.init.constant_(cast(Tensor, self.cls_logits.bias), -math.log(1 / config.class_prior - 1))

    def forward(self, levels: Sequence[Tensor]) -> Predictions:
        """Predict from levels `[B, C, H_l, W_l]`."""
        found = Predictions([], [], [], [])
        for x, scale in zip(levels, self.scales, strict=True):
            found.class_logits.append(self.cls_logits(self.cls_tower(x)))
            tower = self.bbox_tower(x)
            found.distances.append(F.relu(scale(self.bbox_pred(tower))))
            found.centreness.append(self.ctrness(tower))
            found.towers.append(tower)
        return found


class PlainBatchNorm2d(nn.BatchNorm2d):
    """Batch norm without the counter of batches, which a fixed momentum does not need and checkpoints may lack."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.num_batches_tracked = None

    def _load_from_state_dict(self, *args: Any) -> None:
        nn.Module._load_from_state_dict(self, *args)  # that of the base class adds the counter to the dictionary


def _block(cin: int, cout: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(cin, cout, 3, padding=1, bias=False), PlainBatchNorm2d(cout), nn.ReLU())


class BasisModule(nn.Module):
    """Bases at stride 4 from p3, p4 and p5, and optionally semantic logits from p3."""

    def __init__(self, config: TPRConfig) -> None:
        super().__init__()
        width, hidden = config.channels, config.basis_channels
        self.refine = nn.ModuleList(_block(width, hidden) for _ in range(3))
        self.tower = nn.Sequential(
            *(_block(hidden, hidden) for _ in range(3)),
            nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False),
            _block(hidden, hidden),
            nn.Conv2d(hidden, config.num_bases, 1),
        )
        self.semantic: nn.Sequential | None = None
        if config.semantic:
            self.semantic = nn.Sequential(
                _block(width, hidden), _block(hidden, hidden), nn.Conv2d(hidden, config.num_classes, 1)
            )
            nn.init.constant_(cast(Tensor, self.semantic[-1].bias), -math.log(1 / config.class_prior - 1))

    def forward(self, levels: Sequence[Tensor]) -> Tensor:
        """Map p3, p4 and p5 to bases `[B, num_bases, H / 4, W / 4]`."""
        x, *coarser = (refine(level) for refine, level in zip(self.refine, levels, strict=False))
        for each in coarser:
            x = x + F.interpolate(each, size=x.shape[-2:], mode="bilinear", align_corners=False)
        return cast(Tensor, self.tower(x))


class TrackHead(nn.Module):
    """Embedding map at stride 8 from p3, p4 and p5."""

    def __init__(self, config: TPRConfig) -> None:
        super().__init__()
        width, modules = config.channels, list[nn.Module]()
        for _ in range(2):
            conv = nn.Conv2d(width, width, 3, padding=1, bias=False)
            modules += [conv, nn.GroupNorm(config.num_groups, width), nn.ReLU()]
        self.track_tower = nn.Sequential(*modules)
        self.sipmask_track = nn.Conv2d(3 * width, config.track_dim, 1)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, std=0.01)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def features(self, levels: Sequence[Tensor]) -> Tensor:
        """Map p3, p4 and p5 to features at stride 8, `[B, 3 * C, H / 8, W / 8]`."""
        first, *coarser = (self.track_tower(level) for level in levels[:3])
        raised = [F.interpolate(x, size=first.shape[-2:], mode="bilinear", align_corners=False) for x in coarser]
        return torch.cat([first, *raised], dim=1)

    def project(self, vectors: Tensor) -> Tensor:
        """Map features `[k, 3 * C]` to embeddings `[k, track_dim]`; the projection has no spatial extent."""
        return F.linear(vectors, self.sipmask_track.weight.flatten(1), self.sipmask_track.bias)

    def forward(self, levels: Sequence[Tensor]) -> Tensor:
        """Map p3, p4 and p5 to embeddings `[B, track_dim, H / 8, W / 8]`."""
        return cast(Tensor, self.sipmask_track(self.features(levels)))
