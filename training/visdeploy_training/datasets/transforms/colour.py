"""Changes of colour, which do not affect masks."""

from __future__ import annotations

from typing import Annotated, ClassVar

import torch
from pydantic import Field, model_validator
from torchvision import tv_tensors
from torchvision.transforms import v2

from visdeploy_training.datasets.transforms.base import Clip, Transform
from visdeploy_training.datasets.transforms.registry import register

Factor = Annotated[float, Field(ge=0)]
Hue = Annotated[float, Field(ge=-0.5, le=0.5)]


@register
class PhotometricDistort(Transform):
    """Change brightness, contrast, saturation, hue and the order of channels, independently for each frame.

    Attributes:
        brightness: Minimum and maximum factor.
        contrast: Minimum and maximum factor.
        saturation: Minimum and maximum factor.
        hue: Minimum and maximum shift, as a share of the colour circle.
        probability: Probability of each of the changes.
    """

    name: ClassVar[str] = "photometric_distort"
    brightness: tuple[Factor, Factor] = (0.875, 1.125)
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
        distort = v2.RandomPhotometricDistort(
            self.brightness, self.contrast, self.saturation, self.hue, self.probability
        )
        return [(distort(image), masks) for image, masks in clip]


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
