"""What the losses compare with: the objects of one clip as TeViT sees them (spec section 7)."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from visdeploy_training.boxes import mask_boxes
from visdeploy_training.clip import ClipTargets


class ObjectTargets(NamedTuple):
    """K objects of a clip of T frames.

    Attributes:
        labels: `[K, T]` int64; never used where the object is absent.
        present: `[K, T]` bool.
        boxes: `[K, T, 4]` left, top, right, bottom in pixels of the network input; never used where absent.
        masks: `[K, T, H, W]` bool at the size of the network input.
    """

    labels: Tensor
    present: Tensor
    boxes: Tensor
    masks: Tensor


def object_targets(clip: ClipTargets) -> ObjectTargets:
    """The objects that the clip shows at all; boxes are the tight ones of the masks."""
    masks = clip.masks.transpose(0, 1)
    present = masks.flatten(2).any(dim=2)
    seen = present.any(dim=1)
    masks = masks[seen]
    return ObjectTargets(clip.labels.transpose(0, 1)[seen], present[seen], mask_boxes(masks), masks)
