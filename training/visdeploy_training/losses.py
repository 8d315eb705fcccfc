"""Losses shared by several methods, computed in float32 regardless of the precision of the network."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def sigmoid_focal_loss(logits: Tensor, targets: Tensor, *, alpha: float = 0.25, gamma: float = 2.0) -> Tensor:
    """Compute the sigmoid focal loss per element (Lin et al., ICCV 2017, equation 5), without reduction.

    Args:
        logits: Any shape.
        targets: Same shape, 0 or 1.
        alpha: Weight of positives; negatives have the weight `1 - alpha`.
        gamma: Exponent that reduces the weight of easy elements.

    Returns:
        Float32, same shape.
    """
    logits, targets = logits.float(), targets.float()
    probability = logits.sigmoid()
    entropy = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    miss = probability * (1 - targets) + (1 - probability) * targets
    return (alpha * targets + (1 - alpha) * (1 - targets)) * entropy * miss**gamma


def dice_loss(probabilities: Tensor, targets: Tensor, rows: Tensor, *, eps: float = 1e-7) -> Tensor:
    """Compute the dice loss `1 - 2 sum(p t) / (sum p^2 + sum t^2 + eps)`, without reduction.

    Predictions can share a target, so that targets need not be copied per prediction.

    Args:
        probabilities: `[n, H, W]` in 0..1.
        targets: `[K, H, W]` bool.
        rows: `[n]` int64, index of the target of each prediction.
        eps: Added to the denominator.

    Returns:
        `[n]` float32.
    """
    p = probabilities.float().flatten(1)
    t = targets.flatten(1).to(p.dtype)
    with torch.autocast(p.device.type, enabled=False):
        products = torch.matmul(p, t.transpose(0, 1)).gather(1, rows[:, None]).squeeze(1)
    return 1 - 2 * products / (p.square().sum(dim=1) + t.sum(dim=1)[rows] + eps)


def smooth_dice_loss(probabilities: Tensor, targets: Tensor) -> Tensor:
    """Compute the dice loss `1 - (2 sum(p t) + 1) / (sum p + sum t + 1)`, without reduction.

    Args:
        probabilities: `[n, ...]` in 0..1.
        targets: Same shape, 0 or 1.

    Returns:
        `[n]` float32.
    """
    p, t = probabilities.float().flatten(1), targets.float().flatten(1)
    return 1 - (2 * (p * t).sum(dim=1) + 1) / (p.sum(dim=1) + t.sum(dim=1) + 1)


def lovasz_hinge(logits: Tensor, targets: Tensor) -> Tensor:
    """Compute the Lovász hinge of a binary segmentation (Berman et al., CVPR 2018, algorithm 1 and section 3.1).

    Args:
        logits: `[P]`, one value per pixel of a flat mask.
        targets: `[P]` bool.

    Returns:
        Scalar float32.
    """
    targets = targets.float()
    errors = 1 - logits.float() * (2 * targets - 1)
    errors, order = errors.sort(descending=True)
    ranked = targets[order]
    total = ranked.sum()
    jaccard = 1 - (total - ranked.cumsum(0)) / (total + (1 - ranked).cumsum(0))
    gradient = torch.cat([jaccard[:1], jaccard[1:] - jaccard[:-1]])
    return torch.dot(F.relu(errors), gradient)


def mean_over_processes(value: float, like: Tensor) -> float:
    """Return the mean of a number over the processes of a distributed training, or the number itself without one.

    Args:
        value: Number of this process.
        like: Tensor on the device used for communication between the processes.
    """
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return value
    total = torch.tensor(value, dtype=torch.float64, device=like.device)
    torch.distributed.all_reduce(total)
    return float(total) / torch.distributed.get_world_size()
