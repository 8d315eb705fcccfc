"""A recipe that trains within a second."""

import pytest
import yaml

from tests.visdeploy_training.material import CLASSES, coco_set, ytvis_set


@pytest.fixture
def recipe(tmp_path):
    """Return a recipe of a few iterations of a very small network on squares."""
    ytvis_set(tmp_path / "data" / "v")
    coco_set(tmp_path / "data" / "i")
    fields = {
        "method": "visolo",
        "variant": "tiny",
        "classes": list(CLASSES),
        "model": {"height": 64, "width": 96, "head_width": 16, "mask_width": 16, "neck_width": 16, "track_dim": 16},
        "pretrained": False,
        "data_root": str(tmp_path / "data"),
        "train": [
            {"annotations": "v/ytvis.json", "images": "v/frames", "layout": "ytvis"},
            {"annotations": "i/coco.json", "images": "i/images", "layout": "coco"},
        ],
        "val": [
            {"annotations": "v/ytvis.json", "images": "v/frames", "layout": "ytvis", "only": ["clip1"]},
            {"annotations": "i/coco.json", "images": "i/images", "layout": "coco", "only": ["2"]},
        ],
        "pseudo_frames": 2,
        "augment": [{"moving_window": {}}, {"flip": {}}],
        "paste": 0.3,
        "optim": {"lr": 1.0e-3, "clip_norm": 1.0},
        "batch_size": 2,
        "iterations": 4,
        "checkpoint_every": 2,
        "workers": 0,
        "ema": 0.9,
        "output": str(tmp_path / "out"),
        "accelerator": "cpu",
    }
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(fields))
    return path
