"""Frames per second of a full-size method, by stage, compared with PyTorch eager and torch.compile in the same run.

The exported bundle processes a 640x360 clip with `VISPredictor`, including decoding, preprocessing, tracking and
writing. Then the graph alone runs on the first frames on every side: PyTorch eager and compiled, ONNX Runtime with
standard operators and with ours; see `sides.py`.
Without a checkpoint, the weights are random with a fixed seed, and the class bias is set so that `--instances` cells of
an image exceed the score threshold. The time of the dense part of the network does not depend on the weights, but that
of decoding depends on the number of instances.

    python benchmarks/end_to_end.py                       # VISOLO R50 at 352x624
    python benchmarks/end_to_end.py --variant tiny --frames 100
    python benchmarks/end_to_end.py --method defvis --variant inst_r50 --threads 1
    python benchmarks/end_to_end.py --method tevit --variant msgshift --threads 1 --clip-frames 5

For a clip method (DefVIS, TeViT), one window is run on every side instead, see `sides.py`. The published windows
have 36 frames; `--clip-frames` sets a shorter length for random weights, for example on a CPU.
"""

from __future__ import annotations

import argparse
import json
import platform
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from random_weights import random_checkpoint
from rich.console import Console
from rich.table import Table
from sides import EAGER, OURS, time_attention, time_sides

import visdeploy
from visdeploy.profiling import Profiler, Stage
from visdeploy.streaming.pipeline import Pipeline
from visdeploy.video import VideoWriter, open_source
from visdeploy_training.torch_backend import TorchBackend

HEIGHT, WIDTH = 360, 640


def make_clip(path: Path, frames: int) -> Path:
    """Write a 640x360 H.264 clip of moving textured shapes, identical on every machine."""
    rng = np.random.RandomState(0)
    texture = rng.randint(0, 255, (HEIGHT // 8, 2 * WIDTH // 8, 3)).astype(np.uint8).repeat(8, 0).repeat(8, 1)
    with VideoWriter(path, WIDTH, HEIGHT, 25) as writer:
        for t in range(frames):
            frame = texture[:, 4 * t % WIDTH : 4 * t % WIDTH + WIDTH].copy()
            x, y = 40 + 5 * t % 400, 60 + 3 * t % 150
            frame[y : y + 120, x : x + 80] = (200, 60, 40)
            writer.write(frame)
    return path


def read_frames(clip: Path) -> list[np.ndarray]:
    """Return all frames of a video, in RGB."""
    with open_source(clip) as source:
        return [frame.image for frame in source]


def main() -> None:
    """Run all three and print a table; `--json` also writes the measurements."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--method", default="visolo")
    parser.add_argument("--variant", default="r50")
    parser.add_argument("--checkpoint", type=Path, default=None)
    parser.add_argument("--frames", type=int, default=20)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--instances", type=int, default=15)
    parser.add_argument("--no-compile", action="store_true", help="do not measure torch.compile")
    parser.add_argument("--clip-frames", type=int, default=None, help="frames of a window, for random weights")
    parser.add_argument("--rounds", type=int, default=1, help="timed runs of each side")
    parser.add_argument("--steps", type=int, default=6, help="frames of a run of each side (online methods)")
    parser.add_argument("--json", type=Path, default=None)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    console = Console(soft_wrap=True)
    from visdeploy_training import get_method, load_checkpoint

    method = get_method(options.method)
    if method.inference(method.variants[options.variant]).window.mode == "clip":
        measure_clips(console, options)
        return
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        clip = make_clip(root / "clip.mp4", options.frames)
        checkpoint = options.checkpoint or random_checkpoint(
            root / "random.safetensors", options.method, options.variant, objects=options.instances
        )
        bundle = visdeploy.export(checkpoint, root / "model.vis")
        figures = measure_runtime(bundle, clip, options.threads, root)
        module = method.online_step(load_checkpoint(checkpoint)[0].eval())
        pipeline = Pipeline(bundle.manifest, TorchBackend(module, bundle.manifest))
        steps = list(pipeline.steps(read_frames(clip)[: options.steps]))
        times, errors, _ = time_sides(
            bundle, module, steps, threads=options.threads, rounds=options.rounds, compiled=not options.no_compile
        )
        figures["sides"] = {
            n: {"wall_s": t.wall / len(steps), "cpu_s": t.cpu / len(steps), "error": errors[n]}
            for n, t in times.items()
        }
    report(console, figures, options)
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1))


def measure_clips(console: Console, options: argparse.Namespace) -> None:
    """Time one window of a clip method on every side, the stages of the runtime, and the attention of DefVIS alone."""
    from visdeploy_training import get_method, load_checkpoint

    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        checkpoint = options.checkpoint or random_checkpoint(
            root / "random.safetensors", options.method, options.variant, frames=options.clip_frames
        )
        bundle = visdeploy.export(checkpoint, root / "model.vis", certify_frames=1)
        spec = bundle.manifest
        clip = make_clip(root / "clip.mp4", spec.window.length)
        module = get_method(options.method).online_step(load_checkpoint(checkpoint)[0].eval())
        window = next(Pipeline(spec, TorchBackend(module, spec)).steps(read_frames(clip)))
        times, errors, inputs = time_sides(
            bundle, module, [window], threads=options.threads, rounds=options.rounds, compiled=not options.no_compile
        )
        figures = measure_runtime(bundle, clip, options.threads, root, warm=False)
        if inputs is not None:
            layers = module.model.config.encoder_layers
            figures["attention"] = time_attention(inputs, layers, threads=options.threads)
    figures |= {"window": [*window.inputs[spec.frames.name].shape], "stride": spec.window.stride}
    figures["sides"] = {n: {"wall_s": t.wall, "cpu_s": t.cpu, "error": errors[n]} for n, t in times.items()}
    report_clips(console, figures, options)
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1))


def report_clips(console: Console, figures: dict[str, Any], options: argparse.Namespace) -> None:
    """Print the times of the sides, of the stages, and of the attention, if there is one."""
    (length, _, height, width), stride, sides = figures["window"], figures["stride"], figures["sides"]
    table = Table(
        title=f"{options.method} {options.variant}, {options.threads} CPU threads ({platform.machine()}), windows of "
        f"{length} frames of {height}x{width}, {stride} new ones each; fastest of {options.rounds} runs",
        title_justify="left",
    )
    columns = ("side", "s per window", "CPU s per window", "FPS by CPU time", "x eager by CPU time", "worst error")
    for index, column in enumerate(columns):
        table.add_column(column, justify="left" if index == 0 else "right")
    for name, side in sides.items():
        speed, ratio = stride / side["cpu_s"], sides[EAGER]["cpu_s"] / side["cpu_s"]
        row = (f"{side['wall_s']:.2f}", f"{side['cpu_s']:.2f}", f"{speed:.2f}", f"{ratio:.2f}", f"{side['error']:.1e}")
        table.add_row(name, *row)
    console.print(table)
    stages = ", ".join(f"{name} {ms:.1f}" for name, ms in figures["stages_ms"].items())
    console.print(f"VISPredictor, ms per frame of one window: {stages}")
    if (each := figures.get("attention")) is None:
        return
    share = each["layers"] * each["ms"] / (10 * sides[OURS]["cpu_s"])
    console.print(
        f"attention, each of {each['layers']} layers: {each['samples'] / 1e6:.2f} M samples of {each['channels']} "
        f"channels, {each['megabytes']:.1f} MB, {each['gflop']:.2f} GFLOP: {each['ms']:.1f} ms, roof "
        f"{each['roof_ms']:.1f} ms ({each['bound']}), {100 * each['share_of_roof']:.0f} % of it; "
        f"all layers {share:.0f} % of our window"
    )
    console.print(f"roof: {each['machine']}")


def measure_runtime(
    bundle: visdeploy.Bundle, clip: Path, threads: int, root: Path, *, warm: bool = True
) -> dict[str, Any]:
    """Measure the milliseconds per frame of each stage of `VISPredictor`, including the writing of results."""
    predictor = visdeploy.VISPredictor(bundle, device="cpu", threads=threads)
    if warm:
        predictor(clip, max_frames=3)
    profiler = Profiler()
    predictor.pipeline.profiler = profiler
    video = predictor(clip)
    with profiler.stage(Stage.WRITING):
        video.save(root / "results.json", format="ytvis")
    per_frame = {str(stage): 1e3 * seconds / video.num_frames for stage, seconds in profiler.seconds.items()}
    instances = sum(len(t.masks) for t in video.tracks) / video.num_frames
    return {"stages_ms": per_frame, "instances_per_frame": instances, "frames": video.num_frames}


def report(console: Console, figures: dict[str, Any], options: argparse.Namespace) -> None:
    """Print the times of the stages, their shares, and the ratios to PyTorch."""
    stages = figures["stages_ms"]
    total = sum(stages.values())
    graph = stages[str(Stage.GRAPH)]
    figures |= {"total_ms": total, "fps": 1e3 / total, "share_outside_graph": 1 - graph / total}
    table = Table(
        title=f"{options.method} {options.variant}, {options.threads} CPU threads ({platform.machine()}), "
        f"{figures['frames']} frames of {WIDTH}x{HEIGHT}, {figures['instances_per_frame']:.1f} instances a frame",
        title_justify="left",
    )
    for index, column in enumerate(("stage", "ms per frame", "share")):
        table.add_column(column, justify="left" if index == 0 else "right")
    for name, ms in stages.items():
        table.add_row(name, f"{ms:.2f}", f"{100 * ms / total:.2f} %")
    table.add_row("all (visdeploy)", f"{total:.2f}", f"{1e3 / total:.2f} FPS")
    console.print(table)
    sides = figures["sides"]
    table = Table(title=f"{options.steps} steps of the graph on every side, fastest of {options.rounds}")
    columns = ("side", "ms per frame", "CPU ms per frame", "x eager", "x eager by CPU time", "worst error")
    for index, column in enumerate(columns):
        table.add_column(column, justify="left" if index == 0 else "right")
    for name, side in sides.items():
        times = [f"{1e3 * side[key]:.1f}" for key in ("wall_s", "cpu_s")]
        ratios = [f"{sides[EAGER][key] / side[key]:.2f}" for key in ("wall_s", "cpu_s")]
        table.add_row(name, *times, *ratios, f"{side['error']:.1e}")
    console.print(table)
    console.print(f"outside the graph: {100 * figures['share_outside_graph']:.2f} % of the frame time")


if __name__ == "__main__":
    main()
