"""Losses that several methods share, computed in float32 whatever the precision of the network."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def sigmoid_focal_loss(logits: Tensor, targets: Tensor, *, alpha: float = 0.25, gamma: float = 2.0) -> Tensor:
    """Focal loss per element, without reduction.

    Args:
        logits: Any shape.
        targets: Same shape, 0 or 1.
        alpha: Weight of positives; negatives weigh `1 - alpha`.
        gamma: Exponent that turns down easy elements.

    Returns:
        Float32, same shape.
    """
    logits, targets = logits.float(), targets.float()
    probability = logits.sigmoid()
    entropy = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    miss = probability * (1 - targets) + (1 - probability) * targets
    return (alpha * targets + (1 - alpha) * (1 - targets)) * entropy * miss**gamma


def dice_loss(probabilities: Tensor, targets: Tensor, rows: Tensor, *, eps: float = 1e-7) -> Tensor:
    """Dice loss with squared sums, `1 - 2 sum(p t) / (sum p^2 + sum t^2 + eps)`, without reduction.

    Many predictions may share one target: targets are given once, so no copy of them is made per prediction.

    Args:
        probabilities: `[n, H, W]` in 0..1.
        targets: `[K, H, W]` bool.
        rows: `[n]` int64, the target of each prediction.
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
    """Dice loss with plain sums, `1 - (2 sum(p t) + 1) / (sum p + sum t + 1)`, without reduction.

    Args:
        probabilities: `[n, ...]` in 0..1.
        targets: Same shape, 0 or 1.

    Returns:
        `[n]` float32.
    """
    p, t = probabilities.float().flatten(1), targets.float().flatten(1)
    return 1 - (2 * (p * t).sum(dim=1) + 1) / (p.sum(dim=1) + t.sum(dim=1) + 1)


def mean_over_processes(value: float, like: Tensor) -> float:
    """The mean of a number over the processes of a distributed training; the number itself otherwise.

    Args:
        value: This process's number.
        like: A tensor on the device that the processes talk through.
    """
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return value
    total = torch.tensor(value, dtype=torch.float64, device=like.device)
    torch.distributed.all_reduce(total)
    return float(total) / torch.distributed.get_world_size()
