"""Changes of colour, which do not affect masks."""

from __future__ import annotations

from typing import Annotated, ClassVar

import torch
from pydantic import Field, model_validator
from torchvision import tv_tensors
from torchvision.transforms import v2

from visdeploy_training.datasets.transforms.base import Clip, Transform
from visdeploy_training.datasets.transforms.pixels import scale_saturation
from visdeploy_training.datasets.transforms.registry import register

Factor = Annotated[float, Field(ge=0)]
Hue = Annotated[float, Field(ge=-0.5, le=0.5)]


@register
class PhotometricDistort(Transform):
    """Change brightness, contrast, saturation, hue and the order of channels, independently for each frame.

    This is the distortion of SSD (Liu et al., ECCV 2016), which DefVIS uses. Values are not limited to 0..255 between
    the changes. The contrast is changed before or after saturation and hue, with equal probability.

    Attributes:
        brightness: Minimum and maximum of a number whose excess over 1, times 255, is added to all values.
        contrast: Minimum and maximum factor of all values.
        saturation: Minimum and maximum factor of the saturation of HSV.
        hue: Minimum and maximum shift, as a share of the colour circle.
        probability: Probability of each of the changes.
    """

    name: ClassVar[str] = "photometric_distort"
    brightness: tuple[Factor, Factor] = (1 - 32 / 255, 1 + 32 / 255)
    contrast: tuple[Factor, Factor] = (0.5, 1.5)
    saturation: tuple[Factor, Factor] = (0.5, 1.5)
    hue: tuple[Hue, Hue] = (-0.05, 0.05)
    probability: Annotated[float, Field(ge=0, le=1)] = 0.5

    @model_validator(mode="after")
    def _ordered(self) -> PhotometricDistort:
        for field in ("brightness", "contrast", "saturation", "hue"):
            low, high = getattr(self, field)
            if low > high:
                raise ValueError(f"{field}: the first number must not exceed the second")
        return self

    def __call__(self, clip: Clip) -> Clip:
        """Return frames of the same size."""
        return [(self._distorted(image), masks) for image, masks in clip]

    def _distorted(self, image: tv_tensors.Image) -> tv_tensors.Image:
        planes = image.as_subclass(torch.Tensor).float() + 255 * (self._drawn(self.brightness, 1) - 1)
        contrast, first = self._drawn(self.contrast, 1), bool(torch.rand(()) < 0.5)
        planes = planes * contrast if first else planes
        saturation, hue = self._drawn(self.saturation, 1), self._drawn(self.hue, 0)
        if (saturation, hue) != (1, 0):
            planes = scale_saturation(planes, saturation, hue)
        planes = planes if first else planes * contrast
        if torch.rand(()) < self.probability:
            planes = planes[torch.randperm(3)]
        return tv_tensors.Image(planes.round().clamp(0, 255).to(torch.uint8))

    def _drawn(self, limits: tuple[float, float], unchanged: float) -> float:
        """Return a number between the limits, or, if the change is not drawn, the number that changes nothing."""
        number = float(torch.empty(()).uniform_(*limits))
        return number if torch.rand(()) < self.probability else unchanged


@register
class ColourJitter(Transform):
    """Change brightness, contrast and saturation, the same in all frames.

    Attributes:
        strength: Maximum difference of each factor from 1; 0.4 is a common value.
    """

    name: ClassVar[str] = "colour_jitter"
    strength: Annotated[float, Field(gt=0, le=1)]

    def __call__(self, clip: Clip) -> Clip:
        """Return frames of the same size."""
        jitter = v2.ColorJitter(self.strength, self.strength, self.strength)
        images = jitter(torch.stack([image.as_subclass(torch.Tensor) for image, _ in clip]))
        return [(tv_tensors.Image(image), masks) for image, (_, masks) in zip(images, clip, strict=True)]
