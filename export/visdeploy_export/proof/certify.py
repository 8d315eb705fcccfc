"""The proof at the end of an export: PyTorch and the shipped artefact on the same frames."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from visdeploy.backends import Backend
from visdeploy.bundle import SelfTest
from visdeploy.errors import ExportError
from visdeploy.manifest import Manifest
from visdeploy.parity.certificate import AveragePrecision, Certificate
from visdeploy.parity.meter import ParityMeter
from visdeploy.streaming.preprocessing import Preprocessor
from visdeploy.streaming.windows import Feeder, steps
from visdeploy_export.proof.clips import moving_clip

SELFTEST_FRAMES, SELFTEST_SIZE = 9, (90, 160)
"""Nine frames: the first key frame that outlives its slot (frame 5) is read by frame 8 as a key frame."""


def record_selftest(reference: Backend) -> SelfTest:
    """Run the self-test clip through the reference.

    Raises:
        ExportError: An output is not finite.
    """
    manifest = reference.manifest
    frames = moving_clip(SELFTEST_FRAMES, *SELFTEST_SIZE)
    preprocess, state, recorded = Preprocessor(manifest.preprocessing), reference.initial_state(), []
    for step in steps(Feeder.of(manifest), map(preprocess, frames)):
        outputs, state = reference.run(step.inputs, state)
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
    reference: Backend,
    candidate: Backend,
    frames: Iterable[NDArray[np.uint8]],
    *,
    source: str,
    names: tuple[str, str],
    average_precision: AveragePrecision | None = None,
) -> Certificate:
    """Run the same frames through both engines.

    Args:
        reference: The engine taken as right.
        candidate: The engine under test.
        frames: RGB frames of one size.
        source: Description of the frames.
        names: Descriptions of both engines.
        average_precision: AP of both, measured elsewhere.
    """
    manifest: Manifest = candidate.manifest
    preprocess, ahead = Preprocessor(manifest.preprocessing), iter(frames)
    first = next(ahead, None)
    if first is None:
        raise ExportError("the certificate has no frames", hint="Give another `certify_on`.")
    meter = ParityMeter(manifest, height=first.shape[0], width=first.shape[1])
    states = [reference.initial_state(), candidate.initial_state()]
    for step in steps(Feeder.of(manifest), map(preprocess, chain([first], ahead))):
        expected, states[0] = reference.run(step.inputs, states[0])
        outputs, states[1] = candidate.run(step.inputs, states[1])
        meter.update(expected, outputs, step)
    meter.finish()
    return meter.certificate(reference=names[0], candidate=names[1], source=source, average_precision=average_precision)
