"""Clips from images by independent changes of each frame, as in STEm-Seg (Athar et al., ECCV 2020)."""

from __future__ import annotations

import math
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as V

from visdeploy_training.datasets.transforms.base import BILINEAR, Clip, Transform, uniform
from visdeploy_training.datasets.transforms.pixels import add_brightness, add_hue_and_saturation, motion_blur
from visdeploy_training.datasets.transforms.registry import register

Share = Annotated[float, Field(ge=0, le=1)]
Channel = Annotated[int, Field(ge=0, le=255)]
BLUR_SIZES = (9, 11)


@register
class SyntheticClip(Transform):
    """Replace a clip by its first frame and changed copies of it, in random order.

    All frames are flipped together with probability 0.5. In a copy, first the colour changes (brightness, or hue and
    saturation, or both), then a perspective moves the corners inward, then the frame is shifted and rotated, then it is
    blurred with the probability `blur`. Where objects overlap, the last one counts.

    Attributes:
        rotation: Maximum angle in both directions, in degrees.
        shift: Maximum shift in both directions, as a share of the side; one share is drawn for both sides.
        perspective: Standard deviation of the shift of each coordinate of a corner, as a share of the side.
        blur: Probability of motion blur.
        brightness: Maximum change of all channels, in both directions.
        colour: Maximum change of the hue, of which 510 are the colour circle, and of the saturation, of 0..255.
        fill: RGB colour of pixels without source; the mean of the normalisation, so that they become 0.
    """

    name: ClassVar[str] = "synthetic_clip"
    rotation: Annotated[float, Field(ge=0, le=180)] = 12.0
    shift: Share = 0.1
    perspective: Annotated[float, Field(ge=0, le=0.2)] = 0.08
    blur: Share = 0.25
    brightness: Annotated[int, Field(ge=0, le=255)] = 40
    colour: Annotated[int, Field(ge=0, le=255)] = 5
    fill: tuple[Channel, Channel, Channel] = (123, 116, 103)

    def __call__(self, clip: Clip) -> Clip:
        """Return frames of the same size."""
        image, masks = (plane.as_subclass(torch.Tensor) for plane in clip[0])
        index = _index_map(masks)
        if uniform(0, 1) < 0.5:
            image, index = image.flip(-1), index.flip(-1)
        frames = [(image, index), *(self._changed(image, index) for _ in clip[1:])]
        order = torch.randperm(len(frames)).tolist()
        numbers = torch.arange(1, len(masks) + 1)[:, None, None]
        return [
            (tv_tensors.Image(frames[i][0]), tv_tensors.Mask((frames[i][1] == numbers).to(masks.dtype))) for i in order
        ]

    def _changed(self, image: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
        """Return a changed copy of an image `[3, H, W]` uint8 and of an index map `[H, W]`."""
        image = self._coloured(image)
        planes = torch.stack([index, torch.ones_like(index)]).float()
        rows, columns = index.shape
        start, end = _corners(rows, columns, self.perspective)
        image = V.perspective(image, start, end, interpolation=BILINEAR)
        planes = V.perspective(planes, start, end, interpolation=InterpolationMode.NEAREST)
        angle, share = uniform(-self.rotation, self.rotation), uniform(-self.shift, self.shift)
        place = {"angle": angle, "translate": [share * columns, share * rows], "scale": 1.0, "shear": [0.0, 0.0]}
        image = V.affine(image, **place, interpolation=BILINEAR, fill=[float(v) for v in self.fill])
        planes = V.affine(planes, **place, interpolation=InterpolationMode.NEAREST)
        if uniform(0, 1) < self.blur:
            size = BLUR_SIZES[int(torch.randint(len(BLUR_SIZES), ()))]
            image = motion_blur(image, size, uniform(0, 2 * math.pi))
        fill = torch.tensor(self.fill, dtype=image.dtype)[:, None, None]
        return torch.where(planes[1] > 0, image, fill), planes[0].round().to(index.dtype)

    def _coloured(self, image: Tensor) -> Tensor:
        kind = int(torch.randint(4, ()))  # both changes in half of the cases, otherwise one of them
        if kind != 0:
            image = add_brightness(image, int(torch.randint(-self.brightness, self.brightness + 1, ())))
        if kind != 1:
            image = add_hue_and_saturation(image, int(torch.randint(-self.colour, self.colour + 1, ())))
        return image


def _index_map(masks: Tensor) -> Tensor:
    """Return the number of the last mask of each pixel plus one, 0 without mask; `[H, W]` int64 from `[K, H, W]`."""
    numbers = torch.arange(1, len(masks) + 1)[:, None, None]
    return (masks.bool() * numbers).amax(dim=0)


def _corners(rows: int, columns: int, deviation: float) -> tuple[list[list[int]], list[list[int]]]:
    """Draw the places of the corners of the result in the source, and return them with those of the result."""
    right, bottom = columns - 1, rows - 1
    end = [[0, 0], [right, 0], [right, bottom], [0, bottom]]
    # less than half of the side, so that corners keep their order
    inward = (torch.randn(4, 2) * deviation).abs().clamp(max=0.45)
    start = []
    for (x, y), (dx, dy) in zip(end, inward.tolist(), strict=True):
        start.append([round(abs(x - dx * columns)), round(abs(y - dy * rows))])
    return start, end
