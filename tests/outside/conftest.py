"""Fixtures of the sixth method: its installed package, a network trained for one step, and its bundle."""

import os
from pathlib import Path

import numpy as np
import pytest
import yaml

import visdeploy
from tests.outside.packages import lay_out_sixth, on_path
from tests.visdeploy.step_graph import clip
from tests.visdeploy_training.material import CLASSES, ytvis_set
from visdeploy import VISPredictor

METHOD = "recurrent_segmenter"


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """Add the package to the import path, also of other processes."""
    folder = lay_out_sixth(tmp_path_factory.mktemp("installed") / "site")
    with on_path(folder), pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")]))
        yield folder


@pytest.fixture(scope="module")
def trained(site, tmp_path_factory) -> Path:
    """Return the output folder of a training of one step."""
    from visdeploy_training import train

    folder = tmp_path_factory.mktemp("training")
    ytvis_set(folder / "data")
    part = {"annotations": "ytvis.json", "images": "frames", "layout": "ytvis"}
    recipe = {
        "method": METHOD,
        "variant": "small",
        "classes": list(CLASSES),
        "pretrained": False,
        "model": {"height": 48, "width": 80},
        "data_root": str(folder / "data"),
        "train": [part],
        "val": [part | {"only": ["clip1"]}],
        "augment": [{"moving_window": {}}, {"flip": {}}],
        "optim": {"lr": 1.0e-2, "clip_norm": 1.0},
        "batch_size": 2,
        "iterations": 1,
        "checkpoint_every": 1,
        "workers": 0,
        "accelerator": "cpu",
        "output": str(folder / "out"),
    }
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    return train(folder / "recipe.yaml").parent


@pytest.fixture(scope="module")
def checkpoint(trained, tmp_path_factory) -> Path:
    """Return the trained network, with a threshold that its weakest slot exceeds in only some frames of a clip."""
    from visdeploy_training import convert_checkpoint, create_model, save_checkpoint
    from visdeploy_training.predict import torch_pipeline

    made = convert_checkpoint(trained / "model.safetensors")
    sizes = {"height": 48, "width": 80}

    def network(threshold):
        model = create_model(METHOD, "small", classes=made.classes, score_threshold=threshold, **sizes)
        model.load_state_dict(made.state)
        return model.eval()

    pipeline, state, scores = torch_pipeline(network(0.0)), None, []
    for step in pipeline.steps(clip(12, seed=1)):
        outputs, state = pipeline.run(step, state)
        scores.append(outputs["scores"])
    weakest = np.sort(np.array(scores)[:, int(np.mean(scores, axis=0).argmin())])[2:-2]
    widest = int(np.diff(weakest).argmax())  # so that rounding decides nothing
    threshold = float(weakest[widest] + weakest[widest + 1]) / 2
    return save_checkpoint(network(threshold), tmp_path_factory.mktemp("checkpoint") / "sixth.safetensors")


@pytest.fixture(scope="module")
def sixth_bundle(checkpoint, tmp_path_factory) -> Path:
    """Return the exported bundle; do not write into it."""
    return visdeploy.export(checkpoint, tmp_path_factory.mktemp("bundle") / "sixth.vis", certify_frames=6).path


@pytest.fixture(scope="module")
def sixth(sixth_bundle) -> VISPredictor:
    """Return a predictor of it."""
    return VISPredictor(sixth_bundle, device="cpu", threads=1)


@pytest.fixture(scope="module")
def in_torch(checkpoint):
    """Return the same network in PyTorch."""
    from visdeploy_training import load_checkpoint
    from visdeploy_training.predict import torch_pipeline

    return torch_pipeline(load_checkpoint(checkpoint)[0])
