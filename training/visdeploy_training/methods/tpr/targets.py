"""Targets of the TPR losses: objects of pairs of frames, and their assignment to locations.

The assignment is that of FCOS (Tian et al., ICCV 2019) with centre sampling, as in BlendMask (Chen et al., CVPR 2020).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from visdeploy_training.boxes import mask_boxes
from visdeploy_training.clip import ClipTargets
from visdeploy_training.methods.tpr.output import STRIDES

SIZE_LIMITS = (-1.0, 64.0, 128.0, 256.0, 512.0, 1e8)
"""Limits of the levels for the largest distance from a location to a side of its box, in pixels, both inclusive."""


class PairTargets(NamedTuple):
    """Targets of K objects of a query frame and of M objects of its reference frame.

    Attributes:
        boxes: `[K, 4]` float32 left, top, right, bottom in pixels of the network input.
        labels: `[K]` int64.
        masks: `[K, H, W]` bool at the size of the network input.
        reference_boxes: `[M, 4]` float32; empty for single images.
        pids: `[K]` int64, 1 + position of the same object in the reference frame, 0 if it is absent there.
    """

    boxes: Tensor
    labels: Tensor
    masks: Tensor
    reference_boxes: Tensor
    pids: Tensor


class Positives(NamedTuple):
    """Locations assigned to objects: P of all levels and images, sorted by level, image, row and column.

    Attributes:
        level: `[P]` int64, position in `STRIDES`.
        image: `[P]` int64.
        row: `[P]` int64.
        column: `[P]` int64.
        object: `[P]` int64, position in the targets of the image.
    """

    level: Tensor
    image: Tensor
    row: Tensor
    column: Tensor
    object: Tensor

    @property
    def strides(self) -> Tensor:
        """Strides of the levels, `[P]` float32."""
        return torch.tensor(STRIDES, dtype=torch.float32, device=self.level.device)[self.level]

    @property
    def points(self) -> Tensor:
        """Locations `[P, 2]` float32 as x, y in pixels; see `locations`."""
        cells = torch.stack([self.column, self.row], dim=1)
        return (cells + 0.5) * self.strides[:, None]

    def gather(self, maps: Sequence[Tensor]) -> Tensor:
        """Return the values of maps `[B, C, H_l, W_l]` at the locations, `[P, C]` float32."""
        found = []
        for level, each in enumerate(maps):
            here = self.level == level
            found.append(each[self.image[here], :, self.row[here], self.column[here]])
        return torch.cat(found).float()


def pair_targets(clip: ClipTargets) -> PairTargets:
    """Return the targets of a pair of frames: frame 0 is the query, frame 1 the reference.

    Objects that are absent in the query have no row; boxes are the bounding boxes of the masks.

    Args:
        clip: Targets of two frames.
    """
    query, reference = clip.masks.flatten(2).any(dim=2)
    places = torch.where(reference, reference.cumsum(dim=0), 0)
    masks = clip.masks[0, query]
    boxes = mask_boxes(clip.masks[1, reference])
    return PairTargets(mask_boxes(masks), clip.labels[0, query], masks, boxes, places[query])


def image_targets(clip: ClipTargets) -> PairTargets:
    """Return the targets of a clip of one frame, without a reference."""
    (shown,) = clip.masks.flatten(2).any(dim=2)
    masks, labels = clip.masks[0, shown], clip.labels[0, shown]
    boxes = mask_boxes(masks)
    return PairTargets(boxes, labels, masks, boxes[:0], torch.zeros_like(labels))


def single_frames(clip: ClipTargets) -> list[ClipTargets]:
    """Split a clip of T frames into T clips of one frame."""
    return [ClipTargets(clip.masks[t : t + 1], clip.labels[t : t + 1]) for t in range(len(clip.masks))]


def locations(shape: tuple[int, int], stride: int, device: torch.device | None = None) -> Tensor:
    """Return the centres of the cells of a map as x, y in pixels, `[rows * columns, 2]` float32, by rows."""
    rows, columns = ((torch.arange(side, device=device) + 0.5) * stride for side in shape)
    y, x = torch.meshgrid(rows, columns, indexing="ij")
    return torch.stack([x, y], dim=-1).reshape(-1, 2)


def side_distances(points: Tensor, boxes: Tensor) -> Tensor:
    """Return the distances `[..., 4]` from points `[..., 2]` to the left, top, right and bottom of boxes `[..., 4]`."""
    return torch.cat([points - boxes[..., :2], boxes[..., 2:] - points], dim=-1)


def assign_level(boxes: Tensor, shape: tuple[int, int], level: int, *, radius: float) -> Tensor:
    """Assign an object to each location of one level of one image.

    A location may be assigned to an object if it is strictly inside both the box and a square around the centre of the
    box, and the largest distance to a side is in the range of the level. The object with the smallest box wins.

    Args:
        boxes: `[K, 4]` left, top, right, bottom in pixels.
        shape: Rows and columns of the level.
        level: Position in `STRIDES`.
        radius: Half the side of the square, in strides.

    Returns:
        `[rows * columns]` int64, position of the object, -1 for background.
    """
    points = locations(shape, STRIDES[level], boxes.device)
    if not len(boxes):
        return torch.full((len(points),), -1, dtype=torch.int64, device=boxes.device)
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2
    half = radius * STRIDES[level]
    windows = torch.cat([(centres - half).maximum(boxes[:, :2]), (centres + half).minimum(boxes[:, 2:])], dim=1)
    inside = side_distances(points[:, None], windows).amin(dim=2) > 0
    largest = side_distances(points[:, None], boxes).amax(dim=2)
    fitting = (largest >= SIZE_LIMITS[level]) & (largest <= SIZE_LIMITS[level + 1])
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(dim=1)
    smallest, owner = torch.where(inside & fitting, areas, torch.inf).min(dim=1)
    return torch.where(smallest < torch.inf, owner, -1)


@torch.no_grad()
def assign(shapes: Sequence[tuple[int, int]], boxes: Sequence[Tensor], *, radius: float) -> list[Tensor]:
    """Assign an object to each location of a batch of B images; see `assign_level`.

    Args:
        shapes: Rows and columns of each level.
        boxes: `[K, 4]` of each image.
        radius: Half the side of the region with positive locations, in strides.

    Returns:
        `[B, rows, columns]` int64 per level: position of the object in the targets of the image, -1 for background.
    """
    return [
        torch.stack([assign_level(each, shape, level, radius=radius) for each in boxes]).unflatten(1, shape)
        for level, shape in enumerate(shapes)
    ]


def find_positives(owners: Sequence[Tensor]) -> Positives:
    """Return the locations assigned to an object, from the result of `assign`."""
    found = []
    for level, owner in enumerate(owners):
        image, row, column = (owner >= 0).nonzero(as_tuple=True)
        found.append((torch.full_like(image, level), image, row, column, owner[image, row, column]))
    return Positives(*(torch.cat(parts) for parts in zip(*found, strict=True)))
