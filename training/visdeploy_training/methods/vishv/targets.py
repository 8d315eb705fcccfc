"""Targets of the VIShv losses at a quarter of the input size."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from visdeploy_training.clip import ClipTargets


class QuarterTargets(NamedTuple):
    """Targets of one clip of T frames with K objects that have at least one pixel.

    Attributes:
        masks: `[K, T, h, w]` bool.
        categories: `[K]` int64, label plus one.
        ignore: `[T, h, w]` bool, pixels without a known label.
    """

    masks: Tensor
    categories: Tensor
    ignore: Tensor

    @property
    def semantic(self) -> Tensor:
        """Category of each pixel, `[T, h, w]` int64; 0 is background. Where objects overlap, the largest one counts."""
        if not len(self.masks):
            return torch.zeros(self.ignore.shape, dtype=torch.int64, device=self.ignore.device)
        return (self.masks * self.categories.view(-1, 1, 1, 1)).amax(dim=0)


def quarter_masks(masks: Tensor) -> Tensor:
    """Reduce masks to a quarter of their size: a pixel is set only if the four central ones of its 4x4 block are.

    This equals a bilinear interpolation that is truncated to integers, as in the published implementation.

    Args:
        masks: `[..., H, W]` bool, H and W multiples of 4.

    Returns:
        `[..., H / 4, W / 4]` bool.
    """
    rows = masks[..., 1::4, :] & masks[..., 2::4, :]
    return rows[..., 1::4] & rows[..., 2::4]


def quarter_targets(clip: ClipTargets) -> QuarterTargets:
    """Return the targets of a clip; objects that are absent or vanish at a quarter of the size are left out."""
    masks = quarter_masks(clip.masks.transpose(0, 1))
    present = clip.masks.flatten(2).any(dim=2)
    # labels of frames without the object are undefined
    categories = torch.where(present, clip.labels + 1, 0).amax(dim=0)
    seen = masks.flatten(1).any(dim=1)
    ignore = clip.ignore
    if ignore is None:
        ignore = torch.zeros((len(clip.masks), *clip.masks.shape[2:]), dtype=torch.bool, device=clip.masks.device)
    return QuarterTargets(masks[seen], categories[seen], quarter_masks(ignore))


def frame_unions(targets: Sequence[ClipTargets]) -> Tensor:
    """Return the union of the masks of each frame at the input size, float `[B * T, 1, H, W]`, sorted by clip."""
    return torch.cat([clip.masks.any(dim=1, keepdim=True) for clip in targets]).float()
