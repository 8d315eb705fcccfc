"""Entries of engines that were never built, and a writer that is killed between any two steps."""

import hashlib
import os
import sys
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path

from visdeploy.backends.engine_index import EngineEntry, SizeRange, Target
from visdeploy.manifest import Tolerance
from visdeploy.parity.certificate import Agreement, Certificate, OutputParity

MODEL_SHA256 = "a" * 64
KILLED = 9
STEPS = {"open", "os.mkdir", "os.chmod", "os.rename", "os.remove", "tempfile.mkstemp", "shutil.copyfile", "fcntl.flock"}


def certificate(**changes) -> Certificate:
    """Return a certificate that passed."""
    output = OutputParity(name="scores", measure="absolute", worst=1e-4, limit=1e-3, frame=3, compared=100, passed=True)
    counts = {"detections": Agreement(), "tracks": Agreement(), "track_ids": Agreement()}
    fields = {
        "reference": "PyTorch", "candidate": "TensorRT", "source": "a synthetic clip", "frames": 8, "height": 60,
        "width": 90, "tolerance": Tolerance(), "outputs": [output], "smallest_mask_iou": None, "mean_mask_iou": 0.9995,
        "failures": [],
    }  # fmt: skip
    return Certificate(**fields | counts | changes)


def ranges(**symbols: tuple[int, int, int]) -> dict[str, SizeRange]:
    return {name: SizeRange(minimum=a, typical=b, maximum=c) for name, (a, b, c) in symbols.items()}


def entry(file: str = "sm90-fp16.plan", plan: bytes = b"plan", **changes) -> EngineEntry:
    """Return an entry that describes `plan`."""
    fields = {
        "file": file, "sha256": hashlib.sha256(plan).hexdigest(), "size": len(plan), "engine": "tensorrt",
        "engine_version": "11.4.0.12", "gpu": "NVIDIA H200", "compute_capability": "9.0", "driver_version": "580.82",
        "precision": "fp16", "profile": ranges(height=(32, 320, 640), width=(32, 640, 1280)),
        "created": datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone.utc), "model_sha256": MODEL_SHA256,
        "certificate": certificate(),
    }  # fmt: skip
    return EngineEntry(**fields | changes)


def target(**changes) -> Target:
    """Return a run that `entry()` can serve."""
    fields = {
        "engine": "tensorrt", "version": "11.4.0.12", "gpu": "NVIDIA H200", "compute_capability": "9.0",
        "precision": "fp16", "model_sha256": MODEL_SHA256, "sizes": {"height": 320, "width": 640},
    }  # fmt: skip
    return Target(**fields | changes)


def killed_before_step(step: int, work: Callable[[], object]) -> bool:
    """Do `work` in a process that dies before its file operation number `step`; whether it died, or was done earlier.

    Only for a process without threads.
    """
    child = os.fork()
    if not child:
        left = step

        def count(event: str, _: tuple[object, ...]) -> None:
            nonlocal left
            if event in STEPS:
                left -= 1
                if left < 0:
                    os._exit(KILLED)

        sys.addaudithook(count)
        work()
        os._exit(0)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if code not in (0, KILLED):
        raise RuntimeError(f"the writer failed with exit code {code}")
    return code == KILLED


def kill_everywhere(root: Path, work: Callable[[Path], object], prepare: Callable[[Path], object]) -> None:
    """Create for every step a folder `root/N` that is prepared, and then left by a writer killed at this step."""
    for step in range(200):
        folder = root / f"{step:03d}"
        prepare(folder)
        if not killed_before_step(step, lambda folder=folder: work(folder)):
            return
    raise RuntimeError("the writer takes more than 200 steps")
