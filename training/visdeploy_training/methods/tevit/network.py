"""TeViT network (Yang et al., CVPR 2022): backbone with messenger tokens, feature pyramid, cascade of dynamic heads."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

from visdeploy.errors import ConfigError
from visdeploy_plugins.torch_ops import multi_level_roi_align
from visdeploy_training.backbones import EfficientNetLite0, MessengerPVT, ResNet, SwinTransformer
from visdeploy_training.boxes import to_corners
from visdeploy_training.fpn import FPN
from visdeploy_training.methods.tevit.config import BOX_SIZE, FINEST, MASK_SIZE, SIZE_MULTIPLE, TeViTConfig
from visdeploy_training.methods.tevit.head import STQIHead, refine
from visdeploy_training.methods.tevit.mask_head import MaskHead
from visdeploy_training.model import VISModel

STAGES = ("res2", "res3", "res4", "res5")
SCALES = (1 / 4, 1 / 8, 1 / 16, 1 / 32)


class TeViTOutput(NamedTuple):
    """Output of the network for B clips of T frames and P queries; a query is the same object in all frames of a clip.

    Attributes:
        logits: Class logits of all stages, `[stages, B, T, P, num_classes]`; inference uses the last stage.
        boxes: Boxes of all stages, `[stages, B, T, P, 4]`: left, top, right, bottom in pixels of the input, possibly
            outside the image.
        sizes: Width, height, width, height of the clips without padding, `[B, 4]` float.
        masks: Function that computes the mask logits `[R, num_classes, 28, 28]` of R boxes of a stage, from the number
            of the stage, images `[R]` and queries `[R]`; image b * T + t is frame t of clip b.
    """

    logits: Tensor
    boxes: Tensor
    sizes: Tensor
    masks: Callable[[int, Tensor, Tensor], Tensor]


class Proposals(nn.Module):
    """Learned boxes and queries, the same for every image, with the names of the official checkpoints."""

    def __init__(self, config: TeViTConfig) -> None:
        super().__init__()
        self.init_proposal_bboxes = nn.Embedding(config.num_queries, 4)
        self.init_proposal_features = nn.Embedding(config.num_queries, config.hidden_dim)
        nn.init.constant_(self.init_proposal_bboxes.weight[:, :2], 0.5)
        nn.init.constant_(self.init_proposal_bboxes.weight[:, 2:], 1.0)

    def forward(self, sizes: Tensor) -> tuple[Tensor, Tensor]:
        """Return boxes `[N, P, 4]` in pixels and queries `[N, P, C]` for images of the given sizes, `[N, 4]`."""
        boxes = to_corners(self.init_proposal_bboxes.weight) * sizes[:, None]
        return boxes, self.init_proposal_features.weight.expand(sizes.shape[0], -1, -1)


class Cascade(nn.Module):
    """Stages of the cascade and their mask heads, with the names of the official checkpoints."""

    def __init__(self, config: TeViTConfig) -> None:
        super().__init__()
        self.bbox_head = nn.ModuleList(STQIHead(config) for _ in range(config.num_stages))
        self.mask_head = nn.ModuleList(MaskHead(config) for _ in range(config.num_stages))


class TeViT(VISModel):
    """Cascade of dynamic heads on learned queries, with attention between the queries of a frame and between frames.

    The names in the state dict are those of the official checkpoints, except in ResNet and EfficientNet backbones.

    Args:
        config: Sizes of the layers, and weights of the losses.
    """

    config: TeViTConfig

    def __init__(self, config: TeViTConfig) -> None:
        super().__init__()
        self.config = config
        self.backbone = make_backbone(config)
        channels = cast(dict[str, int], self.backbone.channels)
        self.neck = FPN([channels[name] for name in STAGES], config.hidden_dim)
        self.rpn_head = Proposals(config)
        self.roi_head = Cascade(config)

    def forward(self, clips: Tensor, sizes: Tensor | None = None) -> TeViTOutput:
        """Compute classes and boxes of all queries in all frames, both in training and in inference.

        Args:
            clips: Normalised RGB, float, `[B, T, 3, H, W]`, H and W multiples of 32.
            sizes: Height and width of each clip without padding at the right and bottom, `[B, 2]` integers; by default
                there is no padding.

        Raises:
            ConfigError: The size of the clips is wrong.
        """
        height, width = clips.shape[-2:]
        if height % SIZE_MULTIPLE or width % SIZE_MULTIPLE:
            raise ConfigError(
                "tevit: wrong size of the network input",
                seen=f"{height}x{width}",
                expected=f"multiples of {SIZE_MULTIPLE}",
            )
        lead, frames = clips.shape[:2], clips.shape[1]
        features = self.features(clips.flatten(0, 1), frames)
        content = box_scale(clips, sizes)
        boxes, queries = self.rpn_head(content[:, None].expand(-1, frames, -1).flatten(0, 1))
        logits, found, attended = [], [], []
        for head in self.roi_head.bbox_head:
            rois = roi_features(features, boxes.detach().flatten(0, 1), images_of(boxes), BOX_SIZE)
            stage = head(queries, rois, frames)
            logits.append(stage.logits)
            found.append(refine(boxes, stage.deltas))
            # the proposals get gradients from the first stage, the boxes of each stage only from its own losses
            boxes, queries = found[-1].detach(), stage.queries
            attended.append(stage.attended)
        return TeViTOutput(
            torch.stack(logits).unflatten(1, lead),
            torch.stack(found).unflatten(1, lead),
            content,
            partial(self._masks, features, found, attended),
        )

    def forward_padded(self, clips: Tensor, sizes: Tensor) -> TeViTOutput:
        """Compute the training output with boxes relative to the unpadded clips, see `VISModel.forward_padded`."""
        return self(clips, sizes)  # type: ignore[no-any-return]

    def features(self, images: Tensor, frames: int) -> list[Tensor]:
        """Compute the feature pyramid, at strides 4, 8, 16 and 32, of images `[N, 3, H, W]` sorted by clip."""
        messengers = isinstance(self.backbone, MessengerPVT)
        maps = self.backbone(images, frames) if messengers else self.backbone(images)
        return [each.contiguous() for each in self.neck([maps[name] for name in STAGES])]

    def _masks(
        self,
        features: Sequence[Tensor],
        boxes: Sequence[Tensor],
        attended: Sequence[Tensor],
        stage: int,
        images: Tensor,
        queries: Tensor,
    ) -> Tensor:
        head = self.roi_head.mask_head[stage]
        if self.training and not len(images):
            # every weight gets a zero gradient, and no empty batch enters the statistics of batch norm
            nothing = torch.stack([p.sum() * 0 for p in head.parameters()]).sum()
            return nothing.expand(0, self.config.num_classes, 2 * MASK_SIZE, 2 * MASK_SIZE)
        rois = boxes[stage].detach()[images, queries]
        maps = roi_features(features, rois, images, MASK_SIZE)
        return cast(Tensor, head(attended[stage][images, queries], maps))


def box_scale(clips: Tensor, sizes: Tensor | None) -> Tensor:
    """Return width, height, width, height of clips without padding, `[B, 4]`, to convert relative boxes to pixels.

    Args:
        clips: `[B, T, 3, H, W]`.
        sizes: Height and width of each clip without padding, `[B, 2]`; by default there is no padding.
    """
    dtype = torch.promote_types(clips.dtype, torch.float32)
    if sizes is None:
        sizes = torch.tensor([clips.shape[-2:]], device=clips.device).expand(len(clips), -1)
    return sizes[:, [1, 0, 1, 0]].to(dtype)


def images_of(boxes: Tensor) -> Tensor:
    """Return the index of the image, `[N * P]` int64, of each box of `[N, P, 4]` after flattening."""
    images, queries = boxes.shape[:2]
    return torch.arange(images, device=boxes.device)[:, None].expand(images, queries).flatten()


def roi_features(features: Sequence[Tensor], boxes: Tensor, images: Tensor, size: int) -> Tensor:
    """Return RoI features `[R, C, size, size]` of boxes `[R, 4]` in images `[R]`, each from the level for its size."""
    dtype = torch.promote_types(features[0].dtype, torch.float32)
    out: Tensor = multi_level_roi_align(
        features,
        boxes.to(dtype).contiguous(),
        images.contiguous(),
        output_size=(size, size),
        spatial_scales=SCALES,
        sampling_ratio=2,
        finest_scale=FINEST,
    )
    return out


def make_backbone(config: TeViTConfig) -> nn.Module:
    """Create the backbone of a configuration, with newly initialised weights."""
    if config.backbone == "pvt_v2_b1":
        return MessengerPVT(drop_path=config.drop_path)
    if config.backbone == "pvt_small":
        return MessengerPVT(
            dims=(24, 32, 64, 96), heads=(1, 2, 4, 6), mlp_ratios=(4, 4, 4, 4), messengers=8, drop_path=config.drop_path
        )
    if config.backbone == "swin_l":
        return SwinTransformer(drop_path=config.drop_path)
    if config.backbone == "resnet50":
        return ResNet(50, out_features=STAGES, freeze_at=config.freeze_at, train_norm=True)
    return EfficientNetLite0(freeze_at=config.freeze_at, train_norm=True)
