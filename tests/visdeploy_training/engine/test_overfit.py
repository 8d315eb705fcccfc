"""Targets, losses, memory, decoder and evaluator agree: networks overfitted to real clips find what is in them."""

import json
from pathlib import Path

import pytest

import visdeploy
from visdeploy.evaluation import AnnotationSet, evaluate
from visdeploy.results import VideoResult
from visdeploy_training import load_checkpoint, train
from visdeploy_training.datasets import ValidationClip, read_records, to_annotations
from visdeploy_training.datasets.validation import validation_clips
from visdeploy_training.predict import predict_clip

FRAMES, STEP = 4, 3
"""Length of the short clips, and every how many frames they are taken."""
SMALLER = {
    "visolo_tiny_overfit": ["iterations=40", "model.height=96", "model.width=160", "model.grid=[6, 10]"],
    "defvis_tiny_overfit": ["iterations=50", f"model.num_frames={FRAMES}", f"clip_length={FRAMES}"],
    # EfficientNet has ImageNet weights, with which a tenth of the iterations is enough
    "tevit_tiny_two": [
        "iterations=70",
        f"clip_length={FRAMES}",
        "model.backbone=efficientnet_lite0",
        "pretrained=true",
        "optim.groups=[{name: backbone, lr_factor: 0.3}]",
    ],
}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("recipe", "clips"),
    [
        ("visolo_tiny_overfit", ["car-roundabout"]),
        ("defvis_tiny_overfit", ["car-roundabout"]),
        ("tevit_tiny_two", ["car-roundabout", "bear"]),
    ],
)
def test_short_clips_are_overfitted(shared, tmp_path, recipe, clips):
    """A smaller network and a few frames, at all IoU thresholds up to 0.8 on any processor."""
    annotations = shorten(shared / "data/mini_vis/instances_train.json", clips, tmp_path / "short.json")
    smaller = [*SMALLER[recipe], "channels_last=true"]
    assert_overfitted(recipe, annotations, shared / "data/mini_vis/JPEGImages", tmp_path, 0.7, smaller)


@pytest.mark.campaign
@pytest.mark.parametrize(
    ("recipe", "clips", "least"),
    [
        ("visolo_tiny_overfit", ["car-roundabout"], 0.9),
        # It reaches 0.9 with an IoU of 0.916, too near to 0.9 to ask of every processor: one threshold of slack.
        ("defvis_tiny_overfit", ["car-roundabout"], 0.8),
        # 0.9 with IoUs of 0.944 and 0.920 (its 28x28 masks reach no 0.95): the same slack for one of its two clips.
        ("tevit_tiny_two", ["car-roundabout", "bear"], 0.85),
    ],
)
def test_whole_clips_are_overfitted(shared, tmp_path, recipe, clips, least):
    """The recipes as they are."""
    annotations = shorten(shared / "data/mini_vis/instances_train.json", clips, tmp_path / "whole.json", None, 1)
    assert_overfitted(recipe, annotations, shared / "data/mini_vis/JPEGImages", tmp_path, least, [])


def shorten(source: Path, clips: list[str], target: Path, frames: int | None = FRAMES, step: int = STEP) -> Path:
    """Write the annotations of the first frames of some clips, every so many."""
    data = json.loads(source.read_text())
    videos = [each for each in data["videos"] if each["file_names"][0].split("/")[0] in clips]
    objects = [each for each in data["annotations"] if each["video_id"] in {video["id"] for video in videos}]
    for entry in (*videos, *objects):
        entry |= {key: each[::step][:frames] for key, each in entry.items() if isinstance(each, list)}
    for video in videos:
        video["length"] = len(video["file_names"])
    target.write_text(json.dumps(data | {"videos": videos, "annotations": objects}))
    return target


def assert_overfitted(
    recipe: str, annotations: Path, images: Path, folder: Path, least: float, overrides: list[str]
) -> None:
    """Train on clips; the AP on the same is at least so much, and the exported bundle's is the same."""
    part = json.dumps([{"annotations": str(annotations), "images": str(images), "layout": "ytvis"}])
    paths = [f"train={part}", f"val={part}", f"output={folder / 'out'}", "accelerator=cpu"]
    learnt, exported = scores(train(recipe, [*paths, *overrides]), annotations, images)
    assert round(learnt, 6) >= least  # a mean of ten thresholds
    assert exported == pytest.approx(learnt, abs=1e-3)


def scores(checkpoint: Path, annotations: Path, images: Path) -> tuple[float, float]:
    """Return the AP of a network in PyTorch, and of its exported bundle in the runtime, on its training clips."""
    model, info = load_checkpoint(checkpoint)
    records = read_records(annotations, images, layout="ytvis", classes=info.classes)
    clips, truth = validation_clips(records, pseudo_frames=2), to_annotations(records, info.classes)
    bundle = visdeploy.export(checkpoint, checkpoint.with_suffix(".vis"), certify_frames=2)
    predictor = visdeploy.VISPredictor(bundle, device="cpu", threads=1)
    learnt = [predict_clip(model, clip.frames(), name=clip.record.name) for clip in clips]
    return average_precision(learnt, truth), average_precision([run(predictor, clip) for clip in clips], truth)


def run(predictor: visdeploy.VISPredictor, clip: ValidationClip) -> VideoResult:
    with predictor.open_stream(collect=True, name=clip.record.name) as stream:
        for frame in clip.frames():
            stream.push(frame)
        stream.flush()
        return stream.result()


def average_precision(results: list[VideoResult], truth: AnnotationSet) -> float:
    return float(evaluate(results, truth, video_ids={v.name: v.id for v in truth.videos})["AP"])
