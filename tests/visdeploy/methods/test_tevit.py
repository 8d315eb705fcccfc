"""TeViT's decoder of one clip; windows and identities are tested in tests/visdeploy/test_clips.py."""

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from visdeploy.errors import BundleError
from visdeploy.manifest import Window
from visdeploy.methods.tevit import TeViTDecoder

SIZE: dict[str, Any] = {"length": 3, "height": 17, "width": 23}
Outputs = dict[str, np.ndarray]
WINDOW = Window(mode="clip", length=4, stride=4)


def decoder(threshold: float = 0.5) -> TeViTDecoder:
    return TeViTDecoder(["a", "b", "c"], window=WINDOW, decode={"mask_threshold": threshold}, tracking={})


def random_outputs() -> Outputs:
    """Return outputs of two pairs in four frames."""
    rng = np.random.default_rng(0)
    corner = 0.5 * rng.random((4, 2, 2))
    return {
        "scores": rng.random((4, 2)).astype(np.float32),
        "labels": np.array([2, 0]),
        "queries": np.array([7, 5]),
        "boxes": np.concatenate([corner - 0.1, corner + 0.6], axis=2).astype(np.float32),
        "mask_logits": rng.standard_normal((4, 2, 28, 28), dtype=np.float32),
    }


def test_pairs_by_plain_words():
    """Compare with the published post-processing, with the sampling of PyTorch."""
    outputs = random_outputs()
    found = decoder(0.6).read(outputs, **SIZE)
    assert [(len(each.masks), each.slot) for each in found] == [(3, 7), (3, 5)]
    y, x = torch.meshgrid(torch.arange(17) + 0.5, torch.arange(23) + 0.5, indexing="ij")
    for pair, instance in enumerate(found):
        label, score, scores = decoder().judge(instance.votes.sum(0), 3)
        assert label == outputs["labels"][pair]
        assert score == pytest.approx(outputs["scores"][:3, pair].mean(), rel=1e-6)
        assert scores[label] == score
        assert sum(scores) == score
        for t, mask in enumerate(instance.masks):
            x0, y0, x1, y1 = outputs["boxes"][t, pair] * np.array([23, 17, 23, 17])
            grid = torch.stack([(x - x0) / (x1 - x0) * 2 - 1, (y - y0) / (y1 - y0) * 2 - 1], dim=-1).float()
            small = torch.from_numpy(outputs["mask_logits"][t, pair]).sigmoid()
            values = F.grid_sample(small[None, None], grid[None], align_corners=False)[0, 0]
            clear = (values - 0.6).abs() > 1e-5
            assert mask is not None
            assert bool(((torch.from_numpy(mask.decode()) == (values >= 0.6)) | ~clear).all())


def test_an_empty_mask_is_an_absent_object():
    outputs = random_outputs()
    outputs["mask_logits"][1, 0] = -9
    outputs["boxes"][2, 1] += 5
    first, second = decoder().read(outputs, **SIZE)
    assert [m is None for m in first.masks] == [False, True, False]
    assert [m is None for m in second.masks] == [False, False, True]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("labels", np.array([0, 3])),
        ("labels", np.array([0, 1], np.int32)),
        ("queries", np.array([0])),
        ("scores", np.zeros((4, 3), np.float32)),
        ("boxes", np.zeros((3, 2, 4), np.float32)),
        ("mask_logits", None),
    ],
)
def test_malformed_outputs_are_refused(name: str, value: np.ndarray | None):
    outputs = random_outputs()
    if value is None:
        del outputs[name]
    else:
        outputs[name] = value
    with pytest.raises(BundleError, match=name):
        decoder().read(outputs, **SIZE)


def test_unknown_parameter_is_refused():
    with pytest.raises(BundleError, match=r"decode\.threshold"):
        TeViTDecoder(["a"], window=WINDOW, decode={"threshold": 1}, tracking={})
