"""Schedules: factors of the learning rate as functions of the number of completed iterations."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BeforeValidator, Field, model_validator

from visdeploy_training.engine.fields import Count, Factor, Positive, Strict


class Constant(Strict):
    """Constant learning rate."""

    kind: Literal["constant"] = "constant"

    def factor(self, iteration: int, iterations: int) -> float:
        """Return 1."""
        return 1.0


class Steps(Strict):
    """Multiplication by `gamma` at every milestone.

    Attributes:
        milestones: Iterations of the steps, in ascending order.
        gamma: Factor of a step.
    """

    kind: Literal["steps"] = "steps"
    milestones: Annotated[list[Positive], Field(min_length=1)]
    gamma: Annotated[float, Field(gt=0)] = 0.1

    @model_validator(mode="after")
    def _rising(self) -> Steps:
        if self.milestones != sorted(set(self.milestones)):
            raise ValueError("the milestones must be in ascending order")
        return self

    def factor(self, iteration: int, iterations: int) -> float:
        """Return `gamma` to the power of the number of milestones reached."""
        return float(self.gamma ** sum(iteration >= m for m in self.milestones))


class Decay(Strict):
    """Base class of the schedules that decay from an iteration to the end of the training.

    Attributes:
        start: Iteration at which the decay starts; the factor is 1 until then.
        end: Factor at the end of the training.
    """

    start: Count = 0
    end: Factor = 0.0

    def progress(self, iteration: int, iterations: int) -> float:
        """Return the completed share of the decay, from 0 to 1."""
        if iteration <= self.start:
            return 0.0
        return min(1.0, (iteration - self.start) / max(1, iterations - self.start))


class Polynomial(Decay):
    """Decay as `(1 - progress) ** power`.

    Attributes:
        power: Exponent; 1 is a linear decay.
    """

    kind: Literal["polynomial"] = "polynomial"
    power: Annotated[float, Field(gt=0)] = 1.0

    def factor(self, iteration: int, iterations: int) -> float:
        """Return the factor between 1 and `end`."""
        return float(self.end + (1 - self.end) * (1 - self.progress(iteration, iterations)) ** self.power)


class Cosine(Decay):
    """Decay as half a period of the cosine."""

    kind: Literal["cosine"] = "cosine"

    def factor(self, iteration: int, iterations: int) -> float:
        """Return the factor between 1 and `end`."""
        share = 0.5 * (1 + math.cos(math.pi * self.progress(iteration, iterations)))
        return self.end + (1 - self.end) * share


class Exponential(Strict):
    """Multiplication by `gamma` in each period of `every` iterations, without an end.

    Attributes:
        gamma: Factor of a period.
        every: Iterations of a period.
        staircase: Multiply by `gamma` at the end of each period instead of continuously.
        start: Iteration at which the decay starts; the factor is 1 until then.
    """

    kind: Literal["exponential"] = "exponential"
    gamma: Annotated[float, Field(gt=0, le=1)]
    every: Positive = 1
    staircase: bool = False
    start: Count = 0

    def factor(self, iteration: int, iterations: int) -> float:
        """Return `gamma` to the power of the number of periods since the start."""
        passed = max(0, iteration - self.start)
        return float(self.gamma ** (passed // self.every if self.staircase else passed / self.every))


def _spelled(value: Any) -> Any:
    return {"kind": value} if isinstance(value, str) else value


Schedule: TypeAlias = Annotated[
    Annotated[Constant | Steps | Polynomial | Exponential | Cosine, Field(discriminator="kind")],
    BeforeValidator(_spelled),
]
"""Schedule in a recipe: `{kind: name, parameter: value}`, or the name alone for default parameters."""
