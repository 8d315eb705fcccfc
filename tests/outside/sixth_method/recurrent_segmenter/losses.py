"""The losses: every object is matched to one slot for the whole clip, by the overlap of their masks."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from recurrent_segmenter.config import STRIDES, RecurrentSegmenterConfig
from recurrent_segmenter.network import Output
from visdeploy_training.clip import ClipTargets, check_targets
from visdeploy_training.losses import smooth_dice_loss
from visdeploy_training.matching import match_one_to_one


def losses(output: Output, targets: Sequence[ClipTargets], config: RecurrentSegmenterConfig) -> dict[str, Tensor]:
    """Return the weighted losses of a batch.

    Args:
        output: Of the training forward, B clips of T frames.
        targets: B clips.
        config: Classes and weights.

    Returns:
        `loss_class` and `loss_mask`, float32 scalars.

    Raises:
        DataError: Targets and output do not fit each other.
    """
    batch, frames, _, height, width = output.mask_logits.shape
    check_targets(targets, (batch, frames, STRIDES[0] * height, STRIDES[0] * width), num_classes=config.num_classes)
    found = [
        _clip_losses(output.class_logits[clip].float(), output.mask_logits[clip].float().sigmoid(), truth)
        for clip, truth in enumerate(targets)
    ]
    class_loss, mask_loss = (torch.stack(each).mean() for each in zip(*found, strict=True))
    return {"loss_class": class_loss, "loss_mask": config.mask_weight * mask_loss}


def _clip_losses(class_logits: Tensor, masks: Tensor, truth: ClipTargets) -> tuple[Tensor, Tensor]:
    """Return the losses of one clip from logits `[T, K, classes]` and mask probabilities `[T, K, h, w]`."""
    objects = F.interpolate(truth.masks.float(), size=masks.shape[-2:], mode="area")
    tubes, wanted = masks.transpose(0, 1), objects.transpose(0, 1)
    pairs = [smooth_dice_loss(tubes, each.expand_as(tubes)) for each in wanted]
    if not pairs:
        return _presence(class_logits, torch.zeros_like(class_logits)), 0 * masks.sum()
    cost = torch.stack(pairs, dim=1)
    slots, columns = match_one_to_one(cost)
    present = truth.masks.flatten(2).any(dim=2)[:, columns]
    labels = truth.labels[:, columns].clamp(0, class_logits.shape[2] - 1)
    one_hot = F.one_hot(labels, class_logits.shape[2]) * present[..., None]
    target = torch.zeros_like(class_logits).index_copy(1, slots, one_hot.to(class_logits.dtype))
    return _presence(class_logits, target), cost[slots, columns].mean()


def _presence(logits: Tensor, target: Tensor) -> Tensor:
    return F.binary_cross_entropy_with_logits(logits, target)
