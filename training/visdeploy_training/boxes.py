"""Functions of boxes: conversions, overlaps, bounding boxes of masks."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Overlap(NamedTuple):
    """Areas of pairs of boxes, in the square of the unit of the boxes.

    Attributes:
        intersection: Area of the intersection.
        union: Area of the union.
        hull: Area of the smallest box that encloses both.
    """

    intersection: Tensor
    union: Tensor
    hull: Tensor


def to_corners(boxes: Tensor) -> Tensor:
    """Convert boxes `[..., 4]` from centre and size (x, y, w, h) to left, top, right, bottom."""
    centre, half = boxes[..., :2], boxes[..., 2:] / 2
    return torch.cat([centre - half, centre + half], dim=-1)


def to_centres(boxes: Tensor) -> Tensor:
    """Convert boxes `[..., 4]` from left, top, right, bottom to centre and size (x, y, w, h)."""
    low, high = boxes[..., :2], boxes[..., 2:]
    return torch.cat([(low + high) / 2, high - low], dim=-1)


def overlap(first: Tensor, second: Tensor) -> Overlap:
    """Compute the areas of intersection, union and hull of pairs of boxes.

    Args:
        first: `[..., 4]` left, top, right, bottom.
        second: Boxes whose shape broadcasts with `first`.

    Returns:
        Non-negative areas, in the broadcast shape without the last axis.
    """
    inner = torch.minimum(first[..., 2:], second[..., 2:]) - torch.maximum(first[..., :2], second[..., :2])
    outer = torch.maximum(first[..., 2:], second[..., 2:]) - torch.minimum(first[..., :2], second[..., :2])
    intersection = inner.clamp(min=0).prod(dim=-1)
    union = _area(first) + _area(second) - intersection
    return Overlap(intersection, union, outer.clamp(min=0).prod(dim=-1))


def _area(boxes: Tensor) -> Tensor:
    return (boxes[..., 2:] - boxes[..., :2]).prod(dim=-1)


def mask_boxes(masks: Tensor) -> Tensor:
    """Return the bounding boxes of masks.

    Args:
        masks: `[..., H, W]` bool.

    Returns:
        `[..., 4]` float32 left, top, right, bottom in pixels, right and bottom exclusive; zeros for an empty mask.
    """
    sides = []
    for axis in (-2, -1):  # columns, then rows
        hit = masks.any(dim=axis)
        place = torch.arange(hit.shape[-1], device=masks.device)
        far = (hit * (place + 1)).amax(dim=-1)
        near = torch.where(hit, place, hit.shape[-1]).amin(dim=-1).minimum(far)
        sides.append((near, far))
    (left, right), (top, bottom) = sides
    return torch.stack([left, top, right, bottom], dim=-1).float()
