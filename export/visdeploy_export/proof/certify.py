"""Comparison of PyTorch with the exported graph on the same frames."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from visdeploy.backends import State
from visdeploy.errors import ExportError
from visdeploy.parity.certificate import AveragePrecision, Certificate
from visdeploy.parity.meter import ParityMeter
from visdeploy.selftest import SelfTest
from visdeploy.streaming.pipeline import Pipeline
from visdeploy_export.proof.clips import moving_clip
from visdeploy_export.proof.explain import StepWatch

SELFTEST_FRAMES, SELFTEST_SIZE = 9, (90, 160)
"""Nine frames: frame 8 is the first in which VISOLO reads a key frame (5) that is not one of the two latest frames."""


def record_selftest(reference: Pipeline) -> SelfTest:
    """Run the self-test clip through the reference.

    Raises:
        ExportError: An output is not finite.
    """
    frames, recorded = moving_clip(SELFTEST_FRAMES, *SELFTEST_SIZE), []
    state: State | None = None
    for step in reference.steps(frames):
        outputs, state = reference.run(step, state, proof=True)
        for name, value in outputs.items():
            if value.dtype.kind == "f" and not np.isfinite(value).all():
                raise ExportError(
                    f"PyTorch gives values for output {name!r} that are not finite",
                    seen=f"{int((~np.isfinite(value)).sum())} of {value.size} in the step from frame {step.first} on",
                    hint="Check the checkpoint: its weights are probably damaged, or training diverged.",
                )
        recorded.append(outputs)
    return SelfTest(frames, tuple(recorded))


def compare_engines(
    reference: Pipeline,
    candidate: Pipeline,
    frames: Iterable[NDArray[np.uint8]],
    *,
    source: str,
    average_precision: AveragePrecision | None = None,
    watch: StepWatch | None = None,
) -> Certificate:
    """Run the same frames through both engines.

    Args:
        reference: Engine taken as correct.
        candidate: Engine under test.
        frames: RGB frames of one size.
        source: Description of the frames.
        average_precision: AP of both engines, measured elsewhere.
        watch: Receives every step, to explain a failure later.

    Raises:
        ExportError: There are no frames.
    """
    ahead = iter(frames)
    first = next(ahead, None)
    if first is None:
        raise ExportError("the certificate has no frames", hint="Give another `certify_on`.")
    spec, description = candidate.spec, candidate.backend.description
    tolerance = spec.tolerance.of(description.engine, description.precision)
    meter = ParityMeter(spec, height=first.shape[0], width=first.shape[1], tolerance=tolerance)
    before: State | None = None
    after: State | None = None
    for step in candidate.steps(chain([first], ahead)):
        start = before
        expected, before = reference.run(step, start, proof=True)
        outputs, after = candidate.run(step, after, proof=True)
        meter.update(expected, outputs, step)
        meter.update_state(reference.backend.state_to_host(before), candidate.backend.state_to_host(after), step)
        if watch is not None:
            watch.see(step, start, failed=meter.failed)
    meter.finish()
    return meter.certificate(
        reference=str(reference.backend.description),
        candidate=str(description),
        source=source,
        average_precision=average_precision,
    )
