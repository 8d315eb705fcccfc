import pytest

from visdeploy.evaluation import evaluate
from visdeploy_training import load_checkpoint, train
from visdeploy_training.datasets import read_records, to_annotations
from visdeploy_training.datasets.validation import validation_clips
from visdeploy_training.predict import predict_clip


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["visolo_tiny_overfit", "defvis_tiny_overfit"])
def test_one_clip_is_learnt_by_heart(shared, tmp_path, recipe):
    """Targets, losses, memory, decoder and evaluator agree: AP >= 0.9 on the clip that was trained on."""
    path = train(recipe, [f"data_root={shared / 'data'}", f"output={tmp_path}", "accelerator=cpu"])
    model, info = load_checkpoint(path)
    folder = shared / "data/mini_vis"
    records = read_records(
        folder / "instances_train.json",
        folder / "JPEGImages",
        layout="ytvis",
        classes=info.classes,
        only=["car-roundabout"],
    )
    results = [
        predict_clip(model, clip.frames(), name=clip.record.name) for clip in validation_clips(records, pseudo_frames=2)
    ]
    truth = to_annotations(records, info.classes)
    report = evaluate(results, truth, video_ids={v.name: v.id for v in truth.videos})
    assert report["AP"] >= 0.9
