from collections.abc import Callable

import numpy as np
import pytest
import torch

from visdeploy_training import VISModel, create_model, get_method
from visdeploy_training.methods.tevit import ClipStep
from visdeploy_training.predict import predict_clip

Build = Callable[..., VISModel]


@torch.no_grad()
def test_the_best_pairs_of_the_clip(small: Build, clip: torch.Tensor, sizes: torch.Tensor):
    model = small(max_results=4)
    step = ClipStep(model).eval()
    outputs = dict(zip(step.output_names, step(clip[1], sizes[1]), strict=True))
    network = model(clip[1:], sizes[1:])
    scores = network.logits[-1, 0].sigmoid()
    mean = scores.mean(dim=0)
    best = sorted(((float(mean[q, k]), q, k) for q in range(5) for k in range(3)), reverse=True)[:4]
    assert list(zip(outputs["queries"].tolist(), outputs["labels"].tolist(), strict=True)) == [b[1:] for b in best]
    for i, (score, query, label) in enumerate(best):
        assert float(outputs["scores"][:, i].mean()) == pytest.approx(score, rel=1e-5)
        boxes = network.boxes[-1, 0, :, query] / torch.tensor([70.0, 50, 70, 50])
        torch.testing.assert_close(outputs["boxes"][:, i], boxes)
        for t in range(3):
            logits = network.masks(1, torch.tensor([t]), torch.tensor([query]))[0, label]
            torch.testing.assert_close(outputs["mask_logits"][t, i], logits, rtol=1e-4, atol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("frames", [1, 2, 4])
def test_clips_of_any_length(small: Build, frames: int):
    outputs = ClipStep(small(max_results=4)).eval()(torch.randn(frames, 3, 64, 64), torch.tensor([64, 64]))
    assert [tuple(x.shape) for x in outputs] == [
        (frames, 4), (4,), (4,), (frames, 4, 4), (frames, 4, 28, 28)
    ]  # fmt: skip


def test_other_networks_are_refused():
    with torch.device("meta"):
        other = create_model("visolo", "tiny", num_classes=1)
    with pytest.raises(TypeError, match="TeViT"):
        ClipStep(other)


def test_a_longer_video_by_windows(small: Build):
    """Every frame once, tracks of any window under one identity."""
    frames = np.random.default_rng(0).integers(0, 255, (7, 48, 80, 3), dtype=np.uint8)
    result = predict_clip(small(max_results=4, window=4, clip_overlap=2, height=64, width=96), frames)
    assert result.num_frames == 7
    assert result.tracks
    assert {t for track in result.tracks for t in track.masks} <= set(range(7))


@pytest.mark.parametrize("window", [1, 2, 60])
def test_the_window_bounds_the_frames_of_a_clip(small: Build, window: int):
    """A window of one frame leaves no free size; a longer one takes shorter videos whole."""
    spec = get_method("tevit").inference(small(window=window, clip_overlap=0).config)
    frames = spec.frames.shape[0]
    assert spec.window.length == window
    if window == 1:
        assert (frames, "frames" in spec.dims) == (1, False)
    else:
        assert [count in spec.dims[frames] for count in (0, 1, window, window + 1)] == [False, True, True, False]
