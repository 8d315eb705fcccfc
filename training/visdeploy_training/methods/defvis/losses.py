"""Matching and losses of DefVIS, those of VisTR's instance sequence matching (Wang et al., CVPR 2021).

Details such as the means over absent frames are those of the published implementation.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from visdeploy_training.boxes import overlap, to_corners
from visdeploy_training.clip import ClipTargets, check_targets
from visdeploy_training.losses import mean_over_processes, sigmoid_focal_loss, smooth_dice_loss
from visdeploy_training.matching import match_one_to_one
from visdeploy_training.methods.defvis.config import DefVISConfig
from visdeploy_training.methods.defvis.network import DefVISOutput
from visdeploy_training.methods.defvis.targets import ObjectTargets, object_targets

EPS = 1e-6


class Matches(NamedTuple):
    """Matches of one clip: m pairs of a slot and an object, each in one frame.

    Attributes:
        slot: `[m]` int64.
        object: `[m]` int64.
        frame: `[m]` int64.
    """

    slot: Tensor
    object: Tensor
    frame: Tensor


@torch.no_grad()
def matching_cost(logits: Tensor, boxes: Tensor, targets: ObjectTargets, config: DefVISConfig) -> Tensor:
    """Compute the matching cost of every slot and object as a mean over all frames, also those without the object.

    Args:
        logits: `[S, T, num_classes + 2]` of one clip.
        boxes: `[S, T, 4]`.
        targets: Objects of the clip.
        config: Configuration with weights.

    Returns:
        `[S, K]` float32.
    """
    probability = logits.float().softmax(dim=-1)
    wanted = targets.ids.transpose(0, 1).expand(len(logits), -1, -1)
    likeness = probability.gather(2, wanted).mean(dim=1)
    boxes = boxes.float()
    distance = (boxes[:, None] - targets.boxes).abs().mean(dim=(2, 3))
    areas = overlap(to_corners(boxes)[:, None], to_corners(targets.boxes))
    iou = ((areas.intersection + EPS) / (areas.union + EPS)).mean(dim=2)
    return config.box_weight * distance - config.class_weight * likeness - config.iou_weight * iou


def match_clip(logits: Tensor, boxes: Tensor, targets: ObjectTargets, config: DefVISConfig) -> Matches:
    """Match the slots of one clip to objects, in the frames where the object is present; see `matching_cost`."""
    slots, objects = match_one_to_one(matching_cost(logits, boxes, targets, config))
    pair, frame = targets.valid[objects].nonzero(as_tuple=True)
    return Matches(slots[pair], objects[pair], frame)


def set_losses(
    logits: Tensor,
    boxes: Tensor,
    targets: Sequence[ObjectTargets],
    matches: Sequence[Matches],
    norm: float,
    config: DefVISConfig,
) -> dict[str, Tensor]:
    """Compute the unweighted losses of classes and boxes of one decoder layer.

    Args:
        logits: `[B, S, T, num_classes + 2]`.
        boxes: `[B, S, T, 4]`.
        targets: Objects of each clip.
        matches: Matches of each clip.
        norm: Divisor of the sums over matches.
        config: Configuration with the weight of the no-object class.

    Returns:
        `loss_ce`, `loss_bbox`, `loss_giou`, float32 scalars.
    """
    last = logits.shape[-1] - 1
    wanted = torch.full(logits.shape[:-1], last, dtype=torch.int64, device=logits.device)
    found, truth = [], []
    for clip, (target, match) in enumerate(zip(targets, matches, strict=True)):
        wanted[clip, match.slot, match.frame] = target.ids[match.object, match.frame]
        found.append(boxes[clip, match.slot, match.frame])
        truth.append(target.boxes[match.object, match.frame])
    weight = torch.ones(last + 1, device=logits.device)
    weight[last] = config.no_object_weight
    predicted, expected = torch.cat(found).float(), torch.cat(truth)
    areas = overlap(to_corners(predicted), to_corners(expected))
    iou = (areas.intersection + EPS) / (areas.union + EPS)
    generalised = iou - (areas.hull - areas.union + EPS) / (areas.hull + EPS)
    return {
        "loss_ce": F.cross_entropy(logits.float().flatten(0, 2), wanted.flatten(), weight),
        "loss_bbox": (predicted - expected).abs().sum() / norm,
        "loss_giou": (1 - generalised).sum() / norm,
    }


def mask_losses(
    masks: Tensor, targets: Sequence[ObjectTargets], matches: Sequence[Matches], norm: float
) -> dict[str, Tensor]:
    """Compute the unweighted losses of the masks of the last decoder layer, at the size of the network input.

    Args:
        masks: Logits `[B, S, T, h, w]`.
        targets: Objects of each clip.
        matches: Matches of each clip.
        norm: Divisor of the sums over matches.

    Returns:
        `loss_mask`, `loss_dice`, float32 scalars.
    """
    focal = dice = masks.float().sum() * 0  # without objects all gradients exist and are zero
    for clip, (target, match) in enumerate(zip(targets, matches, strict=True)):
        if not match.slot.numel():
            continue
        truth = target.masks[match.object, match.frame]
        logits = masks[clip, match.slot, match.frame].float().unsqueeze(1)
        logits = F.interpolate(logits, size=truth.shape[-2:], mode="bilinear", align_corners=False).squeeze(1)
        focal = focal + sigmoid_focal_loss(logits, truth).flatten(1).mean(dim=1).sum()
        dice = dice + smooth_dice_loss(logits.sigmoid(), truth).sum()
    return {"loss_mask": focal / norm, "loss_dice": dice / norm}


def match_layers(output: DefVISOutput, targets: Sequence[ObjectTargets], config: DefVISConfig) -> list[list[Matches]]:
    """Match each clip separately for each decoder layer."""
    return [
        [match_clip(*parts, config) for parts in zip(logits, boxes, targets, strict=True)]
        for logits, boxes in zip(output.logits, output.boxes, strict=True)
    ]


def criterion(
    output: DefVISOutput,
    targets: Sequence[ObjectTargets],
    matches: Sequence[Sequence[Matches]],
    config: DefVISConfig,
) -> dict[str, Tensor]:
    """Compute all unweighted losses of a batch.

    Args:
        output: Output of the network for B clips.
        targets: Objects of each clip.
        matches: Matches of each decoder layer and clip.
        config: Configuration with the weight of the no-object class.

    Returns:
        `loss_ce`, `loss_bbox`, `loss_giou`, `loss_mask`, `loss_dice` of the last decoder layer; the first three also of
        the other layers, with the suffix `_0`, `_1`, ...
    """
    norm = max(1.0, mean_over_processes(float(sum(t.ids.numel() for t in targets)), output.logits))
    last = len(matches) - 1
    losses: dict[str, Tensor] = {}
    for layer in (last, *range(last)):
        found = set_losses(output.logits[layer], output.boxes[layer], targets, matches[layer], norm, config)
        if layer == last:
            found |= mask_losses(output.masks, targets, matches[layer], norm)
        losses |= {name if layer == last else f"{name}_{layer}": value for name, value in found.items()}
    return losses


def loss_weight(name: str, config: DefVISConfig) -> float:
    """Return the weight of a loss of `criterion` by its name."""
    weights = {
        "loss_ce": config.class_weight,
        "loss_bbox": config.box_weight,
        "loss_giou": config.iou_weight,
        "loss_mask": config.mask_weight,
        "loss_dice": config.dice_weight,
    }
    return weights["_".join(name.split("_")[:2])]


def defvis_losses(output: DefVISOutput, targets: Sequence[ClipTargets], config: DefVISConfig) -> dict[str, Tensor]:
    """Compute all weighted losses of a batch; training minimises their sum.

    Args:
        output: Output of the network, B clips of T frames.
        targets: Targets of the B clips.
        config: Configuration with weights.

    Returns:
        The losses of `criterion`, weighted.

    Raises:
        DataError: Targets and output differ in number of clips, of frames or in size, or a label is out of range.
    """
    batch, _, frames, rows, columns = output.masks.shape
    height, width = targets[0].masks.shape[-2:] if targets else (0, 0)
    fits = (-(-height // 4), -(-width // 4)) == (rows, columns)
    size = (height, width) if fits else (4 * rows, 4 * columns)
    check_targets(targets, (batch, frames, int(size[0]), int(size[1])), num_classes=config.num_classes)
    objects = [object_targets(t) for t in targets]
    losses = criterion(output, objects, match_layers(output, objects, config), config)
    return {name: loss_weight(name, config) * value for name, value in losses.items()}
