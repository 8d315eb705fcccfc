"""Matching of queries to objects over a clip, and losses of TeViT (Yang et al., CVPR 2022).

The loss terms are those of QueryInst (Fang et al., ICCV 2021), the details those of the published implementation.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from visdeploy_plugins.torch_ops import multi_level_roi_align
from visdeploy_training.boxes import overlap
from visdeploy_training.clip import ClipTargets, check_targets
from visdeploy_training.losses import dice_loss, mean_over_processes, sigmoid_focal_loss
from visdeploy_training.matching import match_one_to_one
from visdeploy_training.methods.tevit.config import MASK_SIZE, TeViTConfig
from visdeploy_training.methods.tevit.network import TeViTOutput
from visdeploy_training.methods.tevit.targets import ObjectTargets, object_targets

AREA_FLOOR, PROBABILITY_FLOOR, DICE_EPS = 1e-6, 1e-12, 2e-5
ALPHA, GAMMA = 0.25, 2.0


class Matches(NamedTuple):
    """Matches of one clip: m pairs of a query and an object, each in one frame, sorted by frame, then by query.

    Attributes:
        frame: `[m]` int64.
        query: `[m]` int64.
        object: `[m]` int64.
    """

    frame: Tensor
    query: Tensor
    object: Tensor


@torch.no_grad()
def matching_cost(logits: Tensor, boxes: Tensor, size: Tensor, targets: ObjectTargets, config: TeViTConfig) -> Tensor:
    """Compute the matching cost of every query and object as a mean over the frames where the object is present.

    Args:
        logits: `[T, P, num_classes]` of one clip and stage.
        boxes: `[T, P, 4]` in pixels.
        size: Width, height, width, height of the image without padding, `[4]`.
        targets: K objects of the clip, each present in at least one frame.
        config: Configuration with weights.

    Returns:
        `[P, K]` float32.
    """
    p = logits.float().sigmoid()
    positive = -(p + PROBABILITY_FLOOR).log() * ALPHA * (1 - p) ** GAMMA
    negative = -(1 - p + PROBABILITY_FLOOR).log() * (1 - ALPHA) * p**GAMMA
    present = targets.present.T  # [T, K]
    # a label is arbitrary where the object is absent
    labels = torch.where(present, targets.labels.T, 0)[:, None].expand(-1, p.shape[1], -1)
    classes = (positive - negative).gather(2, labels)
    found, truth = boxes.float()[:, :, None], targets.boxes.float().transpose(0, 1)[:, None]
    distance = (found / size - truth / size).abs().sum(dim=-1)
    cost = config.class_weight * classes + config.box_weight * distance
    cost = torch.where(present[:, None], cost - config.iou_weight * generalised_iou(found, truth), 0.0)
    return cost.sum(dim=0) / present.sum(dim=0)


def generalised_iou(first: Tensor, second: Tensor) -> Tensor:
    """Compute the generalised IoU of pairs of boxes `[..., 4]` (corners), in -1..1, with a floor on the divisors."""
    areas = overlap(first, second)
    union, hull = areas.union.clamp(min=AREA_FLOOR), areas.hull.clamp(min=AREA_FLOOR)
    return areas.intersection / union - (hull - union) / hull


def match_clip(logits: Tensor, boxes: Tensor, size: Tensor, targets: ObjectTargets, config: TeViTConfig) -> Matches:
    """Match one query to each object of the clip, positive in the frames where the object is present."""
    queries, objects = match_one_to_one(matching_cost(logits, boxes, size, targets, config))
    frame, pair = targets.present[objects].T.nonzero(as_tuple=True)
    return Matches(frame, queries[pair], objects[pair])


def match_stages(output: TeViTOutput, targets: Sequence[ObjectTargets], config: TeViTConfig) -> list[list[Matches]]:
    """Match each clip separately for each stage."""
    return [
        [match_clip(*parts, config) for parts in zip(logits, boxes, output.sizes, targets, strict=True)]
        for logits, boxes in zip(output.logits, output.boxes, strict=True)
    ]


def positives(values: Tensor, matches: Sequence[Matches]) -> Tensor:
    """Return the predictions of the positives `[R, ...]` from predictions `[B, T, P, ...]`."""
    return torch.cat([clip[match.frame, match.query] for clip, match in zip(values, matches, strict=True)])


def truths(name: str, targets: Sequence[ObjectTargets], matches: Sequence[Matches]) -> Tensor:
    """Return the field `name` of the targets of the positives, `[R, ...]`."""
    return torch.cat([getattr(t, name)[match.object, match.frame] for t, match in zip(targets, matches, strict=True)])


def set_losses(
    logits: Tensor,
    boxes: Tensor,
    sizes: Tensor,
    targets: Sequence[ObjectTargets],
    matches: Sequence[Matches],
    norm: float,
) -> dict[str, Tensor]:
    """Compute the unweighted losses of classes and boxes of one stage.

    Args:
        logits: `[B, T, P, num_classes]`.
        boxes: `[B, T, P, 4]`.
        sizes: Width, height, width, height of each clip without padding, `[B, 4]`.
        targets: Objects of each clip.
        matches: Matches of each clip.
        norm: Divisor of the sums over matches.

    Returns:
        `loss_cls`, `loss_bbox`, `loss_iou`, float32 scalars.
    """
    wanted = torch.zeros_like(logits, dtype=torch.float32)
    for clip, (target, match) in enumerate(zip(targets, matches, strict=True)):
        wanted[clip, match.frame, match.query, target.labels[match.object, match.frame]] = 1.0
    found, truth = positives(boxes, matches).float(), truths("boxes", targets, matches).float()
    scale = torch.cat([size.expand(len(match.frame), 4) for size, match in zip(sizes, matches, strict=True)])
    return {
        "loss_cls": sigmoid_focal_loss(logits, wanted, alpha=ALPHA, gamma=GAMMA).sum() / norm,
        "loss_bbox": ((found - truth).abs() / scale).sum() / norm,
        "loss_iou": (1 - generalised_iou(found, truth)).sum() / norm,
    }


@torch.no_grad()
def mask_targets(masks: Tensor, boxes: Tensor) -> Tensor:
    """Crop masks `[R, H, W]` bool to boxes `[R, 4]`, clipped to the input, and resize them to `[R, 28, 28]` bool."""
    height, width = masks.shape[1:]
    limit = boxes.new_tensor([width, height, width, height])
    out = multi_level_roi_align(
        [masks[:, None].float()],
        boxes.float().clamp(min=0).minimum(limit),
        torch.arange(len(boxes), device=boxes.device),
        output_size=(2 * MASK_SIZE, 2 * MASK_SIZE),
        spatial_scales=(1.0,),
        sampling_ratio=0,
    )
    inside: Tensor = out.squeeze(1) >= 0.5
    return inside


def mask_loss(
    output: TeViTOutput,
    stage: int,
    targets: Sequence[ObjectTargets],
    matches: Sequence[Matches],
    norm: float,
) -> Tensor:
    """Compute the unweighted dice loss of the masks of the positives of one stage."""
    frames = output.logits.shape[2]
    images = torch.cat([clip * frames + match.frame for clip, match in enumerate(matches)])
    chosen = torch.cat([match.query for match in matches])
    logits = output.masks(stage, images, chosen)
    labels = truths("labels", targets, matches)
    boxes = positives(output.boxes[stage], matches).detach()
    truth = mask_targets(truths("masks", targets, matches), boxes)
    rows = torch.arange(len(labels), device=labels.device)
    return dice_loss(logits[rows, labels].sigmoid(), truth, rows, eps=DICE_EPS).sum() / norm


def tevit_losses(output: TeViTOutput, targets: Sequence[ClipTargets], config: TeViTConfig) -> dict[str, Tensor]:
    """Compute all weighted losses of a batch; training minimises their sum.

    Args:
        output: Output of the network, B clips of T frames.
        targets: Targets of the B clips.
        config: Configuration with weights.

    Returns:
        `stage{s}_loss_cls`, `_loss_bbox`, `_loss_iou`, `_loss_mask` of every stage s.

    Raises:
        DataError: Targets and output differ in number of clips, of frames or in size, or a label is out of range.
    """
    batch, frames = output.logits.shape[1:3]
    height, width = targets[0].masks.shape[-2:] if targets else (0, 0)
    check_targets(targets, (batch, frames, height, width), num_classes=config.num_classes)
    objects = [object_targets(t) for t in targets]
    return criterion(output, objects, match_stages(output, objects, config), config)


def criterion(
    output: TeViTOutput,
    targets: Sequence[ObjectTargets],
    matches: Sequence[Sequence[Matches]],
    config: TeViTConfig,
) -> dict[str, Tensor]:
    """Compute all weighted losses of a batch, with the matches of each stage and clip; see `tevit_losses`."""
    losses: dict[str, Tensor] = {}
    for stage, found in enumerate(matches):
        norm = max(1.0, mean_over_processes(float(sum(len(m.frame) for m in found)), output.logits))
        values = set_losses(output.logits[stage], output.boxes[stage], output.sizes, targets, found, norm)
        values["loss_mask"] = mask_loss(output, stage, targets, found, norm)
        weights = {
            "loss_cls": config.class_weight,
            "loss_bbox": config.box_weight,
            "loss_iou": config.iou_weight,
            "loss_mask": config.mask_weight,
        }
        losses |= {f"stage{stage}_{name}": weights[name] * value for name, value in values.items()}
    return losses
