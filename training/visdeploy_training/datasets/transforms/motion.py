"""Moving window over a clip or an image: smooth pan, zoom and rotation, resampled to the size of the network.

It creates pseudo-videos from images, and scale jitter for small data sets. No published recipe uses it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from pydantic import Field, model_validator
from torchvision.transforms.v2 import functional as F

from visdeploy_training.datasets.transforms.base import BILINEAR, Clip, FixedOutput, Frame, pixels, size_of, uniform
from visdeploy_training.datasets.transforms.registry import register

Share = Annotated[float, Field(ge=0, le=1)]
FILL = [124.0, 116.0, 104.0]


@dataclass(frozen=True)
class Window:
    """Position of the window in a frame, in pixels and degrees."""

    x: float
    y: float
    width: float
    height: float
    angle: float

    def toward(self, other: Window, share: float) -> Window:
        """Interpolate linearly: share 0 is this window, 1 the other one."""
        pairs = ((getattr(self, n), getattr(other, n)) for n in ("x", "y", "width", "height", "angle"))
        return Window(*(a + (b - a) * share for a, b in pairs))


@register
class MovingWindow(FixedOutput):
    """Crop to a window that moves from a random start to a random end, and resize to the output.

    Attributes:
        zoom: Minimum and maximum side of the window, as a share of the side of the image.
        motion: Maximum shift, as a share of the window, and maximum change of its size (as a logarithm).
        rotation: Maximum angle, in degrees.
        aspect: Maximum change of the aspect ratio (as a logarithm), in addition to that from the image to the output.
        on_object: Probability that the window starts around an object.
    """

    name: ClassVar[str] = "moving_window"
    zoom: tuple[Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)]] = (0.5, 1.2)
    motion: Share = 0.2
    rotation: Annotated[float, Field(ge=0, le=180)] = 10.0
    aspect: Share = 0.2
    on_object: Share = 0.5

    @model_validator(mode="after")
    def _ordered(self) -> MovingWindow:
        if self.zoom[0] > self.zoom[1]:
            raise ValueError("zoom: the first number must not exceed the second")
        return self

    def __call__(self, clip: Clip) -> Clip:
        """Return frames of `height` x `width`; the window moves at constant speed from the first to the last frame."""
        start, end = self._path(clip)
        last = max(1, len(clip) - 1)
        return [self._cut(frame, start.toward(end, t / last)) for t, frame in enumerate(clip)]

    def _path(self, clip: Clip) -> tuple[Window, Window]:
        rows, columns = size_of(clip[0])
        own, out = math.log(columns / rows), math.log(pixels(self.width) / pixels(self.height))
        low, high = min(own, out) - self.aspect, max(own, out) + self.aspect
        stretch = math.exp(uniform(low, high) - own)
        zoom = math.exp(uniform(math.log(self.zoom[0]), math.log(self.zoom[1])))
        size = (columns * zoom * math.sqrt(stretch), rows * zoom / math.sqrt(stretch))
        x, y = self._centre(clip, size)
        start = Window(x, y, *size, uniform(-self.rotation, self.rotation))
        grow = math.exp(uniform(-self.motion, self.motion))
        end = Window(
            x + size[0] * uniform(-self.motion, self.motion),
            y + size[1] * uniform(-self.motion, self.motion),
            size[0] * grow,
            size[1] * grow,
            start.angle + self.rotation * uniform(-self.motion, self.motion),
        )
        return (start, end) if uniform(0, 1) < 0.5 else (end, start)

    def _centre(self, clip: Clip, size: tuple[float, float]) -> tuple[float, float]:
        """Draw a centre near an object, or any that keeps the window in the image (or the image in the window)."""
        rows, columns = size_of(clip[0])
        limits = [sorted((s / 2, full - s / 2)) for s, full in zip(size, (columns, rows), strict=True)]
        masks = clip[0][1]
        present = masks.flatten(1).any(dim=1).nonzero().flatten() if len(masks) else torch.zeros(0)
        if len(present) and uniform(0, 1) < self.on_object:
            mask = masks[int(present[int(torch.randint(len(present), ()))])]
            ys, xs = mask.nonzero(as_tuple=True)
            near = (float(xs.float().mean()), float(ys.float().mean()))
            shift = [0.35 * s * uniform(-1, 1) for s in size]
            x, y = (min(max(n + d, lo), hi) for n, d, (lo, hi) in zip(near, shift, limits, strict=True))
            return x, y
        return uniform(*limits[0]), uniform(*limits[1])

    def _cut(self, frame: Frame, window: Window) -> Frame:
        left, top = round(window.x - window.width / 2), round(window.y - window.height / 2)
        box = (top, left, max(1, round(window.height)), max(1, round(window.width)))
        rows, columns = size_of(frame)
        inside = top >= 0 and left >= 0 and top + box[2] <= rows and left + box[3] <= columns
        image, masks = frame
        if not inside:  # torchvision fills with black; the mean colour is neutral after normalisation
            sides = [max(0, -left), max(0, -top), max(0, left + box[3] - columns), max(0, top + box[2] - rows)]
            image, masks = F.pad(image, sides, fill=FILL), F.pad(masks, sides)
            box = (top + sides[1], left + sides[0], box[2], box[3])
        size = [pixels(self.height), pixels(self.width)]
        image = F.resized_crop(image, *box, size, interpolation=BILINEAR, antialias=True)
        masks = F.resized_crop(masks, *box, size)
        if abs(window.angle) < 0.5:
            return image, masks
        return F.rotate(image, window.angle, interpolation=BILINEAR, fill=FILL), F.rotate(masks, window.angle)
