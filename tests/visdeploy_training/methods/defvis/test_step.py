import numpy as np
import pytest
import torch

from tests.visdeploy_training.methods.defvis.conftest import small_network
from visdeploy.errors import DataError
from visdeploy.preprocess import Preprocessor
from visdeploy_training import create_model, get_method
from visdeploy_training.methods.defvis import ClipStep, DefVIS
from visdeploy_training.predict import predict_clip

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


@pytest.mark.parametrize("length", [1, 2, 3])
def test_prediction_repeats_short_clips(length: int):
    model = small_network(tokens=False)
    with torch.no_grad():
        model.insmask_head[9].bias.fill_(1.0)
    model.train()
    frames = video(length)
    found = predict_clip(model, iter(frames), name="a", fps=5.0)
    assert model.training
    assert (found.num_frames, found.height, found.width, found.fps) == (length, 50, 70, 5.0)
    preprocess = Preprocessor(METHOD.inference(model.config).preprocessing)
    step = ClipStep(model.eval())
    clip = torch.from_numpy(np.concatenate([preprocess(frames[t % length]) for t in range(3)]))
    with torch.inference_mode():
        outputs = dict(zip(step.output_names, step(clip), strict=True))
    expected = METHOD.clip_tracks(outputs, model.config, length=length, height=50, width=70)
    assert found.tracks == expected
    assert found.tracks


@pytest.mark.parametrize(("length", "word"), [(0, "no frame"), (4, "longer than one step")])
def test_clips_that_do_not_fit_are_refused(length: int, word: str):
    with pytest.raises(DataError, match=word):
        predict_clip(small_network(tokens=False), video(length))


def test_published_preprocessing():
    """Specification 2.1: shorter side 300, the other cut down to a whole number, no limit in practice."""
    spec = METHOD.inference(METHOD.variants["inst_r50"]).preprocessing
    preprocess = Preprocessor(spec)
    for size, expected in (((720, 1280), (300, 533)), ((360, 640), (300, 533)), ((480, 864), (300, 540)),
                           ((1280, 720), (533, 300)), ((300, 301), (300, 301)), ((110, 144), (300, 392))):  # fmt: skip
        assert preprocess.content_size(*size) == expected
    window = METHOD.inference(METHOD.variants["inst_r50"]).window
    assert (window.mode, window.length) == ("clip", 36)


def test_a_network_of_fixed_multiples_is_fed_its_own_size():
    model = create_model("defvis", "tiny", num_classes=1, hidden_dim=48, num_heads=4, mask_groups=1)
    assert Preprocessor(METHOD.inference(model.config).preprocessing).content_size(720, 1280) == (96, 160)
