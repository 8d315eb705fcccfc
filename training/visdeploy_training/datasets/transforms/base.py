"""Base classes of the augmentations of clips, and common functions.

A clip is a list of frames; a frame is an image `[3, H, W]` uint8 and the masks of the clip's K objects `[K, H, W]`
uint8, both as torchvision tensors, so that torchvision resamples masks with nearest-neighbour interpolation.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Annotated, Any, ClassVar, Literal, TypeAlias

import torch
from pydantic import BaseModel, ConfigDict, PlainValidator
from torchvision import tv_tensors
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as F

from visdeploy.errors import ConfigError

Frame: TypeAlias = tuple[tv_tensors.Image, tv_tensors.Mask]
Clip: TypeAlias = list[Frame]
INPUT: Literal["input"] = "input"
BILINEAR = InterpolationMode.BILINEAR


def _side(value: Any) -> Any:
    if value == INPUT or (isinstance(value, int) and not isinstance(value, bool) and value >= 1):
        return value
    raise ValueError("expected a number of pixels, at least 1, or `input` for the input size of the network")


Side: TypeAlias = Annotated[int | Literal["input"], PlainValidator(_side)]
"""Number of pixels; `input` is the corresponding side of the input of the network."""
FrameSize: TypeAlias = tuple[int | Literal["input"], int | Literal["input"]]
"""Rows and columns."""


class Transform(BaseModel):
    """Augmentation of a clip; its fields are its parameters in recipes.

    Draw all random numbers from torch's global generator, which the data set seeds for each sample. A transform of
    another package is a subclass, registered by an entry point of the group `visdeploy.transforms` with its `name`.

    Attributes:
        name: Name in recipes.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
    name: ClassVar[str]

    @abstractmethod
    def __call__(self, clip: Clip) -> Clip:
        """Return the augmented clip; all frames keep their number of masks."""

    def sized(self, height: int, width: int) -> Transform:
        """Return this transform with the input size of the network in place of `input`.

        Args:
            height: Rows of the input of the network.
            width: Columns of the input of the network.
        """
        return self

    def output_size(self, size: FrameSize | None) -> FrameSize | None:
        """Return the size of the frames after this transform, or None if it depends on the clip or on random numbers.

        Args:
            size: Size of the frames before this transform; None if it differs between clips.
        """
        return size


class FixedOutput(Transform):
    """Base class of transforms that return frames of a fixed size, by default the input size of the network.

    Attributes:
        height: Rows of the output.
        width: Columns of the output.
    """

    height: Side = INPUT
    width: Side = INPUT

    def sized(self, height: int, width: int) -> Transform:
        """Return this transform with the input size of the network in place of `input`."""
        own = {"height": height, "width": width}
        return self.model_copy(update={name: side for name, side in own.items() if getattr(self, name) == INPUT})

    def output_size(self, size: FrameSize | None) -> FrameSize | None:
        """Return the size of the output."""
        return self.height, self.width


def pixels(side: int | Literal["input"]) -> int:
    """Return a side in pixels.

    Raises:
        ConfigError: It is `input`.
    """
    if side == INPUT:
        raise ConfigError(
            "the input size of the network is not known to a transform", hint="Call `sized` before the transform."
        )
    return side


def uniform(low: float, high: float) -> float:
    """Draw one number from `[low, high)`."""
    return low + (high - low) * float(torch.rand(()))


def size_of(frame: Frame) -> tuple[int, int]:
    """Return rows and columns."""
    return int(frame[0].shape[-2]), int(frame[0].shape[-1])


def resized(clip: Clip, rows: int, columns: int, *, antialias: bool) -> Clip:
    """Resize images with bilinear and masks with nearest-neighbour interpolation."""
    size = [rows, columns]
    return [
        (F.resize(image, size, interpolation=BILINEAR, antialias=antialias), F.resize(masks, size))
        for image, masks in clip
    ]
