"""What a training clip is: the contract between data sets, engine and losses."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from visdeploy.errors import DataError


@dataclass(frozen=True)
class ClipTargets:
    """Ground truth of one training clip; row k is the same object in all T frames.

    Attributes:
        masks: `[T, K, H, W]` bool at the size of the network input; empty where the object is absent.
        labels: `[T, K]` int64; the value where the object is absent is never used.
    """

    masks: Tensor
    labels: Tensor

    def __post_init__(self) -> None:
        if self.masks.ndim != 4 or self.labels.shape != self.masks.shape[:2]:
            raise DataError(
                "malformed clip targets",
                seen=f"masks {tuple(self.masks.shape)}, labels {tuple(self.labels.shape)}",
                expected="[T, K, H, W] and [T, K]",
            )


@dataclass(frozen=True)
class ClipBatch:
    """B clips of T frames of one size.

    Attributes:
        images: RGB `[B, T, 3, H, W]` uint8, not normalised.
        targets: One entry a clip.
    """

    images: Tensor
    targets: tuple[ClipTargets, ...]

    def pin_memory(self) -> ClipBatch:
        """The same in page-locked memory; the data loader calls this."""
        pinned = (ClipTargets(t.masks.pin_memory(), t.labels.pin_memory()) for t in self.targets)
        return ClipBatch(self.images.pin_memory(), tuple(pinned))
