"""Export of a checkpoint to a bundle that was compared with PyTorch."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import nn
from torch.export import ExportedProgram

import visdeploy
from visdeploy.arguments import check_flag, check_integer, check_names, check_path, check_type
from visdeploy.backends import open_backend
from visdeploy.brief import shorten
from visdeploy.bundle import CERTIFICATE, SELFTEST, Bundle, seal_bundle, stage_bundle
from visdeploy.bundle_files import file_sha256
from visdeploy.errors import ConfigError, ExportError, VerificationError
from visdeploy.evaluation import read_annotations
from visdeploy.json_fields import MAX_SIDE
from visdeploy.manifest import Tolerance, Tolerances
from visdeploy.parity.certificate import Certificate
from visdeploy.parity.verification import verify
from visdeploy.streaming.pipeline import Pipeline
from visdeploy_export.graph import OPSET, write_onnx
from visdeploy_export.loading import load_model
from visdeploy_export.methods import build_step
from visdeploy_export.proof.certify import compare_engines, record_selftest
from visdeploy_export.proof.clips import Frames, check_frame_count, check_source, describe, moving_clip, open_frames
from visdeploy_export.proof.explain import StepWatch, Suspect, explain_failure, free_page
from visdeploy_export.proof.mini_set import first_video, measure_average_precision
from visdeploy_training import ModelInfo
from visdeploy_training.torch_backend import TorchBackend

PRECISIONS = ("fp32",)
OPSETS = range(20, 24)
SYNTHETIC_SIZE = (360, 640)


def export(
    checkpoint: str | os.PathLike[str],
    out: str | os.PathLike[str] | None = None,
    *,
    method: str | None = None,
    variant: str | None = None,
    classes: str | Sequence[str] | None = None,
    precision: str = "fp32",
    height: int | None = None,
    width: int | None = None,
    opset: int = OPSET,
    overrides: Mapping[str, Any] | None = None,
    certify_on: str | os.PathLike[str] | Frames | None = None,
    certify_frames: int = 30,
    tolerance: Tolerance | None = None,
    ground_truth: str | os.PathLike[str] | None = None,
    overwrite: bool = False,
    on_stage: Callable[[str], None] | None = None,
) -> Bundle:
    """Export a checkpoint, own or official, to a bundle with a parity certificate.

    The certificate is measured on the files of the bundle. After an error no bundle is left on disk. If the certificate
    fails, the page `NAME.parity.html` beside `out` shows the activations of both engines layer by layer. It replaces an
    earlier page. If another file has that name, a number is added to the name of the page.

    Args:
        checkpoint: Checkpoint file.
        out: Bundle folder to write; default: name of the checkpoint with the ending `.vis`.
        method: Method of the checkpoint; default: recognised.
        variant: Variant of the checkpoint; default: recognised.
        classes: Class names in label order, or the name of a public list such as `ytvis2019`, for checkpoints without
            class names, such as official ones.
        precision: Precision of the graph; this version supports `fp32`.
        height: Rows of the network input, in pixels; default: as in the variant. For methods that keep the aspect ratio
            of the frames (DefVIS and TeViT as published), the shorter edge.
        width: Columns of the network input, in pixels; default: as in the variant. For these methods, the maximum
            longer edge.
        opset: ONNX operator set, 20 to 23.
        overrides: Settings of the method to change, for example `{"window": 60, "overlap": 20}`. They are the fields of
            the configuration that no weight depends on; the error for an unknown setting lists them. If a window is
            given without an overlap, an overlap of more than half of it is scaled, and a warning states both.
        certify_on: Frames for the certificate: a video, a folder of images, or RGB arrays; default: a synthetic clip.
            With `ground_truth`, the folder that its image names are relative to.
        certify_frames: Number of frames to compare.
        tolerance: Limits of the certificate and of the self-test.
        ground_truth: YouTube-VIS JSON; the certificate then contains the AP of PyTorch and of the bundle on it, and
            fails if they differ by more than `tolerance.average_precision`.
        overwrite: Replace an existing bundle.
        on_stage: Receives a description of each stage when it begins, and of each frame of the certificate.

    Returns:
        The opened bundle.

    Raises:
        BundleError: `out` exists and must not be replaced, or cannot be written.
        CheckpointError: The checkpoint cannot be read or does not match the method.
        ConfigError: An option has an invalid value.
        ExportError: The graph cannot be exported, or its certificate failed; the message names the tensor and the first
            layer that differs.
        DataError: `ground_truth` is malformed.
        SourceError: `certify_on` cannot be read.
    """
    _check_options(precision, opset, certify_frames, tolerance)
    _check_choices(method=method, variant=variant, classes=classes, height=height, width=width, overrides=overrides)
    check_flag(overwrite, "overwrite")
    if ground_truth is None:
        check_source(certify_on)
    else:
        read_annotations(check_path(ground_truth, "ground_truth"))
    path, say = check_path(checkpoint, "path of a checkpoint"), on_stage or _silent
    target = check_path(out, "path of a bundle") if out is not None else path.with_suffix(".vis")
    with stage_bundle(target, overwrite=overwrite) as folder:
        say(f"reading {path.name}")
        model = load_model(
            path,
            method=method,
            variant=variant,
            classes=classes,
            height=height,
            width=width,
            overrides=overrides,
        )
        step, info = build_step(model), model.info
        say(f"tracing {info.method} {info.variant} and writing the graph")
        written = write_onnx(step, folder, opset=opset, metadata={"method": info.method, "variant": info.variant})
        fields = dict(step.spec) | _origin(info, path) | {"custom_ops": written.custom_ops}
        fields |= {"opset": opset, "precision": precision, "tolerance": Tolerances.standard(tolerance)}
        sealed = seal_bundle(folder, fields)
        manifest, digest = sealed.manifest, sealed.digest
        say("recording the self-test with PyTorch")
        reference = Pipeline(manifest, TorchBackend(step.module, manifest))
        (folder / SELFTEST).write_bytes(replace(record_selftest(reference), manifest=digest).to_bytes())
        say("opening the graph in the engine")
        bundle, watch = seal_bundle(folder, fields), StepWatch()
        certificate = _certify(bundle, reference, certify_on, certify_frames, ground_truth, watch, say)
        if not certificate.passed:
            suspects = watch.suspects(reference.backend)
            raise _failure(certificate, _explain(step.module, written.program, bundle, suspects, free_page(target)))
        certificate = certificate.model_copy(update={"manifest": digest})
        (folder / CERTIFICATE).write_text(certificate.model_dump_json(indent=2) + "\n", encoding="utf-8")
        say("running the self-test of the bundle")
        _prove(seal_bundle(folder, fields))
    return Bundle.open(target)


def _check_options(precision: str, opset: int, certify_frames: int, tolerance: Tolerance | None) -> None:
    """Check the options before anything is computed."""
    if not isinstance(precision, str) or precision not in PRECISIONS:
        raise ConfigError(
            "this precision is not supported", seen=shorten(precision), expected=f"one of {list(PRECISIONS)}"
        )
    if not isinstance(opset, int) or opset not in OPSETS:
        raise ConfigError("this opset is not supported", seen=shorten(opset), expected="20 to 23")
    if tolerance is not None and not isinstance(tolerance, Tolerance):
        raise ConfigError("tolerance has a wrong type", seen=repr(tolerance), expected="visdeploy.manifest.Tolerance")
    check_frame_count(certify_frames)


def _check_choices(
    *, method: Any, variant: Any, classes: Any, height: Any, width: Any, overrides: Mapping[str, Any] | None
) -> None:
    """Check the types of the options that select and change the model; the model checks their values."""
    for name, text in (("method", method), ("variant", variant)):
        if text is not None:
            check_type(text, str, name)
    if classes is not None and not isinstance(classes, str):
        check_names(classes, "classes")
    for name, side in (("height", height), ("width", width)):
        if side is not None:
            check_integer(side, name, minimum=1, maximum=MAX_SIDE)
    if overrides is not None and not (isinstance(overrides, Mapping) and all(isinstance(k, str) for k in overrides)):
        raise ConfigError(
            "overrides", seen=shorten(overrides), expected="a map from the name of a setting to its value"
        )


def _origin(info: ModelInfo, checkpoint: Path) -> dict[str, Any]:
    """Return the fields of the manifest about the origin of the model."""
    provenance = {
        "checkpoint": checkpoint.name,
        "checkpoint_sha256": file_sha256(checkpoint),
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "visdeploy": visdeploy.__version__,
        "torch": torch.__version__,
        "onnx": onnx.__version__,
    }
    return {
        "method": info.method,
        "variant": info.variant,
        "classes": list(info.classes),
        "provenance": provenance,
    }


def _certify(
    bundle: Bundle,
    reference: Pipeline,
    certify_on: str | os.PathLike[str] | Frames | None,
    certify_frames: int,
    ground_truth: str | os.PathLike[str] | None,
    watch: StepWatch,
    say: Callable[[str], None],
) -> Certificate:
    """Measure the certificate of a staged bundle."""
    candidate = Pipeline(bundle.manifest, open_backend(bundle, device="cpu", threads=torch.get_num_threads()))
    precision = None
    if ground_truth is not None:
        truth = Path(ground_truth)
        say(f"measuring the AP on {truth.name}")
        images = Path(certify_on) if isinstance(certify_on, str | os.PathLike) else truth.parent
        precision = measure_average_precision(reference, candidate, truth, images)
        certify_on = first_video(truth, images)
        source = f"the first video of {truth.name}"
    else:
        source = "a synthetic clip" if certify_on is None else describe(certify_on)
    frames = moving_clip(certify_frames, *SYNTHETIC_SIZE) if certify_on is None else certify_on
    return compare_engines(
        reference,
        candidate,
        _announced(open_frames(frames, certify_frames), certify_frames, say),
        source=source,
        average_precision=precision,
        watch=watch,
    )


def _announced(
    frames: Iterable[NDArray[np.uint8]], most: int, say: Callable[[str], None]
) -> Iterator[NDArray[np.uint8]]:
    for number, frame in enumerate(frames, start=1):
        say(f"comparing with PyTorch, frame {number} of {most}")
        yield frame


def _silent(text: str) -> None:
    """Announce nothing."""


def _failure(certificate: Certificate, explanation: str) -> ExportError:
    """Return the error for a failed certificate. It names the worst tensor first."""
    return ExportError(
        "the exported graph does not reproduce PyTorch",
        seen="; ".join(certificate.failures),
        expected=str(certificate.tolerance),
        hint=f"{explanation} No bundle was written. If these differences are acceptable, pass a wider `tolerance`.",
    )


def _explain(
    module: nn.Module, program: ExportedProgram, bundle: Bundle, suspects: Sequence[Suspect], page: Path
) -> str:
    try:
        return explain_failure(module, program, bundle, suspects, page)
    except Exception as error:  # the failed certificate must be reported in any case
        return f"The layers could not be compared: {type(error).__name__}: {error}."


def _prove(bundle: Bundle) -> None:
    """Run the self-test of the staged bundle.

    Raises:
        ExportError: The self-test fails.
    """
    try:
        verify(bundle.path, device="cpu", threads=torch.get_num_threads())
    except VerificationError as error:
        raise ExportError(
            "the exported bundle fails its own self-test", seen=error.seen, expected=error.expected
        ) from error
