"""One small exported VISOLO bundle per run, and ways to tamper with copies of it."""

import fcntl
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from visdeploy.bundle import MANIFEST, Bundle, seal_bundle

CLASSES = ("cat", "dog", "owl")
OPTIONS = {"class_prior": 0.0, "height": 96, "width": 160, "memory_slots": 5, "score_threshold": 0.75}


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory) -> Path:
    """A `tiny` network with random weights that finds a dozen objects in anything, as a checkpoint of ours."""
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
def tiny_bundle(tiny_checkpoint, tmp_path_factory) -> Path:
    """The exported bundle of `tiny_checkpoint`, one for all workers. Do not write into it; `tamper` copies it."""
    import visdeploy

    base = tmp_path_factory.getbasetemp()
    folder = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    out = folder / "tiny.vis"
    with (folder / "tiny.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # until it is closed
        if not out.exists():
            visdeploy.export(tiny_checkpoint, out, certify_frames=8)
    return out


def tamper(source: Path, target: Path, change: Callable[[Path, dict], None]) -> Path:
    """Copy a bundle, change files or manifest fields, and make all checksums right again.

    Args:
        source: The bundle.
        target: Folder of the copy.
        change: Takes the folder of the copy and the manifest's fields, and changes either in place.
    """
    shutil.copytree(source, target)
    data = json.loads((target / MANIFEST).read_text())
    change(target, data)
    seal_bundle(target, {k: v for k, v in data.items() if k not in ("files", "schema_version")})
    Bundle.open(target)
    return target
