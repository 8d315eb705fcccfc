"""Time and memory of the export of a full-size network, and differences of its graph from PyTorch.

    python benchmarks/exporting.py --method defvis --variant inst_r50 --frames 36
    python benchmarks/exporting.py --method tevit --variant msgshift --set window=60 --set overlap=20 --frames 60
    python benchmarks/exporting.py --seeded shared/goldens/defvis/inst_r50_t36.json --clip CLIP.mp4 --frames 36
    python benchmarks/exporting.py --checkpoint MODEL.safetensors --clip CLIP.mp4 --bundle MODEL.vis

The graph runs with our operators and with standard operators. The weights are those of a checkpoint, or generated from
the seed in a golden file (`params` and `overrides`) under official names, or random. Every comparison is a certificate
as made by the export: raw outputs, masks and tracks of all frames of the clip. The exit status is 1 if one fails.
"""

from __future__ import annotations

import argparse
import importlib
import json
import resource
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import onnx
import torch
from random_weights import random_checkpoint
from rich.console import Console
from rich.table import Table

import visdeploy
import visdeploy_plugins
from visdeploy.backends import open_backend
from visdeploy.parity.certificate import Certificate
from visdeploy.streaming.pipeline import Pipeline
from visdeploy_export.loading import load_model
from visdeploy_export.methods import build_step
from visdeploy_export.proof.certify import compare_engines
from visdeploy_export.proof.clips import Frames, moving_clip, open_frames
from visdeploy_training.overrides import parse_overrides
from visdeploy_training.torch_backend import TorchBackend

OURS, STOCK = "ONNX Runtime, our operators", "ONNX Runtime, standard operators"


@dataclass
class Cost:
    """Cost of the export including its certificate: wall-clock and processor time in seconds, peak memory in GiB."""

    wall_s: float
    cpu_s: float
    peak_gib: float


def seeded_checkpoint(details: Path, path: Path) -> Path:
    """Write the weights described in a golden file, in the official layout."""
    sys.path.insert(0, str(Path(__file__).parents[1]))
    golden = importlib.import_module("tests.goldens.core").Golden(details.parent)
    state = golden.weights(details=json.loads(details.read_text(encoding="utf-8")))
    torch.save({"model": state}, path)
    return path


def timed_export(checkpoint: Path, out: Path, clip: Frames | Path, options: argparse.Namespace) -> Cost:
    """Export with a certificate on the clip, and measure the cost."""
    wall, cpu = time.perf_counter(), time.process_time()
    visdeploy.export(
        checkpoint,
        out,
        classes=options.classes,
        overrides=parse_overrides(options.set),
        height=options.height,
        width=options.width,
        certify_on=clip,
        certify_frames=options.certify or options.frames,
        overwrite=True,
    )
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return Cost(time.perf_counter() - wall, time.process_time() - cpu, peak)


def compare(bundle: visdeploy.Bundle, reference: Pipeline, clip: Frames | Path, frames: int, name: str) -> Certificate:
    """Create the certificate of one engine."""
    library = visdeploy_plugins.onnxruntime_library if name == OURS else lambda: None
    with patch.object(visdeploy_plugins, "onnxruntime_library", library):
        candidate = Pipeline(bundle.manifest, open_backend(bundle, device="cpu", threads=torch.get_num_threads()))
    return compare_engines(reference, candidate, open_frames(clip, frames), source=str(clip)[:80])


def node_counts(path: Path) -> dict[str, int]:
    """Count the nodes of the graph, and of the bodies of its functions."""
    model = onnx.load(str(path), load_external_data=False)
    return {"graph": len(model.graph.node)} | {f"{f.domain}::{f.name}": len(f.node) for f in model.functions}


def report(console: Console, figures: dict[str, Any], certificates: dict[str, Certificate]) -> None:
    """Print what was measured."""
    cost = figures["cost"]
    console.print(
        f"{figures['title']}: exported in {cost['wall_s']:.0f} s ({cost['cpu_s']:.0f} s of processor time), "
        f"{cost['peak_gib']:.1f} GiB peak memory; {figures['megabytes']:.0f} MB on disk"
    )
    console.print("nodes: " + ", ".join(f"{name} {count}" for name, count in figures["nodes"].items()))
    table = Table(title=f"against PyTorch, {figures['source']}", title_justify="left")
    for index, column in enumerate(
        ("engine", "largest errors", "smallest mask IoU", "(frame, track) in both", "result")
    ):
        table.add_column(column, justify="left" if index == 0 else "right")
    for name, certificate in certificates.items():
        errors = ", ".join(f"{o.name} {o.worst:.1e}" + (f" ({o.note})" if o.note else "") for o in certificate.outputs)
        low, count = certificate.smallest_mask_iou, certificate.tracks
        shown = "none" if low is None else f"{low:.6f}"
        found = f"{count.matched} of {max(count.reference, count.candidate)}"
        found += f" ({certificate.tracks_note})" if certificate.tracks_note else ""
        table.add_row(name, errors, shown, found, "passed" if certificate.passed else "; ".join(certificate.failures))
    console.print(table)


def main() -> int:
    """Export, compare, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--method", default="defvis")
    parser.add_argument("--variant", default="inst_r50")
    parser.add_argument("--checkpoint", type=Path, default=None)
    parser.add_argument("--seeded", type=Path, default=None, help="golden file that lists seeded weights")
    parser.add_argument("--classes", default=None, help="for an official checkpoint, which contains no class names")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="setting of the method")
    parser.add_argument("--clip", type=Path, default=None, help="default: moving boxes, 360x640")
    parser.add_argument("--frames", type=int, default=36)
    parser.add_argument("--height", type=int, default=None, help="rows, or shorter edge, of the network input")
    parser.add_argument("--width", type=int, default=None, help="columns, or longer edge, of the network input")
    parser.add_argument("--certify", type=int, default=0, help="frames of the bundle's own certificate")
    parser.add_argument("--bundle", type=Path, default=None, help="keep the bundle here")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path, default=None, help="also write the figures")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        checkpoint = options.checkpoint
        if options.seeded is not None:
            options.classes = options.classes or "ytvis2019"
            checkpoint = seeded_checkpoint(options.seeded, root / "official.pth")
        checkpoint = checkpoint or random_checkpoint(root / "random.safetensors", options.method, options.variant)
        clip = options.clip or list(moving_clip(options.frames, 360, 640))
        out = options.bundle or root / "model.vis"
        cost = timed_export(checkpoint, out, clip, options)
        bundle = visdeploy.Bundle.open(out)
        model = load_model(checkpoint, classes=options.classes, overrides=parse_overrides(options.set))
        reference = Pipeline(bundle.manifest, TorchBackend(build_step(model).module, bundle.manifest))
        certificates = {name: compare(bundle, reference, clip, options.frames, name) for name in (OURS, STOCK)}
        size = sum(file.stat().st_size for file in out.iterdir()) / 2**20
        figures = {
            "title": f"{bundle.manifest.method} {bundle.manifest.variant}, {options.threads} threads",
            "source": f"{options.frames} frames of {'moving boxes' if options.clip is None else options.clip.name}",
            "cost": asdict(cost),
            "megabytes": size,
            "nodes": node_counts(bundle.model_path),
        }
    report(Console(soft_wrap=True), figures, certificates)
    if options.json:
        proofs = {name: each.model_dump(mode="json") for name, each in certificates.items()}
        options.json.write_text(json.dumps(figures | {"certificates": proofs}, indent=1))
    return 0 if all(each.passed for each in certificates.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
