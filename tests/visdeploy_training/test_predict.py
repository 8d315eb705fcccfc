import numpy as np
import pytest
import torch

from visdeploy.errors import DataError
from visdeploy_training import create_model
from visdeploy_training.predict import predict_clip


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    sizes = {"height": 64, "width": 96, "head_width": 16, "mask_width": 16, "neck_width": 16, "track_dim": 16}
    return create_model("visolo", "tiny", classes=["a", "b"], class_prior=0.4, **sizes)


def frames(count, height=50, width=70):
    return np.random.default_rng(0).integers(0, 256, (count, height, width, 3), dtype=np.uint8)


def test_result_has_the_frames_size_and_classes(model):
    model.train()
    video = predict_clip(model, frames(3), name="noise", fps=8)
    assert (video.name, video.height, video.width, video.num_frames, video.fps) == ("noise", 50, 70, 3, 8)
    assert video.classes == ("a", "b")
    assert any(t.masks for t in video.tracks)
    assert all(len(t.scores) == 2 and t.score == max(t.scores) for t in video.tracks)
    assert model.training


def test_frames_before_the_end_do_not_depend_on_later_ones(model):
    long, short = (predict_clip(model, frames(4)[:n]) for n in (4, 2))
    masks = [{t.track_id: t.masks[i] for t in long.tracks if i in t.masks} for i in range(2)]
    assert masks == [{t.track_id: t.masks[i] for t in short.tracks if i in t.masks} for i in range(2)]


def test_an_empty_clip_is_refused(model):
    with pytest.raises(DataError, match="no frame"):
        predict_clip(model, [], name="void")
