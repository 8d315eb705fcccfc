"""VISOLO network (Han et al., CVPR 2022), one class for all variants."""

from __future__ import annotations

import math
from itertools import combinations
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from visdeploy.errors import ConfigError
from visdeploy_training.backbones.efficientnet_lite import EfficientNetLite0
from visdeploy_training.backbones.resnet import ResNet
from visdeploy_training.layers import ConvNorm, init_head
from visdeploy_training.methods.visolo.branches import (
    CategoryPost,
    CategoryPre,
    KernelBranch,
    MaskBranch,
    MemoryModule,
    TrackingBranch,
)
from visdeploy_training.methods.visolo.config import VISOLOConfig
from visdeploy_training.model import VISModel


class FrameFeatures(NamedTuple):
    """Features of a frame before the temporal aggregation.

    Attributes:
        mask_features: Mask features `[B, mask_width, H/4, W/4]`.
        feature: Tracking feature `[B, head_width, rows, cols]`.
        category: Category value, same shape.
        kernel: Kernel value, same shape.
    """

    mask_features: Tensor
    feature: Tensor
    category: Tensor
    kernel: Tensor


class VISOLOOutput(NamedTuple):
    """Output of the network in training for B clips of T frames; N is the number of cells.

    Attributes:
        class_logits: `[B, num_classes, T, rows, cols]`.
        kernels: `[B, mask_width, T, rows, cols]`.
        mask_features: `[B, mask_width, T, H/4, W/4]`.
        tracking_logits: `[B, pairs, N, N]` for the ordered pairs (0, 1), (0, 2), (1, 2), ...; rows: first frame.
    """

    class_logits: Tensor
    kernels: Tensor
    mask_features: Tensor
    tracking_logits: Tensor


class Neck(nn.Module):
    """Fusion of the stride-32 map with the stride-16 map, which adds the semantic features of the last stages."""

    def __init__(self, config: VISOLOConfig, channels: dict[str, int]) -> None:
        super().__init__()
        width, groups = config.neck_width, config.num_groups
        self.lateral4 = ConvNorm(channels["res4"], width, 1, norm=nn.GroupNorm(groups, width))
        self.lateral5 = ConvNorm(channels["res5"], width, 1, norm=nn.GroupNorm(groups, width))

    def forward(self, r4: Tensor, r5: Tensor) -> Tensor:
        """Return the fused map `[B, neck_width, H/16, W/16]` from the maps at strides 16 and 32."""
        up = F.interpolate(self.lateral5(r5), scale_factor=2.0, mode="bilinear", align_corners=False)
        return F.relu(self.lateral4(r4) + up)


class VISOLO(VISModel):
    """VISOLO network.

    State dict names are the official ones without the leading `model.`.

    Args:
        config: Configuration with sizes and thresholds.
    """

    config: VISOLOConfig

    def __init__(self, config: VISOLOConfig) -> None:
        super().__init__()
        self.config = config
        self.backbone: ResNet | EfficientNetLite0
        if config.backbone == "resnet50":
            self.backbone = ResNet(50, freeze_at=config.freeze_at)
        else:
            self.backbone = EfficientNetLite0(freeze_at=config.freeze_at, train_norm=config.train_norm)
        channels = self.backbone.channels
        self.neck = Neck(config, channels) if config.neck_width else None
        cin = config.neck_width or channels["res4"]
        self.Category_branch_pre = CategoryPre(config, cin)
        self.Category_branch_post = CategoryPost(config)
        self.Kernel_branch = KernelBranch(config, cin)
        self.Mask_branch = MaskBranch(config, (channels["res2"], channels["res3"], cin))
        self.Tracking_branch = TrackingBranch(config)
        self.Memory_module = MemoryModule(config)
        self._init()

    def _init(self) -> None:
        for name, module in self.named_children():
            if name != "backbone":
                init_head(module)
        if self.config.tied_tracking:
            self.Tracking_branch.tie()
        if self.config.class_prior > 0:
            bias = self.Category_branch_post.pred.bias
            nn.init.constant_(bias, -math.log(1 / self.config.class_prior - 1))  # type: ignore[arg-type]

    def check_size(self, height: int, width: int) -> None:
        """Check that the sides of frames are multiples of `config.size_multiple`.

        Raises:
            ConfigError: A side is not a multiple.
        """
        multiple = self.config.size_multiple
        if height < multiple or width < multiple or height % multiple or width % multiple:
            raise ConfigError(
                "visolo: wrong size of the network input", seen=f"{height}x{width}", expected=f"multiples of {multiple}"
            )

    def features(self, images: Tensor) -> FrameFeatures:
        """Compute the features of frames `[B, 3, H, W]` (normalised RGB) that do not depend on other frames."""
        maps = self.backbone(images)
        r4 = maps["res4"] if self.neck is None else self.neck(maps["res4"], maps["res5"])
        feature, category = self.Category_branch_pre(r4)
        kernel = self.Kernel_branch.value(r4)
        return FrameFeatures(self.Mask_branch(maps["res2"], maps["res3"], r4), feature, category, kernel)

    def forward(self, clips: Tensor) -> VISOLOOutput:
        """Compute the training output; the memory of each frame contains all other frames of its clip.

        Args:
            clips: Normalised RGB, float, `[B, T, 3, H, W]`, T >= 2.
        """
        batch, frames = clips.shape[:2]
        if frames < 2:
            raise ConfigError("visolo: a training clip is too short", seen=f"{frames} frame", expected="at least 2")
        self.check_size(clips.shape[-2], clips.shape[-1])
        own = self.features(clips.flatten(0, 1))
        shared = self.Tracking_branch.share(own.feature)
        query = self.Tracking_branch.query(shared).unflatten(0, (batch, frames))
        reference = self.Tracking_branch.reference(shared).unflatten(0, (batch, frames))
        # the affinity is an unscaled dot product and stays in float32 under mixed precision
        with torch.autocast(clips.device.type, enabled=False):
            logits = torch.matmul(query.float().transpose(-1, -2).unsqueeze(2), reference.float().unsqueeze(1))
        category, kernel = self._aggregate(own, logits, batch, frames)
        pairs: list[Tensor] = [logits[:, u, v] for u, v in combinations(range(frames), 2)]
        return VISOLOOutput(
            _by_clip(self.Category_branch_post(category), batch),
            _by_clip(self.Kernel_branch.kernels(kernel), batch),
            _by_clip(own.mask_features, batch),
            torch.stack(pairs, dim=1),
        )

    def _aggregate(self, own: FrameFeatures, logits: Tensor, batch: int, frames: int) -> tuple[Tensor, Tensor]:
        """Return the category and kernel values `[B * T, C, rows, cols]` after the temporal aggregation."""
        memory = self.Memory_module
        values = [
            (v.unflatten(0, (batch, frames)), memory.conv1(v).flatten(2).unflatten(0, (batch, frames)))
            for v in (own.category, own.kernel)
        ]
        read: list[list[Tensor]] = [[], []]
        for t in range(frames):
            others = [u for u in range(frames) if u != t]
            attention = logits[:, t, others].transpose(1, 2).flatten(2).softmax(dim=-1)
            for i, (value, projected) in enumerate(values):
                gathered = projected[:, others].transpose(1, 2).flatten(2)
                read[i].append(memory.read(value[:, t], attention.to(gathered.dtype), gathered))
        category, kernel = (torch.stack(r, dim=1).flatten(0, 1) for r in read)
        return category, kernel


def _by_clip(x: Tensor, batch: int) -> Tensor:
    """Map `[B * T, C, h, w]` to `[B, C, T, h, w]`."""
    clips: Tensor = x.unflatten(0, (batch, -1))
    return clips.transpose(1, 2)
