"""Changes of the pixels of one image: brightness, hue and saturation, motion blur. Images are `[3, H, W]` uint8 RGB."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as V

HALF_CIRCLE = 255
"""Half of the circle of hues in the unit of `add_hue_and_saturation`."""


def add_brightness(image: Tensor, value: int) -> Tensor:
    """Add a number to all channels."""
    return (image.to(torch.int16) + value).clamp(0, 255).to(torch.uint8)


def add_hue_and_saturation(image: Tensor, value: int) -> Tensor:
    """Add a number to hue and saturation of an image whose first and last channel are exchanged for it.

    STEm-Seg computes the change of BGR images as if they were RGB.

    Args:
        image: The image.
        value: Number, of which 255 are half of the circle of hues, or the whole range of the saturation.
    """
    planes = image.flip(0).float() / 255
    top, span, hue = _top_span_hue(planes)
    saturation = (torch.where(top > 0, span / top.clamp(min=1e-6), 0) + value / 255).clamp(0, 1)
    changed = _planes(top, top * saturation, hue + 3 * value / HALF_CIRCLE)
    return (changed.flip(0) * 255).round().clamp(0, 255).to(torch.uint8)


def scale_saturation(planes: Tensor, factor: float, shift: float) -> Tensor:
    """Multiply the saturation of HSV by a factor, and shift the hue; the largest channel of a pixel keeps its value.

    Args:
        planes: `[3, H, W]`, float.
        factor: Factor of the saturation.
        shift: Shift of the hue, as a share of the circle.
    """
    top, span, hue = _top_span_hue(planes)
    return _planes(top, span * factor, hue + 6 * shift)


def _top_span_hue(planes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the largest channel, its distance from the smallest, and the hue in sixths of the circle."""
    top, low = planes.amax(dim=0), planes.amin(dim=0)
    span = top - low
    first, second, third = planes
    safe = span.clamp(min=1e-6)
    sector = torch.where(top == second, 2 + (third - first) / safe, 4 + (first - second) / safe)
    sector = torch.where(top == first, (second - third) / safe, sector)
    return top, span, torch.where(span > 0, sector, 0)


def _planes(top: Tensor, span: Tensor, hue: Tensor) -> Tensor:
    """Return the channels of pixels described as by `_top_span_hue`."""
    offsets = (hue + torch.tensor([5.0, 3.0, 1.0])[:, None, None]) % 6
    return top - span * torch.minimum(offsets, 4 - offsets).clamp(0, 1)


def motion_blur(image: Tensor, size: int, angle: float) -> Tensor:
    """Blur along a line.

    Args:
        image: The image.
        size: Length of the line, in pixels; odd.
        angle: Angle of the line from the vertical, in radians.
    """
    kernel = torch.zeros(1, size, size)
    kernel[:, :, size // 2] = 1
    kernel = V.rotate(kernel, math.degrees(angle), interpolation=InterpolationMode.BILINEAR)
    kernel = (kernel / kernel.sum()).expand(3, 1, size, size)
    padded = F.pad(image[None].float(), [size // 2] * 4, mode="replicate")
    return F.conv2d(padded, kernel, groups=3)[0].round().to(torch.uint8)
