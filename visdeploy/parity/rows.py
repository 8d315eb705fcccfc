"""Matching of rows of two engines' outputs that are the same detection, and detection of near-ties."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from visdeploy.errors import BundleError
from visdeploy.manifest import TensorSpec
from visdeploy.parity.measures import Outputs, Rows


@dataclass(frozen=True)
class RowMatch:
    """Rows that two engines have in common.

    Attributes:
        reference: Rows of the reference, in ascending order.
        candidate: The corresponding rows of the candidate.
        counts: Number of rows of the reference, of the candidate, in common, and of pairs tied for the last place.
    """

    reference: Rows
    candidate: Rows
    counts: tuple[int, int, int, int]


class RowMatcher:
    """Matches rows by the outputs with the measure `identity` in the manifest.

    A graph that returns the best k of many detections ranks them by the output with the measure `ranking`. If several
    detections are nearly tied for the last place, engines may select different ones because of rounding. Rows that only
    one engine has are therefore counted as tied, not as a disagreement, under these conditions: on each side, none of
    them exceeds the last place of that side by more than the tolerance; the last places of both sides differ by no more
    than the tolerance; and they are fewer than the common rows. Only common rows are compared.

    Args:
        outputs: Outputs in the manifest.
        atol: Largest difference of a near-tie.

    Raises:
        BundleError: The outputs that identify or rank the rows contradict each other.

    Attributes:
        ranked: Whether the graph ranks its rows; if so, their order may differ between engines because of rounding.
    """

    def __init__(self, outputs: Sequence[TensorSpec], atol: float) -> None:
        check_rows(outputs)
        self._identity = [spec for spec in outputs if spec.measure == "identity"]
        self._ranking = next((spec for spec in outputs if spec.measure == "ranking"), None)
        self._symbol = self._identity[0].shape[0] if self._identity else None
        self._atol = atol
        self.ranked = self._ranking is not None

    def match(self, reference: Outputs, candidate: Outputs) -> RowMatch:
        """Match the rows of one step."""
        if not self._identity:
            return RowMatch(np.arange(0), np.arange(0), (0, 0, 0, 0))
        left, right = (self._keys(outputs) for outputs in (reference, candidate))
        place = {key: row for row, key in enumerate(right)}
        pairs = np.array([(row, place[key]) for row, key in enumerate(left) if key in place], np.intp).reshape(-1, 2)
        lost, gained = (np.setdiff1d(np.arange(len(k)), pairs[:, side]) for side, k in enumerate((left, right)))
        few = len(lost) == len(gained) and len(lost) < len(pairs)
        tied = len(lost) if few and self._tied(reference, lost, candidate, gained) else 0
        return RowMatch(pairs[:, 0], pairs[:, 1], (len(left), len(right), len(pairs), tied))

    def take(self, spec: TensorSpec, value: NDArray[Any], rows: Rows) -> NDArray[Any]:
        """Select rows of an output, along every axis with the symbol of the `identity` outputs."""
        for axis, size in enumerate(spec.shape):
            if isinstance(size, str) and size == self._symbol:
                value = np.take(value, rows, axis=axis)
        return value

    def _keys(self, outputs: Outputs) -> list[tuple[int, ...]]:
        columns = (np.asarray(outputs[spec.name]).reshape(-1).tolist() for spec in self._identity)
        return list(zip(*columns, strict=True))

    def _tied(self, reference: Outputs, lost: Rows, candidate: Outputs, gained: Rows) -> bool:
        if self._ranking is None or not len(lost):
            return False
        left, right = (self._ranks(outputs, self._ranking) for outputs in (reference, candidate))
        beyond = (left[lost].max() - left.min(), right[gained].max() - right.min(), abs(left.min() - right.min()))
        return all(bool(each <= self._atol) for each in beyond)

    def _ranks(self, outputs: Outputs, ranking: TensorSpec) -> NDArray[np.float64]:
        """Compute the value by which the rows are ranked, the mean over all other axes."""
        axis = ranking.shape.index(str(self._symbol))
        values = np.moveaxis(np.asarray(outputs[ranking.name], np.float64), axis, 0)
        means: NDArray[np.float64] = values.reshape(len(values), -1).mean(axis=1)
        return means


def check_rows(outputs: Sequence[TensorSpec]) -> None:
    """Check that the outputs with the measures `identity` and `ranking` are consistent.

    Raises:
        BundleError: The `identity` outputs have no common symbol, there is more than one `ranking` output, or it does
            not have that symbol.
    """
    rows = [t.shape for t in outputs if t.measure == "identity"]
    ranked = [t.shape for t in outputs if t.measure == "ranking"]
    if any(shape != rows[0] or len(shape) != 1 or not isinstance(shape[0], str) for shape in rows):
        raise BundleError(
            "manifest.json: field 'outputs': inconsistent shapes of the outputs with the measure 'identity'",
            seen=str(rows),
            expected="one common symbol as the shape of all of them",
        )
    if len(ranked) > 1 or any(not rows or shape.count(rows[0][0]) != 1 for shape in ranked):
        raise BundleError(
            "manifest.json: field 'outputs': the measure 'ranking' contradicts 'identity'",
            seen=str(ranked),
            expected="at most one such output, with the symbol of the 'identity' outputs as one of its sizes",
        )
