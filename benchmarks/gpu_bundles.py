"""Small bundles of four methods: made where PyTorch and the exporter are, checked where the GPU is.

    python benchmarks/gpu_bundles.py make FOLDER
    python benchmarks/gpu_bundles.py check FOLDER [--device cuda] [--sanitizer PROGRAM]
    python benchmarks/gpu_bundles.py step BUNDLE [--device cuda]

`check` prints a line per check: OK, FAILED or NOT RUN, with the numbers or the reason; `bundle_checks.py` says what
they are. `step` is what compute-sanitizer watches. Exit status: 0 all that ran is well, 1 something failed, 77 nothing
ran.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import logging
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bundle_checks import NotRun, checks_of, one_step

import visdeploy

ROOT = Path(__file__).parents[1]
DEMO = ROOT / "examples" / "models" / "visolo_tiny_demo.safetensors"
NOTHING_RAN = 77
FRAMES = 8
"""Of the clip on which exports prove themselves; windows are of four frames."""


def make_defvis(path: Path) -> Path:
    """A checkpoint of a small DefVIS network whose slots see objects in anything."""
    import torch

    from visdeploy_training import create_model, save_checkpoint

    torch.manual_seed(0)
    sizes = {"num_frames": 4, "clip_overlap": 1, "hidden_dim": 96, "feedforward_dim": 96, "mask_groups": 2}
    model: Any = create_model("defvis", "tiny", num_classes=3, **sizes)
    model.class_embed.weight.data.mul_(4)
    model.class_embed.bias.data[[0, -1]] = -5
    model.insmask_head[-1].weight.data.mul_(4)
    model.insmask_head[-1].bias.data.fill_(0.1)
    return save_checkpoint(model, path)


def make_tevit(path: Path) -> Path:
    """A checkpoint of a small TeViT network whose proposals are spread over the image."""
    import torch

    from visdeploy_training import create_model, save_checkpoint

    torch.manual_seed(0)
    model = create_model("tevit", "tiny", num_classes=3, window=4, clip_overlap=1)
    model.get_parameter("rpn_head.init_proposal_bboxes.weight").data.uniform_(0.1, 0.6)
    for name, parameter in model.named_parameters():
        if name.endswith("fc_reg.weight"):
            parameter.data.mul_(0.1)  # boxes that jump would make a last bit a pixel
    return save_checkpoint(model, path)


def make_tpr(path: Path) -> Path:
    """Save a small TPR network that finds objects, some of whose gates are open."""
    import torch

    from visdeploy_training import create_model, get_method, save_checkpoint

    torch.manual_seed(0)
    sizes = {"channels": 32, "num_groups": 8, "cpr_depths": (1, 0, 0, 0, 1), "tower_depth": 1, "track_dim": 16}
    model = create_model("tpr", "tiny", num_classes=3, **sizes).eval()
    get_method("tpr").show_objects(model, 15)
    return save_checkpoint(model, path)


CHECKPOINTS: dict[str, Callable[[Path], Path]] = {
    "demo": lambda _: DEMO,
    "defvis": make_defvis,
    "tevit": make_tevit,
    "tpr": make_tpr,
}


def make(folder: Path) -> int:
    """Export every bundle that the folder lacks."""
    for module in ("torch", "onnx", "onnxscript", "visdeploy_export"):
        try:
            importlib.import_module(module)
        except ImportError as error:
            print(f"NOT RUN  make: {error}; make the bundles elsewhere and name their folder in BUNDLES")
            return NOTHING_RAN
    folder.mkdir(parents=True, exist_ok=True)
    for name, checkpoint in CHECKPOINTS.items():
        target = folder / f"{name}.vis"
        if target.exists():
            continue
        with tempfile.TemporaryDirectory() as scratch:
            weights = checkpoint(Path(scratch) / f"{name}.safetensors")
            visdeploy.export(weights, target, certify_frames=FRAMES)
        print(f"OK       made {target}")
    return 0


def check(folder: Path, options: argparse.Namespace) -> int:
    """Check every bundle of a folder, and print a line for each check."""
    paths = sorted(folder.glob("*.vis"))
    if not paths:
        print(f"NOT RUN  bundles: there is none in {folder}; `gpu_bundles.py make` makes them")
        return NOTHING_RAN
    outcomes = [outcome for path in paths for outcome in _check_bundle(path, options)]
    return 1 if "FAILED" in outcomes else 0 if "OK" in outcomes else NOTHING_RAN


def _check_bundle(path: Path, options: argparse.Namespace) -> list[str]:
    limits = {"frames": options.frames, "sanitizer": options.sanitizer, "seconds": options.seconds}
    name = path.stem
    try:
        checks = checks_of(visdeploy.Bundle.open(path), options.device, **limits)
    except visdeploy.VisdeployError as error:
        print(f"FAILED   {name}: {error}")
        return ["FAILED"]
    outcomes = []
    for what, work in checks.items():
        outcome, detail = _outcome(work)
        print(f"{outcome:8} {name}: {what}: {detail}", flush=True)
        outcomes.append(outcome)
    return outcomes


def _outcome(work: Callable[[], str]) -> tuple[str, str]:
    try:
        return "OK", work()
    except (NotRun, visdeploy.DependencyError) as reason:
        return "NOT RUN", str(reason)
    except Exception as error:  # whatever it is, the other checks go on
        return "FAILED", f"{type(error).__name__}: {error}".replace("\n", " ")


def main(words: list[str] | None = None) -> int:
    """Parse the command line and do what it says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("make", "check", "step"))
    parser.add_argument("path", type=Path, help="folder of bundles, or the bundle of `step`")
    parser.add_argument("--device", default="cuda", help="cpu stands in for a GPU where there is none")
    parser.add_argument("--frames", type=int, default=18, help="of each stream")
    parser.add_argument("--sanitizer", default=None, help="path of compute-sanitizer")
    parser.add_argument("--seconds", type=float, default=120.0, help="for one step under compute-sanitizer")
    options = parser.parse_args(words)
    logging.basicConfig(level=logging.WARNING, format="         %(levelname)s: %(message)s", stream=sys.stdout)
    if options.device != "cpu":
        # brings CUDA's libraries into the process, where ONNX Runtime finds them
        with contextlib.suppress(ImportError):
            importlib.import_module("torch")
    if options.what == "make":
        return make(options.path)
    if options.what == "check":
        return check(options.path, options)
    print(one_step(visdeploy.Bundle.open(options.path), options.device))
    return 0


if __name__ == "__main__":
    sys.exit(main())
