"""Validation clips: unchanged frames for videos, a moving window with a fixed seed for images."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from visdeploy.masks import Mask
from visdeploy_training.datasets.clips import load_clip
from visdeploy_training.datasets.images import ImageStore
from visdeploy_training.datasets.records import ClipRecord, InstanceRecord
from visdeploy_training.datasets.transforms import MovingWindow


@dataclass(frozen=True)
class ValidationClip:
    """Clip for validation, with its ground truth.

    Attributes:
        record: Name, size and objects.
        images: `[T, H, W, 3]` uint8 RGB; None if the frames are read from the files of the record.
    """

    record: ClipRecord
    images: npt.NDArray[np.uint8] | None = None

    def frames(self) -> Iterator[npt.NDArray[np.uint8]]:
        """Yield the frames in order, RGB uint8 `[H, W, 3]`."""
        if self.images is not None:
            yield from self.images
            return
        store = ImageStore()
        for file in self.record.files:
            image = store(file, self.record.height, self.record.width, shrink=self.record.shrink)
            yield image.permute(1, 2, 0).contiguous().numpy()


def pseudo_video(record: ClipRecord, *, frames: int, seed: int, height: int = 360, width: int = 640) -> ValidationClip:
    """Create a clip from an image: a window pans and zooms smoothly over it, in the same way for the same seed.

    An object is absent in frames whose window does not contain it, and dropped if no window contains it.

    Args:
        record: An image.
        frames: Number of frames of the clip.
        seed: Seed of all random numbers.
        height: Rows of the frames of the clip.
        width: Columns of the frames of the clip.
    """
    window = MovingWindow(
        height=height, width=width, zoom=(0.75, 1.0), motion=0.15, rotation=0.0, aspect=0.0, on_object=0.0
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        clip = window(load_clip(record, [0] * frames, ImageStore(keep=True)))
    images = torch.stack([image.as_subclass(torch.Tensor) for image, _ in clip]).permute(0, 2, 3, 1).contiguous()
    instances = []
    for k, instance in enumerate(record.instances):
        masks = tuple(Mask.encode(m[k].numpy()) if m[k].any() else None for _, m in clip)
        if any(m is not None for m in masks):
            instances.append(InstanceRecord(instance.label, masks))
    files = tuple(Path(f"{t:05d}") for t in range(frames))
    return ValidationClip(ClipRecord(record.name, height, width, files, tuple(instances)), images.numpy())


def validation_clips(records: Sequence[ClipRecord], *, pseudo_frames: int) -> list[ValidationClip]:
    """Return videos unchanged, and images (records of one frame) as pseudo-videos of `pseudo_frames` frames."""
    return [
        ValidationClip(r) if len(r) > 1 else pseudo_video(r, frames=pseudo_frames, seed=index)
        for index, r in enumerate(records)
    ]
