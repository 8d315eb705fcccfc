"""Differences of a clip method between overlapping windows and the whole video as one clip.

The published results of TeViT are computed on whole videos. In windows, the messenger shift wraps around the ends of
each window, and attention and scores depend only on its frames. This program measures the effect, on a video that is
short enough to be one clip.

    visdeploy export MODEL.safetensors --set window=60
    python benchmarks/window_difference.py MODEL.vis street.mp4 --frames 60 --length 36 --overlap 12
    python benchmarks/window_difference.py MODEL.safetensors street.mp4 --frames 24 --length 12 --overlap 4

A bundle runs in ONNX Runtime, a checkpoint in PyTorch. By default, the windows are those of the model. A bundle must be
exported for clips as long as the video. Raw outputs are compared frame by frame, for the pairs of a query and a class
that are in the results of both the window and the whole video. Tracks are matched one to one by the IoU of their masks
over all frames, which must be at least 0.5.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

import visdeploy
from visdeploy.backends import Backend, open_backend
from visdeploy.manifest import ModelSpec, Window
from visdeploy.masks import Mask
from visdeploy.streaming.pipeline import Pipeline
from visdeploy.streaming.windows import Step
from visdeploy.tracking.stitching import match, tube_overlaps
from visdeploy.video import open_source

SAME = 0.5
Outputs = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Model:
    """A model with its engine and its default window."""

    spec: ModelSpec
    backend: Backend
    window: Window


@dataclass
class Run:
    """Results of a video in windows: raw outputs of each window, and masks, class and score of every track."""

    raw: list[tuple[Step, Outputs]] = field(default_factory=list)
    masks: dict[int, dict[int, Mask]] = field(default_factory=dict)
    judged: dict[int, tuple[int, float]] = field(default_factory=dict)


def open_model(path: Path, threads: int, frames: int) -> Model:
    """Open a bundle in ONNX Runtime, or a checkpoint in PyTorch, that accepts clips of all frames."""
    if path.is_dir():
        bundle = visdeploy.Bundle.open(path)
        found = Model(bundle.manifest, open_backend(bundle, device="cpu", threads=threads), bundle.manifest.window)
    else:
        found = _in_torch(path, frames)
    length = found.spec.frames.shape[0]
    if isinstance(length, int):
        raise SystemExit(f"{path} accepts only clips of {length} frames, not a whole video")
    if frames not in found.spec.dims[length]:
        raise SystemExit(
            f"{path} accepts clips of {found.spec.dims[length]} frames, not of {frames}: "
            f"export it with --set window={frames}, or use fewer frames"
        )
    return found


def _in_torch(path: Path, frames: int) -> Model:
    from visdeploy_export.loading import load_model
    from visdeploy_training.predict import torch_pipeline
    from visdeploy_training.registry import model_spec

    own = model_spec(load_model(path))
    wider = {} if isinstance(own.frames.shape[0], int) else {"window": max(frames, own.window.length)}
    pipeline = torch_pipeline(load_model(path, overrides=wider))
    return Model(pipeline.spec, pipeline.backend, own.window)


def predict(model: Model, frames: Sequence[np.ndarray], length: int, overlap: int) -> Run:
    """Predict all frames in windows of `length` frames with an overlap of `overlap` frames."""
    window = Window(mode="clip", length=length, stride=length - overlap)
    pipeline = Pipeline(model.spec.model_copy(update={"window": window}), model.backend)
    decoder, found, results = pipeline.decoder(keep_tracks=True), Run(), []
    height, width = frames[0].shape[:2]
    for step in pipeline.steps(frames):
        outputs, _ = pipeline.run(step, None, proof=True)
        found.raw.append((step, outputs))
        results += decoder.decode(outputs, step, height=height, width=width)
    for result in results + decoder.finish():
        for instance in result:
            found.masks.setdefault(instance.track_id, {})[result.index] = instance.mask
    found.judged = {s.track_id: (s.label, s.score) for s in decoder.summaries() if s.track_id in found.masks}
    return found


def compare_raw(whole: Run, parts: Run) -> dict[str, float]:
    """Compute the share of common pairs of query and class, and the differences of their scores, boxes and masks."""
    (_, complete), differences, common, total = whole.raw[0], {}, 0, 0
    names = [name for name in ("scores", "boxes", "mask_logits") if name in complete]
    rows = {pair: row for row, pair in enumerate(_pairs(complete))}
    for step, outputs in parts.raw:
        here = [(row, rows[pair]) for row, pair in enumerate(_pairs(outputs)) if pair in rows]
        total, common = total + len(outputs["queries"]), common + len(here)
        left, right = ([pair[side] for pair in here] for side in (0, 1))
        for name in names:
            seen = complete[name][step.first : step.end, right]
            differences.setdefault(name, []).append(np.abs(outputs[name][:, left] - seen).ravel())
    joined = {name: np.concatenate(each) for name, each in differences.items()}
    means = {f"mean difference of {name}": float(v.mean()) if v.size else float("nan") for name, v in joined.items()}
    most = {f"largest difference of {name}": float(v.max(initial=0)) for name, v in joined.items()}
    return {"pairs in common": common / max(total, 1)} | means | most


def _pairs(outputs: Outputs) -> list[tuple[int, int]]:
    return list(zip(outputs["queries"].tolist(), outputs["labels"].tolist(), strict=True))


def compare_tracks(whole: Run, parts: Run, frames: int) -> dict[str, float]:
    """Match the tracks, and compare their masks, scores, ids and classes."""
    sides = [[[masks.get(t) for t in range(frames)] for masks in run.masks.values()] for run in (whole, parts)]
    overlaps, ids = tube_overlaps(*sides), [list(run.masks) for run in (whole, parts)]
    pairs = [(ids[0][r], ids[1][c], overlaps[r, c]) for r, c in match(overlaps, SAME)] if overlaps.size else []
    ious = [iou for _, _, iou in pairs]
    scores = [abs(whole.judged[a][1] - parts.judged[b][1]) for a, b, _ in pairs]
    return {
        "tracks, whole": len(ids[0]),
        "tracks, windows": len(ids[1]),
        "tracks in common": len(pairs),
        "mask IoU of common tracks, mean": float(np.mean(ious)) if ious else float("nan"),
        "mask IoU of common tracks, smallest": min(ious, default=float("nan")),
        "score difference of common tracks, largest": max(scores, default=float("nan")),
        "common tracks of one class": sum(whole.judged[a][0] == parts.judged[b][0] for a, b, _ in pairs),
        "identical ids": int(len(ids[0]) == len(ids[1]) == len(pairs) and all(a == b for a, b, _ in pairs)),
    }


def main() -> None:
    """Run both, compare, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="bundle folder or checkpoint")
    parser.add_argument("video", help="file or folder of images")
    parser.add_argument("--frames", type=int, default=60, help="maximum number of frames of the video")
    parser.add_argument("--length", type=int, default=None, help="frames of a window")
    parser.add_argument("--overlap", type=int, default=None, help="frames of the overlap of two windows")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path, default=None, help="also write the measurements")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    with open_source(options.video, max_frames=options.frames) as source:
        frames = [frame.image for frame in source]
    model = open_model(options.model, options.threads, len(frames))
    length = options.length or model.window.length
    overlap = model.window.overlap if options.overlap is None else options.overlap
    if not 0 <= overlap < length < len(frames):
        parser.error(
            f"{len(frames)} frames in windows of {length} with overlap {overlap}: use more frames or shorter windows"
        )
    whole, parts = predict(model, frames, len(frames), 0), predict(model, frames, length, overlap)
    figures = {"frames": len(frames), "windows": len(parts.raw), "length": length, "overlap": overlap}
    figures |= compare_raw(whole, parts) | compare_tracks(whole, parts, len(frames))
    title = f"{options.model.name} on {Path(options.video).name}: the whole against windows"
    table = Table("figure", "value", title=title, title_justify="left")
    for name, value in figures.items():
        table.add_row(name, f"{value:.4g}")
    Console(soft_wrap=True).print(table)
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
