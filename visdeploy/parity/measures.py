"""Measures that compare the values of an output from two engines, and their registry; methods can add their own."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from visdeploy.errors import BundleError
from visdeploy.manifest import ModelSpec, TensorSpec, Tolerance
from visdeploy.parity.certificate import PIXEL_SLACK, OutputParity, share_of_limit

Outputs = Mapping[str, NDArray[Any]]
Rows = NDArray[np.intp]
Axes = tuple[int | str, ...]
"""Leading sizes in `TensorSpec.shape`."""


@dataclass
class StepContext:
    """One step of both engines, for measures that depend on more than one output.

    Attributes:
        frame: Position of the step's first frame.
        reference: All raw outputs of the reference.
        candidate: All raw outputs of the candidate.
        reference_rows: Rows of the reference's outputs that the candidate also has (`visdeploy.parity.rows`).
        candidate_rows: The corresponding rows of the candidate's outputs.
        mask_errors: Map from the axes of an output of masks, without height and width, to the error of each mask; set
            before measures with a higher `phase` than masks run. The larger error if two outputs have the same axes.
    """

    frame: int
    reference: Outputs
    candidate: Outputs
    reference_rows: Rows
    candidate_rows: Rows
    mask_errors: dict[Axes, NDArray[np.float64]] = field(default_factory=dict)


class Comparison(NamedTuple):
    """Comparison of an output in one step.

    Attributes:
        error: Error of the output.
        limit: Largest allowed error.
        passed: Whether the error is within the limit, after deduction of any slack.
        compared: Number of elements compared.
    """

    error: float
    limit: float
    passed: bool
    compared: int


class Measure(ABC):
    """Worst error of one output over the steps seen so far. A method lists its own measures in `Decoder.measures`.

    Args:
        spec: Description of the output.
        tolerance: Limits of the comparison.
    """

    name: ClassVar[str]
    """Name in `TensorSpec.measure`."""
    quantity: ClassVar[str] = "largest error"
    """Description of the error in the table of a certificate."""
    phase: ClassVar[int] = 1
    """Position in a step: measures with a lower phase run first."""

    def __init__(self, spec: TensorSpec, tolerance: Tolerance) -> None:
        self.spec, self.tolerance = spec, tolerance
        self.model: ModelSpec | None = None
        self._worst, self._limit = 0.0, self.least_limit()
        self._frame: int | None = None
        self._compared, self._passed = 0, True

    def attach(self, model: ModelSpec) -> None:
        """Take the description of the model, for measures that depend on parameters of its decoder.

        `ParityMeter` calls it once, before the first step.
        """
        self.model = model

    def least_limit(self) -> float:
        """Return the limit to report if nothing has been compared."""
        return self.tolerance.atol

    @abstractmethod
    def compare(self, reference: NDArray[Any], candidate: NDArray[Any], context: StepContext) -> Comparison:
        """Compare the output of one step.

        Args:
            reference: Value of the reference, restricted to the rows that both engines have.
            candidate: Value of the candidate, of the same shape and dtype.
            context: All outputs of the step.
        """

    def note(self) -> str:
        """Return a remark for the certificate in addition to the numbers, for example the slack that was used."""
        return ""

    def update(self, reference: NDArray[Any], candidate: NDArray[Any], context: StepContext) -> float:
        """Compare one step, and keep the worst error; a different shape or dtype is an infinite error.

        Returns:
            The error of the step.
        """
        if self.spec.dtype == "bfloat16":
            reference, candidate = _widened(reference), _widened(candidate)
        if reference.shape != candidate.shape or reference.dtype != candidate.dtype:
            found = Comparison(math.inf, self._limit, False, 1)
        else:
            found = self.compare(reference, candidate, context)
        self._compared += found.compared
        self._passed &= found.passed
        share = share_of_limit(found.error, found.limit)
        if found.compared and (self._frame is None or share > share_of_limit(self._worst, self._limit)):
            self._worst, self._frame, self._limit = float(found.error), context.frame, found.limit
        return float(found.error)

    def result(self) -> OutputParity:
        """Return the comparison over all steps."""
        return OutputParity(
            name=self.spec.name,
            measure=self.name,
            quantity=self.quantity,
            worst=self._worst,
            limit=self._limit,
            frame=self._frame,
            compared=self._compared,
            passed=self._passed,
            note=self.note(),
        )


class Absolute(Measure):
    """Largest absolute difference, with a limit that grows with the largest value of the reference in the step."""

    name = "absolute"

    def compare(self, reference: NDArray[Any], candidate: NDArray[Any], context: StepContext) -> Comparison:
        """See `Measure.compare`."""
        rtol = self.tolerance.rtol
        limit = max(self.tolerance.atol, rtol * _magnitude(reference) if rtol else 0.0)
        errors = absolute_errors(reference, candidate)
        error = float(errors.max(initial=0))
        return Comparison(error, limit, error <= limit, errors.size)


class Ranking(Absolute):
    """`absolute`, for the output by which the graph selects its rows: its mean over all other axes."""

    name = "ranking"


class Exact(Measure):
    """Equality."""

    name = "exact"

    def least_limit(self) -> float:
        """See `Measure.least_limit`."""
        return 0.0

    def compare(self, reference: NDArray[Any], candidate: NDArray[Any], context: StepContext) -> Comparison:
        """See `Measure.compare`."""
        errors = absolute_errors(reference, candidate)
        error = float(errors.max(initial=0))
        return Comparison(error, 0.0, error <= 0, errors.size)


class Identity(Exact):
    """`exact`, for outputs that identify the detection in each row of all outputs with the same symbol."""

    name = "identity"


class Score(Measure):
    """Largest absolute difference, minus the difference that follows from differing pixels of the same row's mask.

    A score is a mean over the pixels of a mask, decayed by IoU: one pixel of a small mask changes it. The axes of the
    output begin with those of the masks, without height and width; if no masks correspond, nothing is deducted.
    """

    name = "score"

    def compare(self, reference: NDArray[Any], candidate: NDArray[Any], context: StepContext) -> Comparison:
        """See `Measure.compare`."""
        errors = absolute_errors(reference, candidate)
        excess = float(np.maximum(errors - 2 * self._mask_errors(context, errors.ndim), 0).max(initial=0))
        limit = self.tolerance.atol
        return Comparison(float(errors.max(initial=0)), limit, excess <= limit, errors.size)

    def _mask_errors(self, context: StepContext, axes: int) -> NDArray[np.float64]:
        """Return the error of the mask of every row, with axes of length 1 for the remaining axes of the output."""
        for rows, errors in context.mask_errors.items():
            if tuple(self.spec.shape[: len(rows)]) == rows:
                return errors.reshape(errors.shape + (1,) * (axes - errors.ndim))
        return np.zeros((1,) * axes)


class MaskIoU(Measure):
    """1 - smallest IoU of masks in the last two axes; a few pixels of any mask may differ (`PIXEL_SLACK`)."""

    name = "mask"
    quantity = f"1 - IoU, {PIXEL_SLACK} px tolerated"
    phase = 0

    def least_limit(self) -> float:
        """See `Measure.least_limit`."""
        return 1 - self.tolerance.mask_iou

    def compare(self, reference: NDArray[Any], candidate: NDArray[Any], context: StepContext) -> Comparison:
        """See `Measure.compare`. Masks are compared one at a time; `context` receives the error of each."""
        size, limit = reference.shape[-2:], self.least_limit()
        left, right = reference.reshape(-1, *size), candidate.reshape(-1, *size)
        errors, passed = np.zeros(len(left)), True
        for row, (a, b) in enumerate(zip(left, right, strict=True)):
            differ, union = int(np.count_nonzero(a != b)), int(np.count_nonzero(a | b))
            errors[row] = differ / union if union else 0.0
            passed &= bool(errors[row] <= limit) or differ <= PIXEL_SLACK
        axes, found = tuple(self.spec.shape[:-2]), errors.reshape(reference.shape[:-2])
        context.mask_errors[axes] = np.maximum(context.mask_errors.get(axes, 0.0), found)
        return Comparison(float(errors.max(initial=0)), limit, passed, len(left))


class Area(Measure):
    """Largest difference of a matrix of overlaps, relative to the smaller mask of each pair, minus a few pixels."""

    name = "area"
    quantity = f"relative area error, {PIXEL_SLACK} px tolerated"

    def least_limit(self) -> float:
        """See `Measure.least_limit`."""
        return 1 - self.tolerance.mask_iou

    def compare(self, reference: NDArray[Any], candidate: NDArray[Any], context: StepContext) -> Comparison:
        """See `Measure.compare`. The areas of the masks are the diagonal of the reference."""
        areas = np.diagonal(np.asarray(context.reference[self.spec.name], np.float64))[context.reference_rows]
        smaller, limit = np.maximum(np.minimum(areas[:, None], areas[None, :]), 1), self.least_limit()
        errors = absolute_errors(reference, candidate)
        excess = float((np.maximum(errors - PIXEL_SLACK, 0) / smaller).max(initial=0))
        return Comparison(float((errors / smaller).max(initial=0)), limit, excess <= limit, errors.size)


MEASURES: dict[str, type[Measure]] = {
    each.name: each for each in (Absolute, Area, Exact, Identity, MaskIoU, Ranking, Score)
}


def find_measure(name: str, own: tuple[type[Measure], ...] = ()) -> type[Measure]:
    """Return the measure called `name`.

    Args:
        name: Name as in `TensorSpec.measure`.
        own: Measures defined by the method; they cannot replace those of this module.

    Raises:
        BundleError: There is no measure of that name.
    """
    known = {each.name: each for each in own} | MEASURES
    if name not in known:
        raise BundleError(
            "manifest.json: field 'outputs': unknown measure of parity",
            seen=repr(name),
            expected=f"one of {sorted(known)}",
            hint="Install a newer visdeploy, or export the bundle again.",
        )
    return known[name]


def absolute_errors(reference: NDArray[Any], candidate: NDArray[Any]) -> NDArray[np.float64]:
    """Compute |difference|: infinite if only one value is finite or the infinities differ, 0 for two NaN."""
    left, right = reference.astype(np.float64), candidate.astype(np.float64)
    with np.errstate(invalid="ignore"):
        errors = np.abs(left - right)
    same = (left == right) | (np.isnan(left) & np.isnan(right))
    return np.where(same, 0.0, np.where(np.isnan(errors), np.inf, errors))


def _magnitude(values: NDArray[Any]) -> float:
    """Return the largest absolute finite value."""
    return float(np.abs(values, dtype=np.float64).max(initial=0, where=np.isfinite(values)))


def _widened(bits: NDArray[Any]) -> NDArray[np.float32]:
    """Return the float32 values of `bfloat16` numbers stored as `uint16`."""
    return (bits.astype(np.uint32) << 16).view(np.float32)
