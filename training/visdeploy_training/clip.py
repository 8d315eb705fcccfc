"""Training clips, the interface between data sets, training engine and losses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from visdeploy.errors import DataError


@dataclass(frozen=True)
class ClipTargets:
    """Ground truth of one training clip; index k denotes the same object in all T frames.

    Attributes:
        masks: `[T, K, H, W]` bool at the size of the network input; empty where the object is absent.
        labels: `[T, K]` int64; values are ignored where the object is absent.
        ignore: `[T, H, W]` bool, pixels without a known label, for methods whose losses exclude them; None if all are
            known.
    """

    masks: Tensor
    labels: Tensor
    ignore: Tensor | None = None

    def __post_init__(self) -> None:
        if self.masks.ndim != 4 or self.labels.shape != self.masks.shape[:2]:
            raise DataError(
                "malformed clip targets",
                seen=f"masks {tuple(self.masks.shape)}, labels {tuple(self.labels.shape)}",
                expected="[T, K, H, W] and [T, K]",
            )
        frames = (self.masks.shape[0], *self.masks.shape[2:])
        if self.ignore is not None and self.ignore.shape != frames:
            raise DataError(
                "malformed clip targets", seen=f"ignore {tuple(self.ignore.shape)}", expected=f"{tuple(frames)}"
            )

    def pin_memory(self) -> ClipTargets:
        """Return a copy in page-locked memory."""
        ignore = None if self.ignore is None else self.ignore.pin_memory()
        return ClipTargets(self.masks.pin_memory(), self.labels.pin_memory(), ignore)

    def to(self, device: torch.device) -> ClipTargets:
        """Return a copy on another device."""
        ignore = None if self.ignore is None else self.ignore.to(device)
        return ClipTargets(self.masks.to(device), self.labels.to(device), ignore)


@dataclass(frozen=True)
class ClipBatch:
    """Batch of B clips of T frames, padded at the right and bottom to a common size.

    Attributes:
        images: RGB `[B, T, 3, H, W]` uint8, not normalised; padding is 0.
        targets: One entry per clip.
        sizes: Rows and columns of each clip without padding.
    """

    images: Tensor
    targets: tuple[ClipTargets, ...]
    sizes: tuple[tuple[int, int], ...]

    def pin_memory(self) -> ClipBatch:
        """Return a copy in page-locked memory; called by the data loader."""
        return ClipBatch(self.images.pin_memory(), tuple(t.pin_memory() for t in self.targets), self.sizes)

    def to(self, device: torch.device) -> ClipBatch:
        """Return a copy on another device."""
        moved = tuple(t.to(device) for t in self.targets)
        return ClipBatch(self.images.to(device, non_blocking=True), moved, self.sizes)


def check_targets(targets: Sequence[ClipTargets], shape: tuple[int, int, int, int], *, num_classes: int) -> None:
    """Check that targets match a batch.

    Args:
        targets: One entry per clip.
        shape: Clips, frames, height and width of the batch.
        num_classes: Number of classes; labels of present objects must be smaller.

    Raises:
        DataError: Targets and batch differ in number of clips, of frames or in size, or a label is out of range.
    """
    if not targets:
        raise DataError("targets do not match the batch", seen="no clip", expected=f"{shape[0]}")
    for t in targets:
        seen = (len(targets), t.masks.shape[0], *t.masks.shape[2:])
        if seen != shape:
            raise DataError(
                "targets do not match the batch (clips, frames, height, width)", seen=f"{seen}", expected=f"{shape}"
            )
        present = t.labels[t.masks.flatten(2).any(dim=2)]
        if present.numel() and not 0 <= int(present.min()) <= int(present.max()) < num_classes:
            raise DataError(
                "a label of the targets is out of range",
                seen=f"{int(present.min())}..{int(present.max())}",
                expected=f"0..{num_classes - 1}",
            )
