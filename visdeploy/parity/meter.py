"""Parity of two engines: one comparison for the certificate at export and for `verify` on any machine.

Both runs give the raw outputs of the same frames. Every output is compared by the measure its `TensorSpec` names, and
both runs go through a decoder of the method, so that masks and track ids are compared as a user would see them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from visdeploy.manifest import Manifest, TensorSpec, Tolerance
from visdeploy.methods import create_decoder
from visdeploy.parity.certificate import (
    PIXEL_SLACK,
    Agreement,
    AveragePrecision,
    Certificate,
    OutputParity,
    certificate_rows,
    share_of_limit,
    worst_first,
)
from visdeploy.parity.rows import Outputs, RowMatcher, Rows
from visdeploy.results import FrameResult, Instance
from visdeploy.streaming.windows import Step

__all__ = ["PIXEL_SLACK", "Certificate", "ParityMeter", "certificate_rows"]


class ParityMeter:
    """Takes the raw outputs of two engines step by step and ends in a `Certificate`. Keeps no dense array.

    Args:
        manifest: Outputs, tolerance, and how to decode.
        height: Rows of a frame as it came from the source, in pixels.
        width: Columns of a frame as it came from the source, in pixels.
        tolerance: Limits in place of the manifest's.
    """

    def __init__(self, manifest: Manifest, *, height: int, width: int, tolerance: Tolerance | None = None) -> None:
        self._specs, self._size = manifest.outputs, (height, width)
        self.tolerance = tolerance or manifest.tolerance
        self._rows = {spec.name: _Row(spec, self.tolerance) for spec in manifest.outputs}
        self._matcher = RowMatcher(manifest.outputs, self.tolerance.atol)
        self._decoders = [
            create_decoder(m.method, classes=m.classes, decode=m.decode, tracking=m.tracking)
            for m in (manifest, manifest)
        ]
        self._frames = 0
        self._ious: list[float] = []
        self._detections, self._tracks = np.zeros(4, np.int64), np.zeros(4, np.int64)
        self._ids: tuple[set[int], set[int]] = (set(), set())

    def update(self, reference: Outputs, candidate: Outputs, step: Step) -> None:
        """Compare the next step.

        Args:
            reference: Outputs of the engine taken as right.
            candidate: Outputs of the engine under test.
            step: The frames that both got.
        """
        both, matched = (reference, candidate), self._matcher.match(reference, candidate)
        self._detections += matched.counts
        rows, mask_error = (matched.reference, matched.candidate), 0.0
        for spec in sorted(self._specs, key=lambda s: s.measure != "mask"):
            left, right = (self._matcher.take(spec, o[spec.name], r) for o, r in zip(both, rows, strict=True))
            areas = self._areas(reference, spec, rows[0])
            error = self._rows[spec.name].update(step.first, left, right, areas, mask_error)
            mask_error = max(mask_error, error) if spec.measure == "mask" else mask_error
        height, width = self._size
        if self._matcher.ranked:
            # ids follow the order of rows, which rounding decides where they are nearly tied
            both = (self._rows_of(reference, rows[0]), self._rows_of(candidate, rows[1]))
        self._compare(
            *(d.decode(o, step, height=height, width=width) for d, o in zip(self._decoders, both, strict=True))
        )
        self._frames += step.fresh

    def finish(self) -> None:
        """Compare the results that the decoders still hold; call it after the last step."""
        self._compare(*(decoder.finish() for decoder in self._decoders))

    def _compare(self, reference: Sequence[FrameResult], candidate: Sequence[FrameResult]) -> None:
        for first, second in zip(reference, candidate, strict=True):
            self._compare_results(first, second)

    def certificate(
        self,
        *,
        reference: str,
        candidate: str,
        source: str,
        average_precision: AveragePrecision | None = None,
    ) -> Certificate:
        """Everything seen so far, judged.

        Args:
            reference: Description of the engine taken as right.
            candidate: Description of the engine under test.
            source: Description of the frames.
            average_precision: AP of both engines, measured elsewhere.
        """
        outputs = [row.result() for row in self._rows.values()]
        detections, tracks = _agreement(self._detections), _agreement(self._tracks)
        first, second = self._ids
        return Certificate(
            reference=reference,
            candidate=candidate,
            source=source,
            frames=self._frames,
            height=self._size[0],
            width=self._size[1],
            tolerance=self.tolerance,
            outputs=outputs,
            detections=detections,
            tracks=tracks,
            track_ids=Agreement(reference=len(first), candidate=len(second), matched=len(first & second)),
            smallest_mask_iou=min(self._ious, default=None),
            mean_mask_iou=float(np.mean(self._ious)) if self._ious else None,
            average_precision=average_precision,
            failures=_failures(outputs, detections, tracks, self.tolerance),
        )

    def _rows_of(self, outputs: Outputs, rows: Rows) -> Outputs:
        return {spec.name: self._matcher.take(spec, outputs[spec.name], rows) for spec in self._specs}

    def _areas(self, reference: Outputs, spec: TensorSpec, rows: Rows) -> NDArray[Any] | None:
        """For a matrix of overlaps in pixels: the smaller area of each pair (areas are on its diagonal)."""
        if spec.measure != "area":
            return None
        areas = np.diagonal(np.asarray(reference[spec.name], np.float64))[rows]
        return np.minimum(areas[:, None], areas[None, :])

    def _compare_results(self, reference: FrameResult, candidate: FrameResult) -> None:
        """Count the (frame, track) entries of both and those that agree in id, label and mask."""
        others = {i.track_id: i for i in candidate}
        matched = 0
        for instance in reference:
            self._ids[0].add(instance.track_id)
            other = others.get(instance.track_id)
            if other is not None:
                iou, pixels = _mask_iou(instance, other)
                self._ious.append(iou)
                close = iou >= self.tolerance.mask_iou or pixels <= PIXEL_SLACK
                matched += close and instance.label == other.label
        self._ids[1].update(others)
        self._tracks += (len(reference), len(candidate), matched, 0)


class _Row:
    """Running worst value of one output."""

    def __init__(self, spec: TensorSpec, tolerance: Tolerance) -> None:
        masks = 1 - tolerance.mask_iou
        limits = dict.fromkeys(("absolute", "score", "ranking"), tolerance.atol) | {"mask": masks, "area": masks}
        self._spec, self._least = spec, limits.get(spec.measure, 0.0)
        self._limit, self._rtol = self._least, tolerance.rtol if spec.measure in ("absolute", "ranking") else 0.0
        self._worst, self._frame, self._compared, self._passed = 0.0, None, 0, True

    _frame: int | None

    def update(
        self,
        frame: int,
        reference: NDArray[Any],
        candidate: NDArray[Any],
        areas: NDArray[Any] | None = None,
        mask_error: float = 0.0,
    ) -> float:
        """Compare one frame; different shapes are an infinite error.

        Returns:
            The error of the frame.
        """
        limit = max(self._least, self._rtol * _magnitude(reference) if self._rtol else 0.0)
        if reference.shape != candidate.shape or reference.dtype != candidate.dtype:
            error, passed, count = np.inf, False, 1
        elif self._spec.measure == "mask":
            error, passed, count = self._masks(reference, candidate)
        else:
            errors = _absolute(reference, candidate)
            excess = errors
            if areas is not None:
                excess = np.maximum(errors - PIXEL_SLACK, 0) / np.maximum(areas, 1)
                errors = errors / np.maximum(areas, 1)
            if self._spec.measure == "score":
                # a score is a mean over the mask, decayed by IoU: one pixel of a small mask moves it
                excess = np.maximum(errors - 2 * mask_error, 0)
            error, count = float(errors.max(initial=0)), errors.size
            passed = bool(excess.max(initial=0) <= limit)
        self._compared += count
        self._passed &= passed
        if count and (self._frame is None or share_of_limit(error, limit) > share_of_limit(self._worst, self._limit)):
            self._worst, self._frame, self._limit = float(error), frame, limit
        return float(error)

    def result(self) -> OutputParity:
        """The summary over all frames."""
        return OutputParity(
            name=self._spec.name,
            measure=self._spec.measure,
            worst=self._worst,
            limit=self._limit,
            frame=self._frame,
            compared=self._compared,
            passed=self._passed,
        )

    def _masks(self, reference: NDArray[Any], candidate: NDArray[Any]) -> tuple[float, bool, int]:
        """1 - smallest IoU, whether all masks are close enough, number of masks; one mask at a time."""
        size = reference.shape[-2:]
        worst, passed = 0.0, True
        left, right = reference.reshape(-1, *size), candidate.reshape(-1, *size)
        for a, b in zip(left, right, strict=True):
            differ, union = int(np.count_nonzero(a != b)), int(np.count_nonzero(a | b))
            error = differ / union if union else 0.0
            worst = max(worst, error)
            passed &= error <= self._least or differ <= PIXEL_SLACK
        return worst, passed, len(left)


def _magnitude(values: NDArray[Any]) -> float:
    """The largest absolute value, of the finite ones."""
    return float(np.abs(values, dtype=np.float64).max(initial=0, where=np.isfinite(values)))


def _absolute(reference: NDArray[Any], candidate: NDArray[Any]) -> NDArray[np.float64]:
    """|difference|, infinite where only one side is finite or the infinities differ; equal NaN are equal."""
    left, right = reference.astype(np.float64), candidate.astype(np.float64)
    with np.errstate(invalid="ignore"):
        errors = np.abs(left - right)
    same = (left == right) | (np.isnan(left) & np.isnan(right))
    return np.where(same, 0.0, np.where(np.isnan(errors), np.inf, errors))


def _mask_iou(reference: Instance, candidate: Instance) -> tuple[float, int]:
    """IoU of two encoded masks and the number of pixels in which they differ."""
    from pycocotools import mask as coco

    first, second = reference.mask.to_coco(), candidate.mask.to_coco()
    union = int(coco.area(coco.merge([first, second], intersect=False)))
    common = int(coco.area(coco.merge([first, second], intersect=True)))
    return (common / union if union else 1.0), union - common


def _agreement(counts: NDArray[np.int64]) -> Agreement:
    return Agreement(**dict(zip(Agreement.model_fields, counts.tolist(), strict=True)))


def _failures(
    outputs: Sequence[OutputParity], detections: Agreement, tracks: Agreement, tolerance: Tolerance
) -> list[str]:
    """One sentence per broken limit, the worst tensor first."""
    broken = [output for output in worst_first(outputs) if not output.passed]
    found = [
        f"output {o.name!r}: {o.measure} error {o.worst:.3g} in frame {o.frame}, allowed {o.limit:.3g}" for o in broken
    ]
    for what, count in (("detections", detections), ("tracks", tracks)):
        if count.ratio < tolerance.agreement:
            found.append(
                f"{what}: {count.matched} of {count.reference} reference and {count.candidate} candidate entries agree"
            )
    return found
