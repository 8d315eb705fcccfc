"""Resizing, flips and rotations."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch.nn.functional import interpolate
from torchvision import tv_tensors
from torchvision.transforms.v2 import functional as F

from visdeploy.streaming.preprocessing import fitted_size
from visdeploy_training.datasets.transforms.base import (
    BILINEAR,
    INPUT,
    Clip,
    FrameSize,
    Side,
    Transform,
    pixels,
    resized,
    size_of,
    uniform,
)
from visdeploy_training.datasets.transforms.registry import register

Pixels = Annotated[int, Field(ge=1)]


@register
class Resize(Transform):
    """Resize the shorter edge to a size drawn once for the clip, then enlarge each edge that is too short.

    `input` is the shorter or longer side of the input of the network, and for `larger_than` its rows or columns.

    Attributes:
        shorter: Sizes to draw from.
        longest: Maximum longer edge; no limit by default.
        larger_than: Rows and columns that the result must exceed; enlarging one edge changes the aspect ratio.
    """

    name: ClassVar[str] = "resize"
    shorter: Annotated[tuple[Side, ...], Field(min_length=1)]
    longest: Side | None = None
    larger_than: tuple[Side, Side] | None = None

    def __call__(self, clip: Clip) -> Clip:
        """Return frames of one new size."""
        height, width = size_of(clip[0])
        scale = pixels(self.shorter[int(torch.randint(len(self.shorter), ()))]) / min(height, width)
        if self.longest is not None:
            scale = min(scale, pixels(self.longest) / max(height, width))
        least = [pixels(side) + 1 for side in self.larger_than or (0, 0)]
        rows, columns = max(least[0], int(height * scale + 0.5)), max(least[1], int(width * scale + 0.5))
        return resized(clip, rows, columns, antialias=True)

    def sized(self, height: int, width: int) -> Transform:
        """Return this transform with the input size of the network in place of `input`."""
        changes: dict[str, object] = {
            "shorter": tuple(min(height, width) if side == INPUT else side for side in self.shorter),
            "longest": max(height, width) if self.longest == INPUT else self.longest,
        }
        if self.larger_than is not None:
            pairs = zip(self.larger_than, (height, width), strict=True)
            changes["larger_than"] = tuple(own if side == INPUT else side for side, own in pairs)
        return self.model_copy(update=changes)

    def output_size(self, size: FrameSize | None) -> FrameSize | None:
        """Return None: the size depends on the clip."""
        return None


@register
class Rescale(Transform):
    """Resize a clip to fit a longer and a shorter edge drawn once, keeping its aspect ratio.

    Attributes:
        limits: Pairs of a longer and a shorter edge.
        between: Draw each edge independently, from the integers between its minimum and maximum in `limits`; otherwise
            draw one of the pairs.
        antialias: Smooth images before they are made smaller, as PIL does. Off by default, as in recipes that resize
            with OpenCV.
    """

    name: ClassVar[str] = "rescale"
    limits: Annotated[tuple[tuple[Pixels, Pixels], ...], Field(min_length=1)]
    between: bool = False
    antialias: bool = False

    def __call__(self, clip: Clip) -> Clip:
        """Return frames of one new size."""
        height, width = size_of(clip[0])
        longer, shorter = self._draw()
        scale = min(longer / max(height, width), shorter / min(height, width))
        return resized(clip, int(height * scale + 0.5), int(width * scale + 0.5), antialias=self.antialias)

    def _draw(self) -> tuple[int, int]:
        if not self.between:
            return self.limits[int(torch.randint(len(self.limits), ()))]
        longer, shorter = (int(torch.randint(min(edge), max(edge) + 1, ())) for edge in zip(*self.limits, strict=True))
        return longer, shorter

    def output_size(self, size: FrameSize | None) -> FrameSize | None:
        """Return None: the size depends on the clip."""
        return None


@register
class Fit(Transform):
    """Resize the shorter edge to a size, or the longer edge to its limit if it would exceed it.

    This is the resizing of STEm-Seg (Athar et al., ECCV 2020): sides are rounded to the nearest whole number, halves to
    the even one; masks are interpolated as well and cut at 0.5.

    Attributes:
        shorter: Length of the shorter edge.
        longest: Maximum length of the longer edge.
    """

    name: ClassVar[str] = "fit"
    shorter: Pixels
    longest: Pixels

    def __call__(self, clip: Clip) -> Clip:
        """Return frames of one new size."""
        rows, columns = fitted_size(*size_of(clip[0]), shorter=self.shorter, longest=self.longest)
        images = resized([(image, masks[:0]) for image, masks in clip], rows, columns, antialias=False)
        return [
            (image, tv_tensors.Mask(_interpolated(masks, rows, columns)))
            for (image, _), (_, masks) in zip(images, clip, strict=True)
        ]

    def output_size(self, size: FrameSize | None) -> FrameSize | None:
        """Return None: the size depends on the clip."""
        return None


def _interpolated(masks: torch.Tensor, rows: int, columns: int) -> torch.Tensor:
    """Resize masks `[K, H, W]` uint8 with bilinear interpolation."""
    values = masks.as_subclass(torch.Tensor).float()[None]
    found = interpolate(values, (rows, columns), mode="bilinear", align_corners=False)[0] > 0.5
    return found.to(masks.dtype)


@register
class Flip(Transform):
    """Flip horizontally with probability 0.5.

    Attributes:
        mode: Decide once for the clip, or independently for each frame.
    """

    name: ClassVar[str] = "flip"
    mode: Literal["clip", "frame"] = "clip"

    def __call__(self, clip: Clip) -> Clip:
        """Return the clip, flipped or not."""
        draws = [uniform(0, 1) < 0.5 for _ in clip] if self.mode == "frame" else [uniform(0, 1) < 0.5] * len(clip)
        return [(F.hflip(f[0]), F.hflip(f[1])) if flip else f for f, flip in zip(clip, draws, strict=True)]


@register
class Rotate(Transform):
    """Rotate each frame by an independent uniform angle; the frame is enlarged, and its new corners are black.

    Attributes:
        degrees: Maximum angle in both directions.
    """

    name: ClassVar[str] = "rotate"
    degrees: Annotated[float, Field(gt=0, le=180)] = 15.0

    def __call__(self, clip: Clip) -> Clip:
        """Return the rotated frames; their sizes differ."""
        turned = []
        for image, masks in clip:
            angle = uniform(-self.degrees, self.degrees)
            turned.append((F.rotate(image, angle, interpolation=BILINEAR, expand=True),
                           F.rotate(masks, angle, expand=True)))  # fmt: skip
        return turned

    def output_size(self, size: FrameSize | None) -> FrameSize | None:
        """Return None: the size depends on the angle."""
        return None
