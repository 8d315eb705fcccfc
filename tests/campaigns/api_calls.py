"""Calls of the public API with arguments of wrong types and ranges. Each must work or raise one error of the family."""

import os
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import visdeploy
from tests.visdeploy.step_graph import CLASSES, clip, make_bundle
from visdeploy import evaluation, formats, masks, profiling, render, video
from visdeploy.errors import VisdeployError
from visdeploy.streaming.stream import Stream


class Wrong:
    """Object without any interface."""

    def __repr__(self) -> str:
        return "Wrong()"


WRONG = {
    "None": None,
    "text": "text",
    "empty text": "",
    "bytes": b"bytes",
    "null character": "a\0b",
    "lone surrogate": "\ud800",
    "5000 characters": "x" * 5000,
    "-1": -1,
    "1.5": 1.5,
    "True": True,
    "NaN": float("nan"),
    "infinity": float("inf"),
    "400 digits": 10**400,
    "empty list": [],
    "list": [None],
    "dict": {"a": None},
    "object": Wrong(),
    "type": Wrong,
    "array": np.array([1, 2]),
    "array of no dimension": np.array(1.5),
    "function": len,
}


CALLED = ("on_frame", "color", "progress")
"""Parameters that take functions."""


class Target(NamedTuple):
    """Function with good arguments."""

    name: str
    function: Callable[..., object]
    good: dict[str, Any]


def outcome(call: Callable[[], object]) -> str:
    """Return `works`, the name of the typed error, or `raw: ...`."""
    try:
        call()
    except VisdeployError as error:
        return type(error).__name__
    except Exception as error:
        return f"raw: {type(error).__name__}: {str(error)[:200]}"
    return "works"


class Inputs(NamedTuple):
    """Objects that the calls need."""

    folder: Path
    bundle: visdeploy.Bundle
    predictor: visdeploy.VISPredictor
    frames: np.ndarray
    result: visdeploy.VideoResult

    @classmethod
    def make(cls, folder: Path) -> "Inputs":
        """Make them in an empty folder."""
        bundle, frames = make_bundle(folder / "small.vis"), clip(4)
        predictor = visdeploy.VISPredictor(bundle, device="cpu", threads=1)
        return cls(folder, bundle, predictor, frames, predictor(frames))


def api_calls(folder: Path) -> Iterator[tuple[str, Callable[[], object]]]:
    """Yield names and calls: each function with each wrong value in place of each of its good arguments.

    Args:
        folder: Empty folder for the inputs and outputs, the working directory of each call.
    """
    inputs = Inputs.make(folder)
    for group in GROUPS:
        yield from group_calls(group, inputs)


def group_calls(group: str, inputs: Inputs) -> Iterator[tuple[str, Callable[[], object]]]:
    """Yield names and calls of one of `GROUPS`; see `api_calls`."""
    for target in GROUPS[group](inputs):
        yield f"{target.name} with good arguments", partial(_run, inputs.folder, target.function, target.good)
        for parameter in target.good:
            for label, value in WRONG.items():
                if callable(value) and parameter in CALLED:
                    continue  # errors of a caller's own function are not ours
                arguments = target.good | {parameter: value}
                yield f"{target.name}({parameter}={label})", partial(_run, inputs.folder, target.function, arguments)


def _run(folder: Path, function: Callable[..., object], arguments: dict[str, Any]) -> object:
    before = Path.cwd()
    os.chdir(folder)
    try:
        return function(**arguments)
    finally:
        os.chdir(before)


def _results(inputs: Inputs) -> Iterator[Target]:
    result, frames = inputs.result, inputs.frames
    mask = masks.Mask.encode(np.eye(6, 8))
    rle = mask.to_coco()
    instance = visdeploy.Instance(1, 0, 0.5, mask, ("cat",))
    whole = {"track_id": 1, "label": 0, "score": 0.5}
    yield Target("Mask", masks.Mask, {"height": 6, "width": 8, "counts": mask.counts})
    yield Target("Mask().decode", lambda counts: masks.Mask(6, 8, counts).decode(), {"counts": mask.counts})
    yield Target("Mask().area", lambda counts: masks.Mask(6, 8, counts).area, {"counts": mask.counts})
    yield Target("Mask.encode", masks.Mask.encode, {"array": np.eye(6, 8)})
    region = {"region": np.ones((2, 2), bool), "top": 1, "left": 1, "height": 6, "width": 8}
    yield Target("Mask.encode_region", masks.Mask.encode_region, region)
    yield Target("Mask.from_coco", masks.Mask.from_coco, {"rle": rle})
    yield Target("Mask.from_coco(dict)", lambda **rle: masks.Mask.from_coco(rle), dict(rle))
    yield Target("Mask.polygons", mask.polygons, {"tolerance": 0.0})
    yield Target("Instance", visdeploy.Instance, {**whole, "mask": mask, "classes": ("cat",)})
    yield Target("Instance.polygon", instance.polygon, {"tolerance": 0.0})
    yield Target("Instance.crop", instance.crop, {"image": np.zeros((6, 8, 3), np.uint8), "margin": 1})
    frame = {
        "index": 0, "timestamp": 0.0, "height": 6, "width": 8, "instances": (instance,), "classes": ("cat",),
        "image": np.zeros((6, 8, 3), np.uint8),
    }  # fmt: skip
    yield Target("FrameResult", visdeploy.FrameResult, frame)
    yield Target("FrameResult.plot", result.frame(0).plot, {"image": frames[0], "alpha": 0.5})
    track = {**whole, "masks": {0: mask}, "scores": (0.5,)}
    yield Target("Track", visdeploy.Track, track)
    video_result = {
        "name": "v", "height": 6, "width": 8, "num_frames": 2, "classes": ("cat",),
        "tracks": [visdeploy.Track(**track)],
        "fps": 5.0, "expected_frames": 2, "timestamps": (0.0, 0.2), "source": "v.mp4", "positions": (0, 2),
        "address": "v.mp4",
    }  # fmt: skip
    yield Target("VideoResult", visdeploy.VideoResult, video_result)
    yield Target("VideoResult().summary", lambda **facts: visdeploy.VideoResult(**facts).summary(), video_result)
    yield Target("VideoResult().to_json", lambda **facts: visdeploy.VideoResult(**facts).to_json(), video_result)
    yield Target("VideoResult.track", result.track, {"track_id": result.tracks[0].track_id})
    yield Target("VideoResult.frame", result.frame, {"index": 0})
    yield Target("VideoResult.save", result.save, {"path": "saved.json", "format": "ytvis"})
    yield Target("VideoResult.to_json", result.to_json, {"format": "ytvis"})


def _predictions(inputs: Inputs) -> Iterator[Target]:
    bundle, predictor, frames = inputs.bundle, inputs.predictor, inputs.frames
    choice = {"threshold": 0.4, "classes": [CLASSES[0]]}
    reading: dict[str, Any] = {
        "start": 0, "step": 1, "max_frames": 2, "fps": 5.0, "on_error": "raise", "name": "a", "timeout": 1.0,
        "options": {}, "channels": "rgb",
    }  # fmt: skip
    yield Target("Bundle.open", visdeploy.Bundle.open, {"path": bundle.path})
    yield Target("Bundle", visdeploy.Bundle, {"path": bundle.path, "manifest": bundle.manifest})
    opening = {"device": "cpu", "threads": 1, "spinning": False, "tf32": False, "profiler": None}
    yield Target("VISPredictor", visdeploy.VISPredictor, {"bundle": bundle, **opening})
    yield Target("verify", visdeploy.verify, {"path": bundle.path, "tf32": False, "raise_on_failure": True})
    whole = {"source": frames[:2], **choice, "on_frame": None, **reading}
    yield Target("VISPredictor.__call__", predictor, whole)
    one = {"source": frames[:2], **choice, "keep_images": True, **reading}
    yield Target("VISPredictor.stream", lambda **options: list(predictor.stream(**options)), one)
    yield Target(
        "VISPredictor.open_stream(threshold by class)",
        lambda limit, rest: predictor.open_stream(threshold={CLASSES[0]: limit, "*": rest}),
        {"limit": 0.5, "rest": 0.1},
    )
    stream = {"collect": True, "name": "s", "fps": 5.0, **choice, "keep_images": True}
    yield Target("VISPredictor.open_stream", predictor.open_stream, stream)
    yield Target("Stream", Stream, {"pipeline": predictor.pipeline, "identity": "a"} | stream)
    opened = predictor.open_stream(collect=True)
    yield Target("Stream.push", opened.push, {"frame": frames[0], "timestamp": 0.5, "channels": "rgb"})
    yield Target("Stream.save", opened.save, {"path": "stream.npz"})
    yield Target("VISPredictor.load_stream", predictor.load_stream, {"path": "stream.npz"})


def _truth() -> dict[str, Any]:
    return {
        "categories": [{"id": 1, "name": "cat"}],
        "videos": [{"id": 1, "height": 6, "width": 8, "length": 1, "file_names": ["v/0.jpg"]}],
        "annotations": [
            {"id": 1, "video_id": 1, "category_id": 1, "segmentations": [masks.Mask.encode(np.eye(6, 8)).to_coco()]}
        ],
    }


def _evaluation(_: Inputs) -> Iterator[Target]:
    truth = evaluation.read_annotations(_truth())
    mask = masks.Mask.encode(np.eye(6, 8))
    entries = [{"video_id": 1, "category_id": 1, "score": 0.5, "segmentations": [mask.to_coco()]}]
    options = {"video_ids": {"v": 1}, "strict": False}
    call = {"predictions": entries, "ground_truth": truth, "metrics": ("ytvis", "jf"), **options}
    yield Target("evaluate", visdeploy.evaluate, call)
    reading = {"source": _truth(), "require_annotations": True, "strict": False, "first_id": 1}
    yield Target("read_annotations", evaluation.read_annotations, reading)
    for part in ("categories", "videos", "annotations"):
        yield Target(
            f"read_annotations({part})", lambda content, part=part: _read({part: content}), {"content": _truth()[part]}
        )
    yield Target("read_predictions", evaluation.read_predictions, {"source": entries, "truth": truth, **options})
    yield Target("evaluate(entry)", lambda **entry: visdeploy.evaluate([entry], truth), dict(entries[0]))
    yield Target("Category", evaluation.Category, {"id": 1, "name": "cat", "supercategory": ""})
    video_facts = {"id": 1, "height": 6, "width": 8, "file_names": ("v/0.jpg",)}
    yield Target("Video", lambda **facts: evaluation.Video(**facts).name, video_facts)
    facts = {"id": 1, "video_id": 1, "category_id": 1, "masks": (mask,), "areas": (6.0,), "crowd": False}
    yield Target("Annotation", lambda **facts: evaluation.Annotation(**facts).mean_area, facts)
    prediction = {"video_id": 1, "category_id": 1, "score": 0.5, "masks": (mask,), "first": False}
    yield Target("Prediction", lambda **facts: repr(evaluation.Prediction(**facts)), prediction)
    parts = {name: getattr(truth, name) for name in ("source", "categories", "videos", "annotations")}
    parts |= {"ignored": {}, "metrics": ("ytvis",)}
    yield Target("AnnotationSet", lambda **parts: evaluation.AnnotationSet(**parts).annotations_by_video, parts)
    report = visdeploy.evaluate(entries, truth)
    yield Target("Report", lambda metrics: repr(evaluation.Report(metrics)), {"metrics": report.metrics})
    yield Target("Report[]", lambda name: report[name], {"name": "AP"})
    yield Target("Report.get", report.get, {"key": "AP"})
    yield Target("in Report", lambda name: name in report, {"name": "AP"})
    yield Target("Report.table", report.table, {"details": True})


def _read(changes: dict[str, Any]) -> object:
    return evaluation.read_annotations(_truth() | changes)


def _formats(inputs: Inputs) -> Iterator[Target]:
    result = inputs.result
    yield Target("formats.detect_format", formats.detect_format, {"path": "r.json"})
    yield Target("formats.save", formats.save, {"result": result, "path": "r.json", "format": "ytvis"})
    for name in ("coco", "davis", "mots", "parquet"):
        yield Target(f"formats.save({name})", formats.save, {"result": [result], "path": name, "format": name})
    ytvis = {"path": "r.json", "format": "ytvis", "ground_truth": None, "classes": CLASSES}
    yield Target("formats.load", formats.load, ytvis)
    yield Target("formats.load(coco)", formats.load, {"path": "coco", "format": "coco"})
    yield Target("formats.load(davis)", formats.load, {"path": "davis", "keep_void": False})
    mots = {"path": "mots", "format": "mots", "classes": CLASSES, "videos": {"v": (1, 6, 8)}}
    yield Target("formats.load(mots)", formats.load, mots)
    saving = {"result": result, "path": "r.json", "video_ids": {"frames": 1}, "ground_truth": None}
    yield Target("formats.save(ytvis)", formats.save, saving)
    filtering = {"result": result, "path": "f", "format": "mots", "filter_tracks": False}
    yield Target("formats.save(mots, filter_tracks)", formats.save, filtering)
    planned = {"names": ["v"], "path": "r.json", "format": "ytvis"}
    yield Target("formats.planned_outputs", formats.planned_outputs, planned)
    yield Target("formats.to_json", formats.to_json, {"result": result, "format": "coco"})


def _pictures(inputs: Inputs) -> Iterator[Target]:
    result, frames = inputs.result, inputs.frames
    style: dict[str, Any] = {
        "alpha": 0.5, "contours": True, "labels": True, "ids": True, "scores": True, "min_score": 0.1, "font_size": 12,
        "color": render.track_color,
    }  # fmt: skip
    yield Target("render.Style", render.Style, style)
    yield Target("render.draw", render.draw, {"image": frames[0], "frame": result.frame(0), **style})
    yield Target("render.track_color", render.track_color, {"track_id": 5})
    sheet = {"images": list(frames), "path": "sheet.png", "columns": 2, "cell_width": 64, "captions": ["a"]}
    yield Target("render.contact_sheet", render.contact_sheet, sheet)
    rendering: dict[str, Any] = {"path": "overlay.mp4", "source": frames, "fps": 5.0, "quality": 40, "progress": None}
    yield Target("render.render_video", render.render_video, {"result": result, **rendering})
    yield Target("VideoResult.render", result.render, rendering)


def _sources(inputs: Inputs) -> Iterator[Target]:
    frames = inputs.frames
    image = render.contact_sheet(list(frames), inputs.folder / "image.png")
    reading: dict[str, Any] = {
        "max_frames": 2, "start": 1, "step": 2, "name": "a", "fps": 5.0, "on_error": "raise", "timeout": 1.0,
        "options": None, "channels": "bgr",
    }  # fmt: skip
    yield Target("open_source", lambda **options: list(video.open_source(**options)), {"source": frames, **reading})
    yield Target("open_source(list)", lambda item: list(video.open_source([item])), {"item": frames[0]})
    yield Target("open_source(paths)", lambda item: list(video.open_source([image, item])), {"item": "image.png"})
    yield Target("open_source(file URL)", lambda rest: video.open_source(f"file://{rest}"), {"rest": str(image)})
    yield Target("local_files", video.local_files, {"source": "a.mp4"})
    yield Target("is_live", video.is_live, {"source": "a.mp4"})
    yield Target("check_ending", video.check_ending, {"path": "a.mp4"})
    frame = {"index": 0, "timestamp": 0.0, "image": frames[0], "position": 0}
    yield Target("Frame", lambda **facts: repr(video.Frame(**facts)), frame)
    yield Target("Frame in a source", lambda **facts: list(video.open_source([video.Frame(**facts)])), frame)
    with video.open_source(frames) as source:
        report = source.report()
    facts = {name: getattr(report, name) for name in type(report).__slots__}
    yield Target("SourceReport", lambda **facts: repr(video.SourceReport(**facts)), facts)
    writing: dict[str, Any] = {
        "path": "w.mp4", "width": 16, "height": 16, "fps": 5, "quality": 40, "preset": "ultrafast", "odd": "pad",
        "pixel_aspect": 1,
    }  # fmt: skip
    yield Target("VideoWriter", lambda **options: video.VideoWriter(**options).close(), writing)
    yield Target("VideoWriter.write", _write, {"image": np.zeros((16, 16, 3), np.uint8), "timestamp": 0.0})


def _write(**arguments: Any) -> None:
    with video.VideoWriter("w.mp4", 16, 16, 5, quality=40, preset="ultrafast") as writer:
        writer.write(**arguments)


def _exports(_: Inputs) -> Iterator[Target]:
    options: dict[str, Any] = {
        "checkpoint": "missing.pth", "out": "new.vis", "method": None, "variant": None, "classes": ["cat"],
        "precision": "fp32", "height": 64, "width": 64, "opset": 20, "overrides": {}, "certify_on": None,
        "certify_frames": 1, "tolerance": None, "ground_truth": None, "overwrite": True,
    }  # fmt: skip
    yield Target("export", visdeploy.export, options)


def _others(_: Inputs) -> Iterator[Target]:
    profiler = visdeploy.Profiler()
    stage = profiling.Stage.GRAPH
    yield Target("Profiler.add", profiler.add, {"stage": stage, "seconds": 0.1})
    yield Target("Profiler.stage", profiler.stage, {"stage": stage})
    yield Target("Profiler.iterate", lambda **given: list(profiler.iterate(**given)), {"stage": stage, "items": [1]})
    error = {"what": "a", "seen": "b", "expected": "c", "hint": "d"}
    yield Target("VisdeployError", lambda **words: str(VisdeployError(**words)), error)


GROUPS: dict[str, Callable[[Inputs], Iterator[Target]]] = {
    "results": _results,
    "predictions": _predictions,
    "evaluation": _evaluation,
    "formats": _formats,
    "pictures": _pictures,
    "sources": _sources,
    "exports": _exports,
    "others": _others,
}
"""Parts of the public API, each with its functions and methods that take arguments."""
