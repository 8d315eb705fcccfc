"""Masks from the polygons of annotation files, by the rule of COCO, and polygons from masks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from visdeploy.arguments import check_number
from visdeploy.brief import shorten
from visdeploy.errors import DataError
from visdeploy.masks.mask import Mask

_FARTHEST = 1_000_000
"""Maximum distance of a corner from the origin in pixels; the time of pycocotools grows with the length of edges."""


def rasterize(polygons: Sequence[Any], height: int, width: int) -> tuple[Mask | None, int]:
    """Return the union of polygons as a mask, computed by pycocotools.

    Args:
        polygons: Parts of an object, each a list of x, y, x, y, ... in pixels; they may extend beyond the mask.
        height: Rows of the mask, in pixels.
        width: Columns of the mask, in pixels.

    Returns:
        The mask, or None if it has no pixel; and the number of parts left out, because they have fewer than three
        corners or an odd number of coordinates.

    Raises:
        DataError: A part is not a list of numbers, or a corner is too far away.
    """
    from pycocotools import mask as coco

    parts = [part.tolist() if isinstance(part, np.ndarray) else part for part in polygons]
    if not all(isinstance(part, list | tuple) and all(map(_is_coordinate, part)) for part in parts):
        raise DataError("malformed polygons", seen=shorten(polygons), expected="polygons of x, y, in pixels")
    good = [[float(v) for v in part] for part in parts if len(part) >= 6 and len(part) % 2 == 0]
    if not good:
        return None, len(parts)
    mask = Mask(height, width, bytes(coco.merge(coco.frPyObjects(good, height, width))["counts"]))
    return (mask if mask.area else None), len(parts) - len(good)


def _is_coordinate(value: Any) -> bool:
    number = isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool)
    return number and bool(abs(value) <= _FARTHEST)


def outlines(mask: Mask, tolerance: float = 0.0) -> list[npt.NDArray[np.int32]]:
    """Return the outline of each connected part of a mask, without holes, the largest part first.

    Outlines run along the edges of pixels: pixel `(x, y)` covers `x..x+1` and `y..y+1`, as in `Mask.box`. `rasterize`
    gives the mask again, with its holes filled.

    Args:
        mask: The mask.
        tolerance: Maximum distance in pixels by which an outline with fewer corners may differ; 0 for the exact one.

    Returns:
        int32 `[corners, 2]` each, x and y; an empty list for an empty mask.
    """
    import cv2

    tolerance = check_number(tolerance, "tolerance of a polygon", minimum=0)
    if not mask.area:
        return []
    x1, y1, x2, y2 = (int(v) for v in mask.box)
    # OpenCV's contours run through the centres of border pixels. With every pixel doubled, the two halves of a pixel
    # tell its two edges apart: half 2x lies at edge x, half 2x + 1 at edge x + 1.
    doubled: Any = np.kron(mask.decode()[y1:y2, x1:x2].astype(np.uint8), np.ones((2, 2), np.uint8))
    contours, levels = cv2.findContours(doubled, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    outer = [contour for contour, level in zip(contours, levels[0], strict=True) if level[3] < 0]
    found = [_corners((contour[:, 0] + 1) // 2) for contour in outer]
    if tolerance:
        found = [np.asarray(cv2.approxPolyDP(each, tolerance, True)[:, 0], np.int32) for each in found]
    shift = np.array([x1, y1], np.int32)
    found.sort(key=cv2.contourArea, reverse=True)
    return [each + shift for each in found if len(each) > 2]


def _corners(points: npt.NDArray[Any]) -> npt.NDArray[np.int32]:
    """Return a closed outline of axis-parallel edges without repeated points and points within an edge."""
    points = points[np.any(points != np.roll(points, 1, axis=0), axis=1)]
    before, after = points - np.roll(points, 1, axis=0), np.roll(points, -1, axis=0) - points
    return np.ascontiguousarray(points[np.any((before != 0) != (after != 0), axis=1)], dtype=np.int32)
