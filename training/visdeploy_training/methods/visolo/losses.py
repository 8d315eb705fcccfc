"""Losses of VISOLO for classification, masks and tracking, without matching."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import torch
import torch.nn.functional as F
from torch import Tensor

from visdeploy_training.clip import check_targets
from visdeploy_training.losses import dice_loss, sigmoid_focal_loss
from visdeploy_training.methods.visolo.config import VISOLOConfig
from visdeploy_training.methods.visolo.network import VISOLOOutput
from visdeploy_training.methods.visolo.targets import ClipTargets, assign_clip, tracking_target


def visolo_losses(output: VISOLOOutput, targets: Sequence[ClipTargets], config: VISOLOConfig) -> dict[str, Tensor]:
    """Compute all weighted losses of a batch; training minimises their sum.

    Args:
        output: Output of the network in training, B clips of T frames.
        targets: Targets of the B clips.
        config: Configuration with grid and weights.

    Returns:
        `loss_cat`, `loss_mask`, `loss_tracking`, float32 scalars.

    Raises:
        DataError: Targets and output differ in number of clips, of frames or in size, or a label is out of range.
    """
    batch, _, frames, height, width = output.mask_features.shape
    check_targets(targets, (batch, frames, 4 * height, 4 * width), num_classes=config.num_classes)
    owners = [assign_clip(t, config.grid, eps=config.sampling_eps) for t in targets]
    return {
        "loss_cat": _category_loss(output.class_logits, owners, targets, config),
        "loss_mask": config.mask_weight * _mask_loss(output, owners, targets, config),
        "loss_tracking": _tracking_loss(output.tracking_logits, owners, config),
    }


def _focal(logits: Tensor, target: Tensor, config: VISOLOConfig) -> Tensor:
    return sigmoid_focal_loss(logits, target, alpha=config.focal_alpha, gamma=config.focal_gamma)


def _category_loss(
    logits: Tensor, owners: Sequence[Tensor], targets: Sequence[ClipTargets], config: VISOLOConfig
) -> Tensor:
    """Compute the focal loss of each frame, divided by its number of positive cells; average over frames and clips."""
    losses = []
    for clip, (owner, truth) in enumerate(zip(owners, targets, strict=True)):
        for t in range(owner.shape[0]):
            cells = (owner[t] >= 0).nonzero().squeeze(1)
            one_hot = torch.zeros_like(logits[clip, :, t], dtype=torch.float32).flatten(1)
            one_hot[truth.labels[t, owner[t, cells]], cells] = 1.0
            losses.append(_focal(logits[clip, :, t].flatten(1), one_hot, config).sum() / max(1, cells.numel()))
    return torch.stack(losses).mean()


def _mask_loss(
    output: VISOLOOutput, owners: Sequence[Tensor], targets: Sequence[ClipTargets], config: VISOLOConfig
) -> Tensor:
    """Compute the dice loss at input size; average over positive cells, then over clips, then over frames.

    Clips and frames without a positive cell are excluded from the averages.
    """
    frames = owners[0].shape[0]
    total = output.kernels.float().sum() * 0 + output.mask_features.float().sum() * 0
    used = 0
    for t in range(frames):
        found = [
            _frame_dice(output, clip, t, owner[t], targets[clip], config).mean()
            for clip, owner in enumerate(owners)
            if bool((owner[t] >= 0).any())
        ]
        if found:
            total = total + torch.stack(found).mean()
            used += 1
    return total / max(1, used)


def _frame_dice(
    output: VISOLOOutput, clip: int, t: int, owner: Tensor, truth: ClipTargets, config: VISOLOConfig
) -> Tensor:
    """Compute the dice loss `[n]` of every positive cell of one frame."""
    cells = (owner >= 0).nonzero().squeeze(1)
    features = output.mask_features[clip, :, t]
    kernels = output.kernels[clip, :, t].flatten(1)[:, cells]
    logits = torch.matmul(kernels.transpose(0, 1), features.flatten(1)).reshape(-1, *features.shape[1:])
    up = F.interpolate(logits.float().unsqueeze(0), scale_factor=4.0, mode="bilinear", align_corners=False)
    return dice_loss(up.squeeze(0).sigmoid(), truth.masks[t], owner[cells], eps=config.dice_eps)


def _tracking_loss(logits: Tensor, owners: Sequence[Tensor], config: VISOLOConfig) -> Tensor:
    """Compute the focal loss of the affinities of each pair of frames; average over pairs.

    Only rows (cells of the first frame) with a positive count, and the loss of a pair is divided by their number. Pairs
    without a positive are excluded from the average.
    """
    total, used = logits.float().sum() * 0, 0
    for clip, owner in enumerate(owners):
        for pair, (u, v) in enumerate(combinations(range(owner.shape[0]), 2)):
            target = tracking_target(owner[u], owner[v])
            rows = target.any(dim=1).nonzero().squeeze(1)
            if rows.numel():
                total = total + _focal(logits[clip, pair, rows], target[rows], config).sum() / rows.numel()
                used += 1
    return total / max(1, used)
