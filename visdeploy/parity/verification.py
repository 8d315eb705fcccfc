"""`verify`: compare a bundle on this machine with the outputs of PyTorch stored at export. Does not need PyTorch."""

from __future__ import annotations

import logging
import os
import time
from pathlib import Path

import numpy as np

from visdeploy.arguments import check_flag
from visdeploy.backends import State, open_backend
from visdeploy.bundle import MANIFEST, Bundle
from visdeploy.errors import BundleError, VerificationError
from visdeploy.parity.certificate import Certificate
from visdeploy.parity.meter import ParityMeter
from visdeploy.selftest import SelfTest
from visdeploy.signing.keys import public_key
from visdeploy.streaming.pipeline import Pipeline

logger = logging.getLogger(__name__)


class Report(Certificate):
    """Result of `verify`: the comparison with the outputs stored at export, and the device.

    Attributes:
        bundle: Path of the bundle.
        identity: Identity of the bundle (`Bundle.identity`).
        device: Device that ran the graph.
        milliseconds: Median time of a step of the graph.
        signature: SHA-256 of the public key whose signature was checked, as PEM; empty if no key was given.
    """

    bundle: str
    identity: str
    device: str
    milliseconds: float
    signature: str = ""


def verify(
    path: str | os.PathLike[str],
    device: str = "auto",
    threads: int | None = None,
    *,
    tf32: bool = False,
    raise_on_failure: bool = True,
    key: str | os.PathLike[str] | None = None,
) -> Report:
    """Run the self-test clip of a bundle on this machine, and compare with the outputs of PyTorch at export.

    The frames are processed by the preprocessing, the engine and the decoder of the bundle, with the state passed from
    step to step.

    Args:
        path: The bundle folder.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
        threads: Number of threads of the engine; by default chosen by the engine.
        tf32: Allow TF32 on CUDA; the tolerance of that precision then applies.
        raise_on_failure: Raise an error if a limit is exceeded; otherwise return the failed report.
        key: PEM file of a public key. The signature is checked first; without a valid one, nothing runs.

    Raises:
        BundleError: The bundle is damaged or not signed with `key`, or its graph does not match its manifest.
        ConfigError: An argument or the key is invalid.
        EngineError: The engine cannot start, or fails.
        VerificationError: The bundle runs, but does not reproduce its outputs, or its manifest is not the one that they
            were recorded with; the message names the worst output.
    """
    check_flag(tf32, "tf32")
    check_flag(raise_on_failure, "raise_on_failure")
    bundle = Bundle.open(path, key=key)
    selftest = bundle.selftest()
    pipeline = Pipeline(bundle.manifest, open_backend(bundle, device=device, threads=threads, tf32=tf32))
    description = pipeline.backend.description
    height, width = selftest.frames.shape[1:3]
    tolerance = bundle.manifest.tolerance.of(description.engine, description.precision)
    meter = ParityMeter(bundle.manifest, height=height, width=width, tolerance=tolerance)
    state: State | None = None
    seconds = []
    steps = list(pipeline.steps(selftest.frames))
    if len(steps) != len(selftest.outputs):
        raise BundleError(
            f"{bundle.path}: the self-test is inconsistent",
            seen=f"outputs of {len(selftest.outputs)} steps",
            expected=f"{len(steps)} steps for {len(selftest.frames)} frames",
            hint="Export the bundle again.",
        )
    for step, expected in zip(steps, selftest.outputs, strict=True):
        start = time.perf_counter()
        outputs, state = pipeline.run(step, state, proof=True)
        seconds.append(time.perf_counter() - start)
        meter.update(expected, outputs, step)
    meter.finish()
    certificate = meter.certificate(
        reference=f"PyTorch {bundle.manifest.provenance.torch}, stored at export",
        candidate=str(description),
        source="self-test of the bundle",
    )
    changes: dict[str, object] = {"manifest": selftest.manifest}
    if changed := _changed_manifest(bundle, selftest):
        changes["failures"] = [changed, *certificate.failures]
    report = Report(
        **dict(certificate) | changes,
        bundle=str(Path(path)),
        identity=bundle.identity,
        device=description.device,
        milliseconds=1000 * float(np.median(seconds)),
        signature="" if key is None else public_key(key).fingerprint,
    )
    if raise_on_failure and not report.passed:
        raise VerificationError(
            f"{bundle.path} does not reproduce the outputs stored at export",
            seen="; ".join(report.failures),
            expected=str(report.tolerance),
            hint="The bundle was changed, or this engine computes it incorrectly; export it again or try device='cpu'.",
        )
    return report


def _changed_manifest(bundle: Bundle, selftest: SelfTest) -> str:
    """Return a sentence if the self-test was recorded with another manifest; log if the bundle does not record it."""
    if not selftest.manifest and not bundle.certificate().get("manifest"):
        logger.warning(
            "%s was exported by a version that recorded no digest of %s; a change of it is not noticed",
            bundle.path,
            MANIFEST,
        )
        return ""
    digest = bundle.digest
    if selftest.manifest == digest:
        return ""
    return f"{MANIFEST} (digest {digest[:12]}…) is not that of the self-test ({selftest.manifest[:12] or 'none'}…)"
