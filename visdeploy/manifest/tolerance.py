"""What parity allows, by engine and precision."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from visdeploy.manifest.base import Strict

Precision = Literal["fp32", "tf32", "fp16", "bf16", "int8"]


class Tolerance(Strict):
    """What the parity certificate and the self-test allow.

    Attributes:
        atol: Largest absolute error of an output that is compared by `absolute`.
        rtol: The same as a share of the reference's largest value in that run of the graph; the larger of both counts.
            Rounding grows with the values: with the defaults it begins to count where logits pass 10.
        mask_iou: Smallest IoU of a mask (two pixels are always granted: rounding at the border of a small mask).
        agreement: Smallest share of detections, and of (frame, track) entries, that both engines have.
    """

    atol: Annotated[float, Field(gt=0)] = 1e-3
    rtol: Annotated[float, Field(ge=0, lt=1)] = 1e-4
    mask_iou: Annotated[float, Field(ge=0, le=1)] = 0.999
    agreement: Annotated[float, Field(ge=0, le=1)] = 1.0

    def __str__(self) -> str:
        relative = f" or {self.rtol:g} of an output's largest value" if self.rtol else ""
        return f"errors up to {self.atol:g}{relative}, mask IoU from {self.mask_iou:g}"


class EngineTolerance(Strict):
    """The tolerance of one engine in one precision.

    Attributes:
        engine: Name of the engine, as in `EngineDescription.engine`.
        precision: Precision that the engine computes in.
        tolerance: What is allowed there.
    """

    engine: Annotated[str, Field(min_length=1)]
    precision: Precision
    tolerance: Tolerance


class Tolerances(Strict):
    """What is allowed, with exceptions by engine and precision.

    Attributes:
        default: Where nothing else is said.
        engines: Exceptions, at most one for each pair of engine and precision.
    """

    default: Tolerance = Tolerance()
    engines: list[EngineTolerance] = Field(default_factory=list)

    @model_validator(mode="after")
    def _once(self) -> Tolerances:
        pairs = [(each.engine, each.precision) for each in self.engines]
        if len(set(pairs)) != len(pairs):
            raise ValueError("one pair of engine and precision is listed twice")
        return self

    def of(self, engine: str, precision: str) -> Tolerance:
        """The tolerance of an engine in a precision."""
        found = (e.tolerance for e in self.engines if (e.engine, e.precision) == (engine, precision))
        return next(found, self.default)
