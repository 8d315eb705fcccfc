"""Resizing of masks to the size of a frame, or pasting into a box of a frame."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

# A straight edge can lie exactly on the threshold of an output pixel. In exact arithmetic this pixel is inside the
# mask; in single precision rounding decides, and PyTorch differs with and without fused multiply-add. The margin, far
# below all other differences, puts the pixel inside on every platform.
_TIE = np.float32(0.5 - 1e-6)


def resize_mask(mask: npt.NDArray[Any], height: int, width: int) -> npt.NDArray[np.bool_]:
    """Resize a binary mask: bilinear interpolation of 0/1 (corners not aligned, no antialiasing), then `>= 0.5`.

    The result equals that of PyTorch's `interpolate` except for pixels whose value is exactly one half.

    Args:
        mask: Integer or bool `[h, w]` of zeros and ones.
        height: Rows of the result.
        width: Columns of the result.

    Returns:
        bool `[height, width]` in column-major order, the order of run-length encoding.
    """
    if mask.shape == (height, width):
        return np.asfortranarray(mask, dtype=bool)
    import cv2

    turned = np.ascontiguousarray(mask.T, dtype=np.float32)
    values = cv2.resize(turned, (height, width), interpolation=cv2.INTER_LINEAR)
    inside: npt.NDArray[np.bool_] = np.asarray(values >= _TIE, dtype=bool).reshape(width, height)
    return inside.T


def resize_padded_mask(
    mask: npt.NDArray[np.bool_], scale: int, content: tuple[int, int], height: int, width: int
) -> npt.NDArray[np.bool_]:
    """Enlarge a mask of a padded input, remove the padding, and resize it to the frame: bilinear, then `> 0.5`.

    A pixel whose value is exactly one half is outside on every platform. Disjoint masks stay disjoint.

    Args:
        mask: bool `[h, w]`.
        scale: Size of the padded input divided by that of the mask.
        content: Rows and columns of the input without padding.
        height: Rows of the result.
        width: Columns of the result.

    Returns:
        bool `[height, width]` in column-major order, the order of run-length encoding.
    """
    values = padded_mask_values(mask, scale, content, height, width)
    return np.asarray(values > np.float32(1) - _TIE, dtype=bool)


def padded_mask_values(
    mask: npt.NDArray[np.bool_], scale: int, content: tuple[int, int], height: int, width: int
) -> npt.NDArray[np.float32]:
    """Return the values to which `resize_padded_mask` applies its threshold, float32 `[height, width]` in 0..1.

    The values between the two steps are not rounded to 0 and 1. For the arguments see `resize_padded_mask`.
    """
    import cv2

    values = np.ascontiguousarray(mask.T, dtype=np.float32)
    if scale > 1:
        size = (mask.shape[0] * scale, mask.shape[1] * scale)
        values = np.asarray(cv2.resize(values, size, interpolation=cv2.INTER_LINEAR), dtype=np.float32)
    values = np.ascontiguousarray(values.reshape(mask.shape[1] * scale, -1)[: content[1], : content[0]])
    if content != (height, width):
        values = np.asarray(cv2.resize(values, (height, width), interpolation=cv2.INTER_LINEAR), dtype=np.float32)
    return values.reshape(width, height).T


def resize_logits(logits: npt.NDArray[np.float32], height: int, width: int) -> npt.NDArray[np.float32]:
    """Resize a map of logits: bilinear interpolation, corners not aligned, no antialiasing, as in `interpolate`.

    Args:
        logits: float32 `[h, w]`.
        height: Rows of the result.
        width: Columns of the result.

    Returns:
        float32 `[height, width]` in column-major order, the order of run-length encoding.
    """
    import cv2

    turned = np.ascontiguousarray(logits.T)
    resized = np.asarray(cv2.resize(turned, (height, width), interpolation=cv2.INTER_LINEAR), dtype=np.float32)
    return resized.reshape(width, height).T


def paste_mask(
    values: npt.NDArray[np.float32], box: npt.NDArray[np.floating[Any]], height: int, width: int
) -> npt.NDArray[np.float32]:
    """Paste a small map into a box of a frame, with bilinear interpolation between the centres of its cells.

    The result equals sampling the map at every pixel centre with PyTorch's `grid_sample`, corners not aligned, zeros
    outside. Values therefore fall to 0 within half a cell beyond the box.

    Args:
        values: float32 `[h, w]`, stretched over the box.
        box: `[4]` left, top, right, bottom in pixels of the frame. The box may extend beyond the frame. If right is
            less than left, or bottom less than top, the map is mirrored. Along an axis where the box has no extent,
            all pixels take the value at the middle of the map.
        height: Rows of the frame.
        width: Columns of the frame.

    Returns:
        float32 `[height, width]` in column-major order, the order of run-length encoding.
    """
    region, top, left = paste_region(values, box, height, width)
    pasted = np.zeros((width, height), np.float32)
    pasted[left : left + region.shape[1], top : top + region.shape[0]] = region.T
    return pasted.T


def paste_region(
    values: npt.NDArray[np.float32], box: npt.NDArray[np.floating[Any]], height: int, width: int
) -> tuple[npt.NDArray[np.float32], int, int]:
    """Paste a small map into a box of a frame, and return only the part of the frame that the map reaches.

    Args:
        values: See `paste_mask`.
        box: See `paste_mask`.
        height: Rows of the frame.
        width: Columns of the frame.

    Returns:
        float32 `[h, w]` in column-major order, its first row, and its first column in the frame. All other pixels of
        the frame are 0. The part is empty if the map does not reach the frame.
    """
    low_x, low_y, high_x, high_y = (float(v) for v in box)
    left, x = _weights(low_x, high_x, width, values.shape[1])
    top, y = _weights(low_y, high_y, height, values.shape[0])
    return np.asarray(x @ values.T @ y.T, dtype=np.float32).T, top, left


def _weights(low: float, high: float, pixels: int, cells: int) -> tuple[int, npt.NDArray[np.float32]]:
    """Return the first pixel that the cells reach along one axis, and the weight of each cell in it and the next ones.

    The weights are float32 `[k, cells]`, for `k` consecutive pixels inside the frame.
    """
    # PyTorch's coordinates are infinite in a box without extent; the published methods replace them by the middle
    scale = cells / (high - low) if high != low else 0.0
    start, stop = _reach(low, high, pixels, abs(0.5 / scale)) if scale else (0, pixels)
    place = (np.arange(start, stop) + 0.5 - low) * scale if scale else np.full(pixels, cells / 2)
    distance = np.abs(place[:, None] - 0.5 - np.arange(cells))
    weights: npt.NDArray[np.float32] = np.maximum(1 - distance, 0).astype(np.float32)
    return start, weights


def _reach(low: float, high: float, pixels: int, margin: float) -> tuple[int, int]:
    """Return the first pixel with its centre within a margin of an interval, and the one after the last."""
    if not math.isfinite(low + high):
        return 0, pixels
    start = min(max(math.floor(min(low, high) - margin), 0), pixels)
    return start, min(max(math.ceil(max(low, high) + margin), start), pixels)
