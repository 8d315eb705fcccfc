"""DefVIS's decoder of one clip; windows and identities are tested in tests/visdeploy/test_clips.py."""

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from visdeploy.errors import BundleError
from visdeploy.manifest import Window
from visdeploy.methods.defvis import DefVISDecoder

SIZE: dict[str, Any] = {"length": 3, "height": 17, "width": 23}
Outputs = dict[str, np.ndarray]
WINDOW = Window(mode="clip", length=4, stride=4)


def decoder(threshold: float = 0.001) -> DefVISDecoder:
    return DefVISDecoder(["a", "b", "c"], window=WINDOW, decode={"frame_score_threshold": threshold}, tracking={})


def random_outputs(seed: int) -> Outputs:
    """Return outputs of four slots in four frames, with ids 0 to 3; the remaining probability is that of no object."""
    rng = np.random.default_rng(seed)
    logits = 3 * rng.standard_normal((4, 4, 5))
    scores = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    masks = rng.standard_normal((4, 4, 5, 6), dtype=np.float32)
    return {"class_scores": scores[..., :-1].astype(np.float32), "mask_logits": masks}


@given(seed=st.integers(0, 999))
@settings(max_examples=25)
def test_every_slot_by_plain_words(seed: int):
    """Compare with the steps of the published post-processing."""
    given_ = random_outputs(seed)
    given_["mask_logits"][1, :3] -= 9.0  # shows nothing in the frames that count
    found = iter(decoder(0.4).read(given_, **SIZE))
    for slot in (0, 2, 3):
        scores = given_["class_scores"][slot, :3]
        votes = scores.argmax(-1).tolist()
        winner = min(i for i in votes if votes.count(i) == max(votes.count(j) for j in votes))
        if winner == 0:
            continue
        instance = next(found)
        label, score, _ = decoder().judge(instance.votes.sum(0), 3)
        assert label == winner - 1
        assert score == pytest.approx(float(scores.max(-1).mean()), rel=1e-5)
        logits = torch.from_numpy(given_["mask_logits"][slot, :3])[:, None]
        full = F.interpolate(logits, size=(17, 23), mode="bilinear", align_corners=False)[:, 0].sigmoid() > 0.5
        for t, mask in enumerate(instance.masks):
            shown = full[t].numpy() if scores[t].max() >= 0.4 else np.zeros((17, 23), bool)
            assert int(((mask.decode() if mask else False) != shown).sum()) <= 1
    assert next(found, None) is None


def test_the_smallest_id_wins_a_tie():
    scores = np.zeros((1, 4, 4), np.float32)
    scores[0, [0, 1, 2], [3, 2, 1]] = 0.9
    masks = np.ones((1, 4, 5, 6), np.float32)
    (instance,) = decoder().read({"class_scores": scores, "mask_logits": masks}, **SIZE)
    assert decoder().judge(instance.votes.sum(0), 3)[0] == 0


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"class_scores": np.zeros((4, 4, 5), np.float32)}, "class_scores"),
        ({"mask_logits": np.zeros((3, 4, 5, 6), np.float32)}, "mask_logits"),
        ({"mask_logits": np.zeros((4, 4, 5, 6), np.float64)}, "mask_logits"),
    ],
)
def test_malformed_outputs_are_named(change: Outputs, word: str):
    with pytest.raises(BundleError, match=word):
        decoder().read(random_outputs(0) | change, **SIZE)
