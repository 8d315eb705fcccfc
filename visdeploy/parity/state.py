"""Comparison of the state that two engines carry from step to step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from visdeploy.manifest import StateSpec, TensorSpec, Tolerance
from visdeploy.parity.certificate import OutputParity
from visdeploy.parity.measures import Comparison, Measure, StepContext, absolute_errors

Arrays = Mapping[str, NDArray[Any]]
_NO_ROWS = np.zeros(0, np.intp)


class StateMeasure(Measure):
    """Largest absolute difference. Integers must be equal: they select what the next steps read.

    The limit of real numbers is `Tolerance.atol`, multiplied by the largest value of the reference where that is above
    1. What rounding does to the features of a frame is judged by the outputs that follow from them; another frame in a
    slot of the memory is an error of the size of the values.
    """

    name = "state"

    def compare(self, reference: NDArray[Any], candidate: NDArray[Any], context: StepContext) -> Comparison:
        """See `Measure.compare`."""
        errors = absolute_errors(reference, candidate)
        error, limit = float(errors.max(initial=0)), 0.0
        if reference.dtype.kind == "f":
            finite = np.abs(reference, dtype=np.float64).max(initial=0, where=np.isfinite(reference))
            limit = self.tolerance.atol * max(1.0, float(finite))
        return Comparison(error, limit, error <= limit, errors.size)


class StateMeter:
    """Compares every state tensor of two engines after each step.

    Args:
        specs: State of the graph.
        tolerance: Limits.
    """

    def __init__(self, specs: Sequence[StateSpec], tolerance: Tolerance) -> None:
        self._measures = {
            spec.input: StateMeasure(
                TensorSpec(name=spec.output, dtype=spec.dtype, shape=spec.shape, role="proof", measure="state"),
                tolerance,
            )
            for spec in specs
        }
        self._steps = 0

    def update(self, reference: Arrays, candidate: Arrays, frame: int) -> None:
        """Compare the states after a step.

        Args:
            reference: State of the engine taken as correct, by input name, on the host.
            candidate: State of the engine under test.
            frame: Position of the first frame of the step.
        """
        context = StepContext(frame, {}, {}, _NO_ROWS, _NO_ROWS)
        for name, measure in self._measures.items():
            measure.update(reference[name], candidate[name], context)
        self._steps += 1

    def results(self) -> list[OutputParity]:
        """Return the comparison of every tensor over all steps; empty if there was none."""
        return [measure.result() for measure in self._measures.values()] if self._steps else []
