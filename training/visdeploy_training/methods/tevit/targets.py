"""Targets of the TeViT losses, from the ground truth of a clip."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from visdeploy_training.boxes import mask_boxes
from visdeploy_training.clip import ClipTargets


class ObjectTargets(NamedTuple):
    """Targets of K objects of a clip of T frames.

    Attributes:
        labels: `[K, T]` int64; ignored where the object is absent.
        present: `[K, T]` bool, whether the object is present.
        boxes: `[K, T, 4]` left, top, right, bottom in pixels of the network input; ignored where absent.
        masks: `[K, T, H, W]` bool at the size of the network input.
    """

    labels: Tensor
    present: Tensor
    boxes: Tensor
    masks: Tensor


def object_targets(clip: ClipTargets) -> ObjectTargets:
    """Return the targets of the objects present in the clip; boxes are the bounding boxes of the masks."""
    masks = clip.masks.transpose(0, 1)
    present = masks.flatten(2).any(dim=2)
    seen = present.any(dim=1)
    masks = masks[seen]
    return ObjectTargets(clip.labels.transpose(0, 1)[seen], present[seen], mask_boxes(masks), masks)
