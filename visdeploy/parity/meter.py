"""Comparison of two engines, used for the certificate at export and by `verify`.

Both engines process the same frames. Every raw output is compared by the measure in its `TensorSpec`. In addition, both
runs are decoded by the decoder of the method, so that masks and track ids are compared as users see them. The decoder
of the candidate may decide near-ties as that of the reference (`Decoder.follow`); the certificate states how many.
At export the states that both engines carry to the next step are compared as well.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from visdeploy.manifest import ModelSpec, Tolerance
from visdeploy.methods import create_decoder
from visdeploy.parity.certificate import (
    PIXEL_SLACK,
    Agreement,
    AveragePrecision,
    Certificate,
    OutputParity,
    worst_first,
)
from visdeploy.parity.measures import Outputs, Rows, StepContext, find_measure
from visdeploy.parity.rows import RowMatcher
from visdeploy.parity.state import StateMeter
from visdeploy.results import FrameResult, Instance
from visdeploy.streaming.windows import Step

_ROUNDING = 1e-9
"""Difference of AP that the order of a sum can cause; it applies if a tolerance allows no difference at all."""


class ParityMeter:
    """Compares the raw outputs of two engines step by step and creates a `Certificate`. Keeps no dense arrays.

    Args:
        spec: Outputs, tolerance and decoder of the model.
        height: Height of the frames of the source, in pixels.
        width: Width of the frames of the source, in pixels.
        tolerance: Limits; by default the default tolerance of `spec`.

    Raises:
        BundleError: A measure is unknown, or the outputs that identify rows contradict each other.
    """

    def __init__(self, spec: ModelSpec, *, height: int, width: int, tolerance: Tolerance | None = None) -> None:
        self._specs, self._size = spec.outputs, (height, width)
        self.tolerance = tolerance or spec.tolerance.default
        self._decoders = [create_decoder(spec) for _ in range(2)]
        self._decoders[1].follow(self._decoders[0], self.tolerance)
        own = self._decoders[0].measures
        self._measures = {each.name: find_measure(each.measure, own)(each, self.tolerance) for each in spec.outputs}
        for measure in self._measures.values():
            measure.attach(spec)
        self._matcher = RowMatcher(spec.outputs, self.tolerance.atol)
        self._states = StateMeter(spec.state, self.tolerance)
        self._frames = 0
        self._ious: list[float] = []
        self._detections, self._tracks = np.zeros(4, np.int64), np.zeros(4, np.int64)
        self._ids: tuple[set[int], set[int]] = (set(), set())

    def update(self, reference: Outputs, candidate: Outputs, step: Step) -> None:
        """Compare the next step.

        Args:
            reference: Outputs of the engine taken as correct.
            candidate: Outputs of the engine under test.
            step: Input of both engines.
        """
        both, matched = (reference, candidate), self._matcher.match(reference, candidate)
        self._detections += matched.counts
        rows = (matched.reference, matched.candidate)
        context = StepContext(step.first, reference, candidate, *rows)
        for spec in sorted(self._specs, key=lambda each: self._measures[each.name].phase):
            left, right = (self._matcher.take(spec, o[spec.name], r) for o, r in zip(both, rows, strict=True))
            self._measures[spec.name].update(left, right, context)
        height, width = self._size
        if self._matcher.ranked:
            # track ids depend on the order of rows, which is decided by rounding if they are nearly tied
            both = (self._rows_of(reference, rows[0]), self._rows_of(candidate, rows[1]))
        self._compare(
            *(d.decode(o, step, height=height, width=width) for d, o in zip(self._decoders, both, strict=True))
        )
        self._frames += step.fresh

    def update_state(self, reference: Outputs, candidate: Outputs, step: Step) -> None:
        """Compare the states after a step, where both engines ran it.

        Args:
            reference: State of the engine taken as correct, by input name, on the host.
            candidate: State of the engine under test.
            step: Input of both engines.
        """
        self._states.update(reference, candidate, step.first)

    @property
    def failed(self) -> bool:
        """Whether an output or a state has exceeded its limit so far."""
        found = [*(measure.result() for measure in self._measures.values()), *self._states.results()]
        return not all(each.passed for each in found)

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
        """Create the certificate of all steps seen so far.

        Args:
            reference: Description of the engine taken as correct.
            candidate: Description of the engine under test.
            source: Description of the frames.
            average_precision: AP of both engines, measured elsewhere.
        """
        outputs = [*(measure.result() for measure in self._measures.values()), *self._states.results()]
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
            tracks_note=self._decoders[1].followed(),
            average_precision=average_precision,
            failures=[
                *_failures(outputs, detections, tracks, self.tolerance),
                *_precision_failures(average_precision, self.tolerance),
            ],
        )

    def _rows_of(self, outputs: Outputs, rows: Rows) -> Outputs:
        return {spec.name: self._matcher.take(spec, outputs[spec.name], rows) for spec in self._specs}

    def _compare_results(self, reference: FrameResult, candidate: FrameResult) -> None:
        """Count the (frame, track) entries of both engines, and those that agree in id, label and mask."""
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


def _mask_iou(reference: Instance, candidate: Instance) -> tuple[float, int]:
    """Compute the IoU of two encoded masks, and the number of pixels that differ."""
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
    """Return one sentence per exceeded limit, the worst output first."""
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


def _precision_failures(found: AveragePrecision | None, tolerance: Tolerance) -> list[str]:
    """Return a sentence if AP was measured, and its difference exceeds the limit."""
    limit = tolerance.average_precision
    if found is None or found.difference <= limit + _ROUNDING:
        return []
    return [
        f"average precision: {found.candidate:.4f} against {found.reference:.4f} on {found.videos} videos, "
        f"allowed difference {limit:.2g}"
    ]
