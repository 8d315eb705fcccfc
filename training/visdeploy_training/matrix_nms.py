"""Matrix NMS: every score decays by its overlap with better ones, in parallel instead of one by one."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor


def descending_order(key: Tensor) -> Tensor:
    """Stable descending order of a short vector without NaN, the same on every engine.

    `torch.sort(stable=True)` has no ONNX translation, and the order of equal keys in other sorts is up to the
    engine; counting who stands before whom is not.

    Args:
        key: `[n]` float.

    Returns:
        `[n]` int64, indices into `key`; equal keys keep their order.
    """
    index = torch.arange(key.shape[0], device=key.device)
    higher = key[None, :] > key[:, None]
    earlier = (key[None, :] == key[:, None]) & (index[None, :] < index[:, None])
    place = (higher | earlier).sum(dim=1)
    return torch.zeros_like(index).scatter(0, place, index)


def pairwise_iou(intersections: Tensor) -> Tensor:
    """IoU matrix from a matrix of intersections.

    Args:
        intersections: `[n, n]` float, pixels; the diagonal holds the areas.

    Returns:
        `[n, n]` float in 0..1; 0 between two empty masks.
    """
    areas = intersections.diagonal()
    union = areas[:, None] + areas[None, :] - intersections
    return intersections / union.clamp(min=1.0)


def matrix_nms_decay(
    iou: Tensor, labels: Tensor, *, kernel: Literal["gaussian", "linear"] = "gaussian", sigma: float = 2.0
) -> Tensor:
    """Factor by which each score decays; VISOLO's spec, section 7, step 6.

    Free of NaN: where the linear kernel divides 0 by 0 (an exact duplicate of a duplicate), the factor is 0, and
    where it divides by 0 otherwise, that row does not limit the factor.

    Args:
        iou: `[n, n]`, rows and columns sorted by descending score.
        labels: `[n]` int64; only equal labels suppress each other.
        kernel: `gaussian` or `linear`.
        sigma: Sharpness of the gaussian.

    Returns:
        `[n]` float in 0..1.
    """
    rank = torch.arange(labels.shape[0], device=iou.device)
    better = (rank[:, None] < rank[None, :]) & (labels[:, None] == labels[None, :])
    overlap = torch.where(better, iou, torch.zeros_like(iou))
    worst = overlap.amax(dim=0)[:, None]
    if kernel == "gaussian":
        factors = torch.exp(-sigma * overlap**2) / torch.exp(-sigma * worst**2)
    else:
        kept, room = 1.0 - overlap, 1.0 - worst
        free = torch.where(kept > 0, torch.ones_like(kept), torch.zeros_like(kept))
        factors = torch.where(room > 0, kept / room.clamp(min=1e-12), free)
    return factors.amin(dim=0)
