"""Resizing of masks to frames, whole or within a box."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

# A straight edge can fall exactly half-way between two output pixels. In real arithmetic such a pixel is inside;
# in single precision it lands on either side, differently in PyTorch with and without fused multiply-add. The
# margin, far below any other difference, makes it inside everywhere.
_TIE = np.float32(0.5 - 1e-6)


def resize_mask(mask: npt.NDArray[Any], height: int, width: int) -> npt.NDArray[np.bool_]:
    """Resize a binary mask: bilinear interpolation of 0/1 (corners not aligned, no antialias), then `>= 0.5`.

    Equal to PyTorch's `interpolate` except for pixels whose value is exactly one half, see above.

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
    inside: npt.NDArray[np.bool_] = np.asarray(values >= _TIE, dtype=bool).reshape(width, height)
    return inside.T


def resize_logits(logits: npt.NDArray[np.float32], height: int, width: int) -> npt.NDArray[np.float32]:
    """Resize a map of logits: bilinear interpolation, corners not aligned, no antialias, as PyTorch's `interpolate`.

    Args:
        logits: float32 `[h, w]`.
        height: Wanted rows.
        width: Wanted columns.

    Returns:
        float32 `[height, width]` in column-major order, which is what run-length encoding reads.
    """
    import cv2

    turned = np.ascontiguousarray(logits.T)
    resized = np.asarray(cv2.resize(turned, (height, width), interpolation=cv2.INTER_LINEAR), dtype=np.float32)
    return resized.reshape(width, height).T


def paste_mask(
    values: npt.NDArray[np.float32], box: npt.NDArray[np.floating[Any]], height: int, width: int
) -> npt.NDArray[np.float32]:
    """Put a small map into its box on a frame: bilinear between the centres of its cells, fading to 0 half a cell out.

    The same as sampling it at every pixel's centre with PyTorch's `grid_sample`, corners not aligned, zeros outside.

    Args:
        values: float32 `[h, w]`, stretched over the box.
        box: `[4]` left, top, right, bottom in pixels of the frame; may lie outside, and a box that ends before it
            begins shows the map mirrored. Without any extent along an axis, the map's middle is all along it.
        height: Rows of the frame.
        width: Columns of the frame.

    Returns:
        float32 `[height, width]` in column-major order, which is what run-length encoding reads.
    """
    left, top, right, bottom = (float(v) for v in box)
    x = _weights(left, right, width, values.shape[1])
    y = _weights(top, bottom, height, values.shape[0])
    pasted = np.zeros((width, height), np.float32)
    columns, rows = (slice(*_extent(each)) for each in (x, y))
    pasted[columns, rows] = x[columns] @ values.T @ y[rows].T
    return pasted.T


def _weights(low: float, high: float, pixels: int, cells: int) -> npt.NDArray[np.float32]:
    """Share of each cell in each pixel along one axis, `[pixels, cells]`."""
    # without extent PyTorch's coordinates are infinite, which the methods set to the middle
    scale = cells / (high - low) if high != low else 0.0
    place = (np.arange(pixels) + 0.5 - low) * scale if scale else np.full(pixels, cells / 2)
    distance = np.abs(place[:, None] - 0.5 - np.arange(cells))
    weights: npt.NDArray[np.float32] = np.maximum(1 - distance, 0).astype(np.float32)
    return weights


def _extent(weights: npt.NDArray[np.float32]) -> tuple[int, int]:
    """First pixel with any weight, and the one after the last."""
    hit = np.flatnonzero(weights.any(axis=1))
    return (int(hit[0]), int(hit[-1]) + 1) if len(hit) else (0, 0)
