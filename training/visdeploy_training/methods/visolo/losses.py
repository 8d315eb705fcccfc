"""The three losses of VISOLO (spec section 11.6); a plain weighted sum, no matching."""

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
    """All losses of a batch, already weighted; their sum is what is minimised.

    Args:
        output: Of the training forward, B clips of T frames.
        targets: B clips.
        config: Grid and weights.

    Returns:
        `loss_cat`, `loss_mask`, `loss_tracking`, float32 scalars.

    Raises:
        DataError: Targets and output differ in clips, frames or size, or a label is out of range.
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
    """Per (clip, frame): focal sum over classes and cells by the number of positive cells; then the mean."""
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
    """Dice at full size: mean over cells, then over clips that have any, then over frames that have any."""
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
    """Dice loss `[n]` of every positive cell of one frame."""
    cells = (owner >= 0).nonzero().squeeze(1)
    features = output.mask_features[clip, :, t]
    kernels = output.kernels[clip, :, t].flatten(1)[:, cells]
    logits = torch.matmul(kernels.transpose(0, 1), features.flatten(1)).reshape(-1, *features.shape[1:])
    up = F.interpolate(logits.float().unsqueeze(0), scale_factor=4.0, mode="bilinear", align_corners=False)
    return dice_loss(up.squeeze(0).sigmoid(), truth.masks[t], owner[cells], eps=config.dice_eps)


def _tracking_loss(logits: Tensor, owners: Sequence[Tensor], config: VISOLOConfig) -> Tensor:
    """Focal over all columns of the rows that have a positive, by the number of such rows; mean over pairs."""
    total, used = logits.float().sum() * 0, 0
    for clip, owner in enumerate(owners):
        for pair, (u, v) in enumerate(combinations(range(owner.shape[0]), 2)):
            target = tracking_target(owner[u], owner[v])
            rows = target.any(dim=1).nonzero().squeeze(1)
            if rows.numel():
                total = total + _focal(logits[clip, pair, rows], target[rows], config).sum() / rows.numel()
                used += 1
    return total / max(1, used)
