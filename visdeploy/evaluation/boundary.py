"""Contours of masks and how well two of them agree, with the tolerance of DAVIS."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt

BoolArray = npt.NDArray[np.bool_]
Window = tuple[slice, slice]

TOLERANCE = 0.008
"""Largest distance between matching contour pixels, as a share of the image diagonal."""


@dataclass(frozen=True, slots=True)
class Contour:
    """Contour of one mask.

    Attributes:
        pixels: int64 `[N]`, flat indices of the contour pixels.
        near: bool `[h * w]`, whether a pixel lies within the tolerance of the contour; empty without contour.
    """

    pixels: npt.NDArray[np.int64]
    near: BoolArray

    @classmethod
    def empty(cls) -> Contour:
        """The contour of a mask without pixels."""
        return cls(np.zeros(0, np.int64), np.zeros(0, bool))

    @classmethod
    def of(cls, mask: BoolArray, window: Window, shape: tuple[int, int]) -> Contour:
        """Contour of an object from the part of the frame around it.

        Args:
            mask: bool, the object inside the window.
            window: The part of the frame; it must reach `tolerance(shape) + 1` beyond the object, or to the edge.
            shape: Rows and columns of the frame.
        """
        import cv2

        edge = contour_map(mask)
        y, x = np.nonzero(edge)
        near = np.zeros(shape, bool)
        near[window] = cv2.dilate(edge.view(np.uint8), _disk(tolerance(shape))).view(np.bool_)
        return cls((y + window[0].start) * shape[1] + x + window[1].start, near.ravel())


def tolerance(shape: tuple[int, int]) -> int:
    """Largest distance between matching contour pixels in a frame of this shape, in pixels."""
    return math.ceil(TOLERANCE * math.hypot(*shape))


def contour_map(mask: BoolArray) -> BoolArray:
    """Pixels that differ from their right, lower or lower right neighbour, as far as they have one.

    Args:
        mask: bool `[h, w]`.

    Returns:
        bool `[h, w]`.
    """
    edge = np.zeros_like(mask)
    here = mask[:-1, :-1]
    edge[:-1, :-1] = (here ^ mask[:-1, 1:]) | (here ^ mask[1:, :-1]) | (here ^ mask[1:, 1:])
    edge[-1, :-1] = mask[-1, :-1] ^ mask[-1, 1:]
    edge[:-1, -1] = mask[:-1, -1] ^ mask[1:, -1]
    return edge


def contour_score(found: Contour, wanted: Contour) -> float:
    """F measure of two contours: precision and recall of contour pixels within the tolerance of the other contour."""
    if not (found.pixels.size and wanted.pixels.size):
        return float(found.pixels.size == wanted.pixels.size)
    precision = np.count_nonzero(wanted.near[found.pixels]) / found.pixels.size
    recall = np.count_nonzero(found.near[wanted.pixels]) / wanted.pixels.size
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


@cache
def _disk(radius: int) -> npt.NDArray[np.uint8]:
    """Disk of a radius in pixels as a uint8 kernel `[2 * radius + 1, 2 * radius + 1]`."""
    offsets = np.arange(-radius, radius + 1)
    return (offsets[:, None] ** 2 + offsets[None, :] ** 2 <= radius**2).astype(np.uint8)
