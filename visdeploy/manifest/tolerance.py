"""Tolerances of parity, by engine and precision."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from visdeploy.manifest.base import Strict

LOWER_LIMITS = ("mask_iou", "agreement")
"""Fields of `Tolerance` that are minimums; the others are maximums."""
Precision = Literal["fp32", "tf32", "fp16", "bf16", "int8"]


class Tolerance(Strict):
    """Limits of the parity certificate and of the self-test.

    Attributes:
        atol: Largest absolute error of an output that is compared by `absolute`.
        rtol: Largest error of such an output relative to the largest value of the reference in that step; the larger of
            the two limits applies. Rounding errors grow with the values: with the defaults, `rtol` applies to values
            above 10.
        mask_iou: Smallest IoU of a mask. Two pixels of any mask may always differ, because rounding at the border of a
            small mask changes its IoU considerably.
        agreement: Smallest share of detections, and of (frame, track) entries, common to both engines.
    """

    atol: Annotated[float, Field(gt=0)] = 1e-3
    rtol: Annotated[float, Field(ge=0, lt=1)] = 1e-4
    mask_iou: Annotated[float, Field(ge=0, le=1)] = 0.999
    agreement: Annotated[float, Field(ge=0, le=1)] = 1.0

    @property
    def average_precision(self) -> float:
        """Largest difference of AP between both engines on an annotated data set.

        AP is a mean over IoU thresholds from 0.5 to 0.95. A mask error of d moves the IoU of a track by about d, and
        therefore AP by d / 0.5. In addition, the share of entries that may disagree may be missing from AP.
        """
        return 2 * (1 - self.mask_iou) + (1 - self.agreement)

    def looser_than(self, allowed: Tolerance) -> list[str]:
        """Return the names of the limits that permit a larger difference than those of `allowed`."""
        own, other = self.model_dump(), allowed.model_dump()
        return [n for n in own if (own[n] < other[n] if n in LOWER_LIMITS else own[n] > other[n])]

    def __str__(self) -> str:
        relative = f" or {self.rtol:g} of an output's largest value" if self.rtol else ""
        return f"errors up to {self.atol:g}{relative}, mask IoU from {self.mask_iou:g}"


class EngineTolerance(Strict):
    """Tolerance for one engine at one precision.

    Attributes:
        engine: Name of the engine, as in `EngineDescription.engine`.
        precision: Precision of the engine's arithmetic.
        tolerance: Tolerance for this engine and precision.
    """

    engine: Annotated[str, Field(min_length=1)]
    precision: Precision
    tolerance: Tolerance


class Tolerances(Strict):
    """Default tolerance, with exceptions by engine and precision.

    Attributes:
        default: Tolerance of all engines and precisions without an exception.
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

    @classmethod
    def standard(cls, default: Tolerance | None = None) -> Tolerances:
        """Return the tolerances of an exported fp32 graph: `default`, and wider limits where CUDA computes in TF32.

        TF32 rounds the inputs of products to 10 bits, which is 8,192 times coarser than float32.

        Args:
            default: Tolerance of float32.
        """
        default = default or Tolerance()
        tf32 = Tolerance(
            atol=max(0.1, default.atol),
            rtol=max(1e-2, default.rtol),
            mask_iou=min(0.98, default.mask_iou),
            agreement=min(0.95, default.agreement),
        )
        return cls(
            default=default,
            engines=[EngineTolerance(engine="onnxruntime", precision="tf32", tolerance=tf32)],
        )

    def of(self, engine: str, precision: str) -> Tolerance:
        """Return the tolerance for an engine at a precision."""
        found = (e.tolerance for e in self.engines if (e.engine, e.precision) == (engine, precision))
        return next(found, self.default)
