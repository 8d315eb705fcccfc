import dataclasses

import numpy as np
import pytest
import torch

from tests.visdeploy_training.methods.defvis.conftest import small_network
from visdeploy.errors import DataError
from visdeploy.methods import create_decoder
from visdeploy.streaming.preprocessing import Preprocessor
from visdeploy_training import create_model, get_method
from visdeploy_training.methods.defvis import ClipStep, DefVIS
from visdeploy_training.predict import predict_clip
from visdeploy_training.registry import model_spec

METHOD = get_method("defvis")


def video(frames: int) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.integers(0, 255, (50, 70, 3), dtype=np.uint8) for _ in range(frames)]


@torch.no_grad()
def test_the_step_gives_the_last_layer(network: DefVIS):
    frames = torch.randn(3, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    scores, boxes, masks = ClipStep(network)(frames)
    output = network(frames[None])
    torch.testing.assert_close(scores, output.logits[-1, 0].softmax(-1)[..., :-1])
    assert torch.equal(boxes, output.boxes[-1, 0])
    assert torch.equal(masks, output.masks[0])
    assert scores.shape == (network.config.slots, 3, 4)


def test_only_defvis_steps():
    with pytest.raises(TypeError, match="Linear"):
        ClipStep(torch.nn.Linear(1, 1))


def visible(**changes: object) -> DefVIS:
    """Return a network whose masks are not empty."""
    model = small_network(tokens=False, **changes)
    with torch.no_grad():
        model.insmask_head[9].bias.fill_(1.0)
        model.class_embed.bias[2] = 9.0
    return model


@pytest.mark.parametrize("length", [1, 2, 3])
def test_prediction_repeats_short_clips(length: int):
    model = visible().train()
    frames = video(length)
    found = predict_clip(model, iter(frames), name="a", fps=5.0)
    assert model.training
    assert (found.num_frames, found.height, found.width, found.fps) == (length, 50, 70, 5.0)
    settings = METHOD.inference(model.config)
    preprocess, step = Preprocessor(settings.preprocessing), ClipStep(model.eval())
    clip = torch.from_numpy(np.concatenate([preprocess(frames[t % length]) for t in range(3)]))
    with torch.inference_mode():
        outputs = {k: v.numpy() for k, v in zip(step.output_names, step(clip), strict=True)}
    decoder = create_decoder(model_spec(model))
    instances = decoder.read(outputs, length=length, height=50, width=70)
    assert [tuple(t.masks.get(i) for i in range(length)) for t in found.tracks] == [i.masks for i in instances]
    assert {t.label for t in found.tracks} == {1}


def test_longer_videos_are_predicted_in_windows():
    model = visible(clip_overlap=1)
    found = predict_clip(model, iter(video(6)))
    assert (found.num_frames, {t.label for t in found.tracks}) == (6, {1})
    assert {frame for t in found.tracks for frame in t.frames} == set(range(6))


def test_a_video_without_frames_is_refused():
    with pytest.raises(DataError, match="no frame"):
        predict_clip(small_network(tokens=False), [])


def test_published_preprocessing():
    """The shorter side is 300, the other is rounded down; the limit of the longer side has no effect in practice."""
    spec = METHOD.inference(METHOD.variants["inst_r50"]).preprocessing
    preprocess = Preprocessor(spec)
    for size, expected in (((720, 1280), (300, 533)), ((360, 640), (300, 533)), ((480, 864), (300, 540)),
                           ((1280, 720), (533, 300)), ((300, 301), (300, 301)), ((110, 144), (300, 392))):  # fmt: skip
        assert preprocess.content_size(*size) == expected
    window = METHOD.inference(METHOD.variants["inst_r50"]).window
    assert (window.mode, window.length, window.overlap) == ("clip", 36, 12)


@pytest.mark.parametrize(("frames", "overlap"), [(1, 0), (4, 3), (20, 12)])
def test_overlap_leaves_a_new_frame_in_every_clip(frames: int, overlap: int):
    settings = METHOD.inference(dataclasses.replace(METHOD.variants["inst_r50"], num_frames=frames))
    assert (settings.window.length, settings.window.overlap) == (frames, overlap)


def test_a_network_of_fixed_multiples_is_fed_its_own_size():
    model = create_model("defvis", "tiny", num_classes=1, hidden_dim=48, num_heads=4, mask_groups=1)
    assert Preprocessor(METHOD.inference(model.config).preprocessing).content_size(720, 1280) == (96, 160)
