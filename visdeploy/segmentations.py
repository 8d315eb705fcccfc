"""Masks of annotation files: run-length encodings or polygons."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from visdeploy.brief import shorten
from visdeploy.errors import DataError
from visdeploy.json_fields import Entry, has_no_runs, is_absent, plain
from visdeploy.masks import Mask
from visdeploy.masks.polygons import rasterize
from visdeploy.oddities import Oddities


def read_segmentation(
    entry: Entry, field: str, item: Any, height: int, width: int, odd: Oddities, *, hint: str = "Encode the mask again."
) -> Mask | None:
    """Return a mask of an annotation, or None if it has no pixel.

    Args:
        entry: The annotation.
        field: Name of the field, for error messages.
        item: Run-length encoding, or a list of polygons, in the field.
        height: Rows of the frame, in pixels.
        width: Columns of the frame, in pixels.
        odd: Receives the parts of polygons that are left out.
        hint: Advice for the error about a damaged mask.

    Raises:
        DataError: The item is malformed, or the mask has another size than the frame.
    """
    if is_absent(item):
        return None
    if isinstance(item, Mapping):
        if has_no_runs(item):
            return None
        mask = entry.mask(field, item, height, width, hint=hint)
        return mask if mask.area else None
    polygons = plain(item)
    if not isinstance(polygons, list | tuple):
        raise entry.fail(field, seen=shorten(item), expected="a run-length encoding or polygons", hint=hint)
    if len(polygons) == height and all(isinstance(row, list) and len(row) == width for row in polygons):
        dense = f"an array of {height}x{width}"
        raise entry.fail(field, seen=dense, expected="a run-length encoding or polygons", hint=hint)
    try:
        found, left_out = rasterize(polygons, height, width)
    except DataError as error:
        raise entry.fail(field, seen=error.seen, expected=error.expected, hint=hint) from error
    if left_out:
        flaw = entry.fail(field, seen=f"{left_out} polygons of fewer points", expected="three points or more, as x, y")
        odd.add("polygons of fewer than three points, left out", entry.where, flaw)
    return found
