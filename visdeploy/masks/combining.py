"""Union and difference of run-length encoded masks of one size; None is a mask without pixels."""

from __future__ import annotations

from collections.abc import Iterable

from visdeploy.masks.mask import Mask


def union(masks: Iterable[Mask | None]) -> Mask | None:
    """Return the union of masks, or None if all of them are missing or empty."""
    present = [mask for mask in masks if mask is not None and mask.area > 0]
    if len(present) < 2:
        return present[0] if present else None
    from pycocotools import mask as coco

    first = present[0]
    rle = coco.merge([{"size": [first.height, first.width], "counts": mask.counts} for mask in present])
    return Mask(first.height, first.width, bytes(rle["counts"]))


def difference(mask: Mask | None, region: Mask | None) -> Mask | None:
    """Return a mask without the pixels of a region."""
    if mask is None or region is None:
        return mask
    return Mask.encode(mask.decode() & ~region.decode())
