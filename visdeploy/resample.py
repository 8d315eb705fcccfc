"""Resizing of binary masks."""

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
