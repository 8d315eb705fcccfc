"""Lists of transforms in recipes: conversion from and to YAML, application in order, random choice between lists."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, TypeAlias

import torch
from pydantic import Field, PlainSerializer, PlainValidator, ValidationError, model_validator
from pydantic_core import InitErrorDetails, PydanticCustomError

from visdeploy.errors import ConfigError
from visdeploy_training.datasets.transforms.base import Clip, FrameSize, Transform
from visdeploy_training.datasets.transforms.registry import find_transform, register


def parse_step(value: Any) -> Transform:
    """Create a transform from a recipe: `{name: {parameter: value}}`, or the name alone for default parameters.

    Raises:
        ValueError: The transform is unknown, cannot be loaded, or refuses a parameter (pydantic's `ValidationError`,
            with the name of the transform before that of the parameter).
    """
    if isinstance(value, Transform):
        return value
    spelled = {value: {}} if isinstance(value, str) else value
    if not isinstance(spelled, Mapping) or len(spelled) != 1:
        raise ValueError("expected one transform: its name, or `name: {parameter: value}`")
    ((name, parameters),) = spelled.items()
    try:
        transform = find_transform(str(name))
    except ConfigError as error:
        raise ValueError(str(error)) from error
    try:
        return transform.model_validate({} if parameters is None else parameters)
    except ValidationError as error:
        details = [
            InitErrorDetails(
                type=PydanticCustomError(
                    "transform", "{message}", {"message": item["msg"].removeprefix("Value error, ")}
                ),
                loc=(str(name), *item["loc"]),
                input=item["input"],
            )
            for item in error.errors(include_url=False)
        ]
        raise ValidationError.from_exception_data(str(name), details) from error


def spell_step(transform: Transform) -> dict[str, Any]:
    """Return the form of a transform in a recipe."""
    return {transform.name: transform.model_dump(mode="json")}


Step: TypeAlias = Annotated[Transform, PlainValidator(parse_step), PlainSerializer(spell_step)]
"""Transform as a field of a pydantic model."""


@dataclass(frozen=True)
class Chain:
    """Sequence of transforms.

    Attributes:
        steps: The transforms in order.
    """

    steps: Sequence[Transform] = ()

    def __call__(self, clip: Clip) -> Clip:
        """Return the clip after the last step."""
        for step in self.steps:
            clip = step(clip)
        return clip

    def sized(self, height: int, width: int) -> Chain:
        """Return the chain for an input size of the network; see `Transform.sized`."""
        return Chain(tuple(step.sized(height, width) for step in self.steps))

    def output_size(self, size: FrameSize | None = None) -> FrameSize | None:
        """Return the size of all frames after the last step; see `Transform.output_size`."""
        for step in self.steps:
            size = step.output_size(size)
        return size


@register
class Choice(Transform):
    """Apply one of several lists of transforms, drawn once for the clip.

    Attributes:
        of: The lists; an empty one changes nothing.
        weights: Probability of each list, relative to the others; equal by default.
    """

    name: ClassVar[str] = "choice"
    of: Annotated[tuple[tuple[Step, ...], ...], Field(min_length=1)]
    weights: tuple[Annotated[float, Field(ge=0)], ...] | None = None

    @model_validator(mode="after")
    def _one_weight_each(self) -> Choice:
        if self.weights is not None and (len(self.weights) != len(self.of) or sum(self.weights) <= 0):
            raise ValueError("weights: expected one for each list, and a sum above 0")
        return self

    def __call__(self, clip: Clip) -> Clip:
        """Return the clip after the transforms of the list drawn."""
        weights = torch.tensor([1.0] * len(self.of) if self.weights is None else self.weights)
        return Chain(self.of[int(torch.multinomial(weights, 1))])(clip)

    def sized(self, height: int, width: int) -> Transform:
        """Return the choice for an input size of the network."""
        return self.model_copy(update={"of": tuple(tuple(Chain(o).sized(height, width).steps) for o in self.of)})

    def output_size(self, size: FrameSize | None) -> FrameSize | None:
        """Return the size of the frames after each list, or None if the lists differ."""
        sizes = {Chain(option).output_size(size) for option in self.of}
        return sizes.pop() if len(sizes) == 1 else None
