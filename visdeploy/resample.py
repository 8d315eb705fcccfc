"""Resizing of binary masks, equal to PyTorch's bilinear `interpolate` to the last bit of the decision."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

_NEAR_TIE = 1e-3

_Taps = tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.float32]]


def resize_mask(mask: npt.NDArray[Any], height: int, width: int) -> npt.NDArray[np.bool_]:
    """Resize a binary mask: bilinear interpolation of 0/1 (`align_corners=False`), then `>= 0.5`.

    OpenCV does the bulk. It computes its weights in double precision and PyTorch in single, which decides the
    exact ties (a straight edge half-way between two pixels) differently, so the few pixels near a tie are computed
    again in PyTorch's own arithmetic.

    Args:
        mask: Integer or bool `[h, w]` of zeros and ones.
        height: Wanted rows.
        width: Wanted columns.

    Returns:
        bool `[height, width]` in column-major order, which is what run-length encoding reads.
    """
    if mask.shape == (height, width):
        return np.asfortranarray(mask, dtype=bool)
    import cv2

    turned = np.ascontiguousarray(mask.T, dtype=np.float32)
    values = cv2.resize(turned, (height, width), interpolation=cv2.INTER_LINEAR)
    inside: npt.NDArray[np.bool_] = np.asarray(values >= 0.5, dtype=bool)
    ties = cv2.findNonZero(cv2.inRange(values, 0.5 - _NEAR_TIE, 0.5 + _NEAR_TIE))
    if ties is not None:
        rows, columns = ties.reshape(-1, 2).T  # of the turned image: x runs over our rows
        inside[columns, rows] = _exact(mask, rows, columns, height, width) >= 0.5
    return inside.T


def _exact(
    mask: npt.NDArray[Any], rows: npt.NDArray[Any], columns: npt.NDArray[Any], height: int, width: int
) -> npt.NDArray[np.float32]:
    """The interpolated value at single pixels, in the order of operations of PyTorch's kernel: columns, then rows."""
    top, bottom, down = (a[rows] for a in _taps(mask.shape[0], height))
    left, right, across = (a[columns] for a in _taps(mask.shape[1], width))
    one = np.float32(1)
    above = mask[top, left] * (one - across) + mask[top, right] * across
    below = mask[bottom, left] * (one - across) + mask[bottom, right] * across
    value: npt.NDArray[np.float32] = above * (one - down) + below * down
    return value


@lru_cache(maxsize=32)
def _taps(size: int, wanted: int) -> _Taps:
    """For every output index: the two input indices and the weight of the second, in single precision."""
    # scale * (i + 0.5) - 0.5 is one fused operation in PyTorch's kernels: exact in double, rounded once
    scale = np.float64(np.float32(size) / np.float32(wanted))
    source = np.maximum(scale * (np.arange(wanted) + 0.5) - 0.5, 0.0).astype(np.float32)
    first = np.minimum(source.astype(np.int64), size - 1)
    weight = np.clip(source - first.astype(np.float32), np.float32(0), np.float32(1))
    return first, np.minimum(first + 1, size - 1), weight
