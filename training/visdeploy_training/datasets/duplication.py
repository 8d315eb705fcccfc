"""Duplication of the only object of a clip, the augmentation of videos of STEm-Seg (Athar et al., ECCV 2020)."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from visdeploy_training.datasets.records import Sample
from visdeploy_training.datasets.transforms import uniform

SHIFT_ALONG_X, SHIFT_ALONG_Y = (0.75, 1.0), (0.0, 0.25)
"""Range of the shift, as a share of the side of the object's box."""
LARGEST_SHIFT = 0.3
"""Largest shift, as a share of the side of the image."""
LARGE, SMALL, NEAR = 0.4, 0.2, 0.25
"""Sides of boxes and distances from a border, as shares of the side of the image."""


class Extent(NamedTuple):
    """First and last pixel plus one of an object along one axis."""

    start: int
    end: int


def duplicate_object(sample: Sample) -> Sample:
    """Paste a shifted copy of the only object of a clip.

    The copy keeps its side of the object in the whole clip; its distance and its reflection inside the box of the
    object are drawn for each frame and for the clip, respectively. The copy covers the object.

    Returns:
        The sample with two objects; unchanged if it has not exactly one, or if the copy or the rest of the object has
        no pixel, or no direction is free.
    """
    masks = sample.masks.any(dim=1)
    shown = [t for t in range(len(masks)) if bool(masks[t].any())]
    if len(sample.labels) != 1 or not shown:
        return sample
    boxes = {t: (_extent(masks[t].any(dim=0)), _extent(masks[t].any(dim=1))) for t in shown}
    rows, columns = masks.shape[1:]
    horizontal, vertical = ([box[axis] for box in boxes.values()] for axis in (0, 1))
    x, y = direction(horizontal, columns), direction(vertical, rows) or 0
    if x is None:
        return sample
    free = all(e.start > 0 and e.end < columns for e in horizontal)
    flip = free and uniform(0, 1) < 0.5
    images, copies = sample.images.clone(), torch.zeros_like(masks)
    for t, (across, down) in boxes.items():
        dx = x * round(_distance(across, columns, SHIFT_ALONG_X))
        dy = y * round(_distance(down, rows, SHIFT_ALONG_Y))
        copies[t] = moved(masks[t][None], across, down, dx, dy, flip=flip)[0]
        pasted = moved(sample.images[t], across, down, dx, dy, flip=flip)
        images[t] = torch.where(copies[t], pasted, images[t])
    rest = masks & ~copies
    if not bool(copies.any()) or not bool(rest.any()):
        return sample
    ignore = None if sample.ignore is None else sample.ignore & ~copies
    return Sample(images, torch.stack([rest, copies], dim=1), sample.labels.repeat(2), ignore)


def direction(extents: list[Extent], side: int) -> int | None:
    """Draw the direction of a shift along one axis, the same for all frames of a clip.

    Large objects that touch a border move out of the image, small ones near a border into it.

    Args:
        extents: Extent of the object in each frame in which it is present.
        side: Side of the image, in pixels.

    Returns:
        -1 or 1; None if the object touches both borders.
    """
    before, after = min(e.start for e in extents), side - max(e.end for e in extents)
    size = max(e.end - e.start for e in extents)
    if before == 0 and after == 0:
        return None
    if size > LARGE * side and (before == 0 or after == 0):
        return -1 if before == 0 else 1
    if size < SMALL * side and min(before, after) < NEAR * side and before != after:
        return 1 if before < after else -1
    return 1 if uniform(0, 1) < 0.5 else -1


def _extent(present: Tensor) -> Extent:
    places = present.nonzero().flatten()
    return Extent(int(places[0]), int(places[-1]) + 1)


def _distance(extent: Extent, side: int, limits: tuple[float, float]) -> float:
    return min(uniform(*limits) * (extent.end - extent.start), LARGEST_SHIFT * side)


def moved(planes: Tensor, across: Extent, down: Extent, dx: int, dy: int, *, flip: bool) -> Tensor:
    """Return planes that contain only a box of the given ones, shifted; parts outside are cut off.

    Args:
        planes: `[C, H, W]`.
        across: Columns of the box.
        down: Rows of the box.
        dx: Shift to the right, in pixels.
        dy: Shift down, in pixels.
        flip: Reflect the content of the box horizontally.
    """
    patch = planes[:, down.start : down.end, across.start : across.end]
    patch = patch.flip(-1) if flip else patch
    result = torch.zeros_like(planes)
    rows, columns = planes.shape[1:]
    top, left = down.start + dy, across.start + dx
    bottom, right = min(rows, down.end + dy), min(columns, across.end + dx)
    y, x = max(0, top), max(0, left)
    if y < bottom and x < right:
        result[:, y:bottom, x:right] = patch[:, y - top : bottom - top, x - left : right - left]
    return result
