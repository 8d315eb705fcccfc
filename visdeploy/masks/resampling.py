"""Resizing of masks to the size of a frame, or pasting into a box of a frame."""

from __future__ import annotations

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
    left, top, right, bottom = (float(v) for v in box)
    x = _weights(left, right, width, values.shape[1])
    y = _weights(top, bottom, height, values.shape[0])
    pasted = np.zeros((width, height), np.float32)
    columns, rows = (slice(*_extent(each)) for each in (x, y))
    pasted[columns, rows] = x[columns] @ values.T @ y[rows].T
    return pasted.T


def _weights(low: float, high: float, pixels: int, cells: int) -> npt.NDArray[np.float32]:
    """Return the weight of each cell in each pixel along one axis, `[pixels, cells]`."""
    # PyTorch's coordinates are infinite in a box without extent; the published methods replace them by the middle
    scale = cells / (high - low) if high != low else 0.0
    place = (np.arange(pixels) + 0.5 - low) * scale if scale else np.full(pixels, cells / 2)
    distance = np.abs(place[:, None] - 0.5 - np.arange(cells))
    weights: npt.NDArray[np.float32] = np.maximum(1 - distance, 0).astype(np.float32)
    return weights


def _extent(weights: npt.NDArray[np.float32]) -> tuple[int, int]:
    """Return the first pixel with a non-zero weight and the one after the last."""
    hit = np.flatnonzero(weights.any(axis=1))
    return (int(hit[0]), int(hit[-1]) + 1) if len(hit) else (0, 0)
