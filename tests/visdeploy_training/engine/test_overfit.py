from pathlib import Path

import pytest

import visdeploy
from visdeploy.evaluation import AnnotationSet, evaluate
from visdeploy.results import VideoResult
from visdeploy_training import load_checkpoint, train
from visdeploy_training.datasets import ValidationClip, read_records, to_annotations
from visdeploy_training.datasets.validation import validation_clips
from visdeploy_training.predict import predict_clip


@pytest.mark.slow
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
def test_clips_are_learnt_by_heart(shared, tmp_path, recipe, clips, least):
    """Targets, losses, memory, decoder and evaluator agree on the clips that were trained on."""
    path = train(recipe, [f"data_root={shared / 'data'}", f"output={tmp_path}", "accelerator=cpu"])
    learnt, exported = scores(path, shared / "data/mini_vis", clips)
    assert round(learnt, 6) >= least  # a mean of ten thresholds
    assert exported == pytest.approx(learnt, abs=1e-3)


def scores(checkpoint: Path, folder: Path, only: list[str]) -> tuple[float, float]:
    """AP of a network in PyTorch, and of its exported bundle in the runtime, on the clips it was trained on."""
    model, info = load_checkpoint(checkpoint)
    records = read_records(
        folder / "instances_train.json", folder / "JPEGImages", layout="ytvis", classes=info.classes, only=only
    )
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
