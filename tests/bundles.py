"""Small exported VISOLO bundle, made once per session, and functions that change copies of it."""

import json
import shutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

import pytest

from visdeploy.bundle import CERTIFICATE, MANIFEST, SELFTEST, Bundle, seal_bundle
from visdeploy.errors import BundleError

CLASSES = ("cat", "dog", "owl")
OPTIONS = {"class_prior": 0.0, "height": 96, "width": 160, "memory_slots": 5, "score_threshold": 0.75}


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory) -> Path:
    """Return a `tiny` network with random weights that finds a dozen objects in anything, as a checkpoint of ours."""
    import torch

    from visdeploy_training import create_model, save_checkpoint

    with torch.random.fork_rng():
        torch.manual_seed(7)
        model = create_model("visolo", "tiny", classes=CLASSES, **OPTIONS)
        # Random weights give mask logits far larger than trained ones, and with them larger rounding differences
        # between engines. Smaller kernels leave every mask as it is: a mask is where the logit is positive.
        model.get_parameter("Kernel_branch.pred.norm.weight").data.mul_(0.1)
    return save_checkpoint(model, tmp_path_factory.mktemp("checkpoint") / "tiny.safetensors")


@pytest.fixture(scope="session")
def tiny_export(tiny_checkpoint, tmp_path_factory):
    """Return the exported bundle of `tiny_checkpoint`, and what `write_onnx` said about its graph."""
    import visdeploy
    from visdeploy_export import exporter

    written, write = [], exporter.write_onnx

    def keep(*arguments, **options):
        written.append(write(*arguments, **options))
        return written[-1]

    with patch.object(exporter, "write_onnx", keep):
        out = tmp_path_factory.mktemp("bundle") / "tiny.vis"
        return visdeploy.export(tiny_checkpoint, out, certify_frames=8).path, written[-1]


@pytest.fixture(scope="session")
def tiny_bundle(tiny_export) -> Path:
    """Return the exported bundle of `tiny_checkpoint`. Do not write into it; `tamper` copies it."""
    return tiny_export[0]


def record_digest(bundle: Bundle) -> None:
    """Write the digest of a bundle's manifest into its certificate and its self-test, if they contain one."""
    certificate = bundle.path / CERTIFICATE
    data = json.loads(certificate.read_bytes())
    if "manifest" in data:
        certificate.write_text(json.dumps(data | {"manifest": bundle.digest}))
    with suppress(BundleError):  # damaged on purpose
        selftest = bundle.selftest()
        if selftest.manifest:
            (bundle.path / SELFTEST).write_bytes(replace(selftest, manifest=bundle.digest).to_bytes())


def tamper(source: Path, target: Path, change: Callable[[Path, dict], None]) -> Path:
    """Copy a bundle, change files or manifest fields, and update all checksums.

    Args:
        source: The bundle.
        target: Folder of the copy.
        change: Takes the folder of the copy and the manifest's fields, and changes either in place.
    """
    shutil.copytree(source, target)
    data = json.loads((target / MANIFEST).read_text())
    change(target, data)
    fields = {k: v for k, v in data.items() if k not in ("files", "schema_version")}
    record_digest(seal_bundle(target, fields))
    seal_bundle(target, fields)
    Bundle.open(target)
    return target
