"""Crops at random positions."""

from __future__ import annotations

from typing import Annotated, ClassVar

import torch
from pydantic import Field, model_validator
from torchvision.transforms.v2 import functional as F

from visdeploy_training.datasets.transforms.base import Clip, FixedOutput, FrameSize, Transform, pixels, size_of
from visdeploy_training.datasets.transforms.registry import register


@register
class Crop(FixedOutput):
    """Crop each frame at an independent uniform position; frames must be at least as large as the crop."""

    name: ClassVar[str] = "crop"

    def __call__(self, clip: Clip) -> Clip:
        """Return frames of `height` x `width`."""
        height, width = pixels(self.height), pixels(self.width)
        cut = []
        for frame in clip:
            rows, columns = size_of(frame)
            top = int(torch.randint(max(0, rows - height) + 1, ()))
            left = int(torch.randint(max(0, columns - width) + 1, ()))
            cut.append((F.crop(frame[0], top, left, height, width), F.crop(frame[1], top, left, height, width)))
        return cut


@register
class CropBetween(Transform):
    """Crop all frames to one window of random size and position.

    Attributes:
        smallest: Minimum side; the side of the frame if that is smaller.
        largest: Maximum side.
    """

    name: ClassVar[str] = "crop_between"
    smallest: Annotated[int, Field(ge=1)]
    largest: Annotated[int, Field(ge=1)]

    @model_validator(mode="after")
    def _ordered(self) -> CropBetween:
        if self.smallest > self.largest:
            raise ValueError("smallest must not exceed largest")
        return self

    def __call__(self, clip: Clip) -> Clip:
        """Return frames of one size."""
        window = []
        for side in size_of(clip[0]):
            most = min(side, self.largest)
            length = int(torch.randint(min(self.smallest, most), most + 1, ()))
            window.append((int(torch.randint(side - length + 1, ())), length))
        (top, rows), (left, columns) = window
        return [(F.crop(i, top, left, rows, columns), F.crop(m, top, left, rows, columns)) for i, m in clip]

    def output_size(self, size: FrameSize | None) -> FrameSize | None:
        """Return None: the size is random."""
        return None
