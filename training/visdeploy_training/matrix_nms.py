"""Matrix NMS (SOLOv2, Wang et al., NeurIPS 2020): parallel decay of scores by the overlap with higher scores."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor


def descending_order(key: Tensor) -> Tensor:
    """Return the stable descending order of a short vector without NaN, identical on every engine.

    `torch.sort(stable=True)` has no ONNX translation, and engines differ in the order of equal keys in other sorts.
    This function counts the elements before each element instead.

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
    """Return the IoU matrix from a matrix of intersections.

    Args:
        intersections: `[n, n]` float, in pixels; the diagonal contains the areas.

    Returns:
        `[n, n]` float in 0..1; 0 between two empty masks.
    """
    areas = intersections.diagonal()
    union = areas[:, None] + areas[None, :] - intersections
    return intersections / union.clamp(min=1.0)


def matrix_nms_decay(
    iou: Tensor, labels: Tensor, *, kernel: Literal["gaussian", "linear"] = "gaussian", sigma: float = 2.0
) -> Tensor:
    """Return the decay factor of each score.

    The result has no NaN. Where the linear kernel would divide 0 by 0, because a duplicate has an exact duplicate, the
    factor is 0. Where it would divide another number by 0, that row does not limit the factor.

    Args:
        iou: `[n, n]`, rows and columns in descending order of score.
        labels: `[n]` int64; only equal labels suppress each other.
        kernel: `gaussian` or `linear`.
        sigma: Coefficient in the exponent of the Gaussian kernel.

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
