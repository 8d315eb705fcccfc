"""Targets of the DefVIS losses, from the ground truth of a clip."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from visdeploy_training.boxes import mask_boxes, to_centres
from visdeploy_training.clip import ClipTargets


class ObjectTargets(NamedTuple):
    """Targets of K objects of a clip of T frames.

    Attributes:
        ids: `[K, T]` int64, class plus one; 0 where the object is absent.
        boxes: `[K, T, 4]`, centre and size (x, y, w, h) as fractions of the input size; zeros where absent.
        masks: `[K, T, H, W]` bool at the size of the network input.
    """

    ids: Tensor
    boxes: Tensor
    masks: Tensor

    @property
    def valid(self) -> Tensor:
        """Presence of each object in each frame: `[K, T]` bool."""
        return self.ids > 0


def object_targets(clip: ClipTargets) -> ObjectTargets:
    """Return the targets of a clip; boxes are the bounding boxes of the masks."""
    masks = clip.masks.transpose(0, 1)
    present = masks.flatten(2).any(dim=2)
    ids = torch.where(present, clip.labels.transpose(0, 1) + 1, 0)
    height, width = masks.shape[-2:]
    size = torch.tensor([width, height, width, height], dtype=torch.float32, device=masks.device)
    return ObjectTargets(ids, to_centres(mask_boxes(masks) / size), masks)
