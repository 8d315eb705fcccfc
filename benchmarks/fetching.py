"""Bytes that a step copies to the host, and its processor time, with and without outputs for certificates.

    python benchmarks/fetching.py BUNDLE
    python benchmarks/fetching.py --seed-method visolo --seed-variant r50

Both sides run the same frames in turns on the same engine. `all outputs` fetches every output, as for a certificate;
`production` fetches only those that streams need.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from machine import machine_line
from random_weights import random_checkpoint

import visdeploy
from visdeploy.backends import State, open_backend
from visdeploy.streaming.pipeline import Pipeline
from visdeploy.streaming.windows import Step

SIDES = {"all outputs": True, "production": False}


def random_bundle(folder: Path, method: str, variant: str) -> Path:
    """Export a network with random weights; they affect the copied bytes only through the number of detections."""
    checkpoint = random_checkpoint(folder / "random.safetensors", method, variant)
    return visdeploy.export(checkpoint, folder / "random.vis", certify_frames=2).path


def one_step(pipeline: Pipeline, step: Step, state: State | None, *, proof: bool) -> tuple[State, int, float]:
    """Run a step; return the next state, the bytes copied to the host, and the processor time in seconds."""
    start = time.process_time()
    outputs, state = pipeline.run(step, state, proof=proof)
    return state, sum(value.nbytes for value in outputs.values()), time.process_time() - start


def measure(pipeline: Pipeline, frames: np.ndarray) -> dict[str, tuple[float, float]]:
    """Measure bytes per frame and the minimum processor time of a step in milliseconds, for each side.

    The first step is not timed.
    """
    steps = list(pipeline.steps(frames))
    states: dict[str, State | None] = dict.fromkeys(SIDES)
    copied, seconds = dict.fromkeys(SIDES, 0), {name: [] for name in SIDES}
    for number, step in enumerate(steps):
        order = list(SIDES.items())
        for name, proof in order if number % 2 else reversed(order):
            states[name], size, spent = one_step(pipeline, step, states[name], proof=proof)
            copied[name] += size
            seconds[name] += [spent] * (number > 0)
    return {name: (copied[name] / len(frames), 1e3 * min(seconds[name])) for name in SIDES}


def main() -> int:
    """Measure and print; return 1 if a step in production fetches an output with the role `proof`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path, nargs="?", help="default: random weights of --seed-method")
    parser.add_argument("--seed-method", default="visolo")
    parser.add_argument("--seed-variant", default="r50")
    parser.add_argument("--frames", type=int, default=12)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = options.bundle or random_bundle(Path(folder), options.seed_method, options.seed_variant)
        bundle = visdeploy.Bundle.open(path)
        pipeline = Pipeline(bundle.manifest, open_backend(bundle, "cpu", options.threads))
        size = (360, 640)
        frames = np.random.default_rng(0).integers(0, 255, (options.frames, *size, 3), dtype=np.uint8)
        found = measure(pipeline, frames)
        fetched = set(pipeline.run(next(pipeline.steps(frames)), None)[0])
    print(machine_line())
    print(
        f"{bundle.manifest.method} {bundle.manifest.variant} on {pipeline.backend.description}, {options.frames} frames"
    )
    for name, (copied, milliseconds) in found.items():
        print(
            f"{name:12s} {copied / 1024:10.1f} KiB per frame to the host, step {milliseconds:8.1f} ms of processor time"
        )
    less = found["all outputs"][0] / max(1.0, found["production"][0])
    ratio = found["production"][1] / found["all outputs"][1]
    proof = {t.name for t in bundle.manifest.outputs if t.role == "proof"}
    print(f"{less:.2f} times fewer bytes, {ratio:.3f} times the processor time")
    print(f"not fetched: {', '.join(sorted(proof))}")
    return int(bool(fetched & proof))


if __name__ == "__main__":
    sys.exit(main())
