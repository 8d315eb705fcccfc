"""Contours of masks, and the contour accuracy F with the tolerance of the DAVIS benchmark."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt

BoolArray = npt.NDArray[np.bool_]
Window = tuple[slice, slice]

TOLERANCE = 0.008
"""Maximum distance between matching contour pixels, as a fraction of the image diagonal."""


@dataclass(frozen=True, slots=True)
class Contour:
    """Contour of a mask.

    Attributes:
        pixels: int64 `[N]`, flat indices of the contour pixels.
        near: bool `[h * w]`, whether a pixel lies within the tolerance of the contour; empty if there is no contour.
    """

    pixels: npt.NDArray[np.int64]
    near: BoolArray

    @classmethod
    def empty(cls) -> Contour:
        """Return the contour of an empty mask."""
        return cls(np.zeros(0, np.int64), np.zeros(0, bool))

    @classmethod
    def of(cls, mask: BoolArray, window: Window, shape: tuple[int, int]) -> Contour:
        """Return the contour of an object from a window of the frame around it.

        Args:
            mask: bool, the mask of the object inside the window.
            window: Window of the frame; it must extend `tolerance(shape) + 1` beyond the object, or to the edge.
            shape: Rows and columns of the frame.
        """
        import cv2

        edge = contour_map(mask)
        y, x = np.nonzero(edge)
        near = np.zeros(shape, bool)
        near[window] = cv2.dilate(edge.view(np.uint8), _disk(tolerance(shape))).view(np.bool_)
        return cls((y + window[0].start) * shape[1] + x + window[1].start, near.ravel())


def tolerance(shape: tuple[int, int]) -> int:
    """Return the maximum distance between matching contour pixels in a frame of this shape, in pixels."""
    return math.ceil(TOLERANCE * math.hypot(*shape))


def contour_map(mask: BoolArray) -> BoolArray:
    """Return the pixels that differ from their right, lower or lower right neighbour, where there is one.

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
    """Return the F measure of two contours, with a tolerance on the distance between contour pixels."""
    if not (found.pixels.size and wanted.pixels.size):
        return float(found.pixels.size == wanted.pixels.size)
    precision = np.count_nonzero(wanted.near[found.pixels]) / found.pixels.size
    recall = np.count_nonzero(found.near[wanted.pixels]) / wanted.pixels.size
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


@cache
def _disk(radius: int) -> npt.NDArray[np.uint8]:
    """Return a disk with this radius in pixels as a uint8 kernel `[2 * radius + 1, 2 * radius + 1]`."""
    offsets = np.arange(-radius, radius + 1)
    return (offsets[:, None] ** 2 + offsets[None, :] ** 2 <= radius**2).astype(np.uint8)
