"""Masks from the polygons of annotation files, by the rule of COCO."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

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

    parts = [part.tolist() if hasattr(part, "tolist") else part for part in polygons]
    if not all(isinstance(part, list | tuple) and all(map(_is_coordinate, part)) for part in parts):
        raise DataError("malformed polygons", seen=repr(polygons)[:60], expected="polygons of x, y, in pixels")
    good = [[float(v) for v in part] for part in parts if len(part) >= 6 and len(part) % 2 == 0]
    if not good:
        return None, len(parts)
    mask = Mask(height, width, bytes(coco.merge(coco.frPyObjects(good, height, width))["counts"]))
    return (mask if mask.area else None), len(parts) - len(good)


def _is_coordinate(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= _FARTHEST
