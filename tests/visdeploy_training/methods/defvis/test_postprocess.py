from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from visdeploy_training.methods.defvis import DefVISConfig, clip_tracks
from visdeploy_training.methods.defvis.postprocess import decode_clip, most_frequent

CONFIG = DefVISConfig(num_classes=3, num_frames=4)
SIZE: dict[str, Any] = {"length": 3, "height": 17, "width": 23}


def outputs(seed: int, *, slots: int = 4) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    scores = (3 * torch.randn(slots, 4, 5, generator=generator)).softmax(-1)[..., :-1]
    return {"class_scores": scores, "mask_logits": torch.randn(slots, 4, 5, 6, generator=generator)}


@given(seed=st.integers(0, 999))
@settings(max_examples=25)
def test_every_slot_by_plain_words(seed: int):
    given_ = outputs(seed)
    given_["mask_logits"][1, :3] -= 9.0
    found = {f.slot: f for f in decode_clip(*given_.values(), CONFIG, **SIZE)}
    assert set(found) == {0, 2, 3}
    for slot, result in found.items():
        scores, ids = given_["class_scores"][slot, :3].max(-1)
        assert result.score == pytest.approx(float(scores.sum()) / 3, rel=1e-5)
        counts = {i: ids.tolist().count(i) for i in set(ids.tolist())}
        assert result.category == min(i for i, c in counts.items() if c == max(counts.values()))
        logits = given_["mask_logits"][slot, :3, None]
        full = F.interpolate(logits, size=(17, 23), mode="bilinear", align_corners=False).sigmoid() > 0.5
        assert int((result.masks != full[:, 0]).sum()) <= 1
        assert torch.equal(result.kept, scores >= CONFIG.frame_score_threshold)


@pytest.mark.parametrize(("ids", "expected"), [([2, 1, 1, 2], 1), ([3, 3, 0], 3), ([0], 0)])
def test_most_frequent_prefers_the_smallest(ids: list[int], expected: int):
    assert most_frequent(torch.tensor(ids), 4) == expected


def test_tracks_have_labels_from_zero_and_no_empty_masks():
    scores, masks = torch.zeros(3, 4, 4), torch.full((3, 4, 5, 6), -1.0)
    scores[0, :, 2], scores[1, :, 0], scores[2, :, 1] = 0.9, 0.9, 0.5
    scores[2, 1, 1] = 0.0005  # too low to report a mask
    masks[0, 1:] = 1.0
    masks[1:] = 1.0
    tracks = clip_tracks({"class_scores": scores, "mask_logits": masks}, CONFIG, **SIZE)
    assert [(t.track_id, t.label, t.frames) for t in tracks] == [(0, 1, [1, 2]), (1, 0, [0, 2])]
    assert tracks[0].score == pytest.approx(0.9)
    assert tracks[1].score == pytest.approx((0.5 + 0.0005 + 0.5) / 3)
    assert tracks[0].masks[1].area == 17 * 23


def test_nothing_found():
    empty = {"class_scores": torch.rand(2, 4, 4), "mask_logits": torch.full((2, 4, 5, 6), -1.0)}
    assert clip_tracks(empty, CONFIG, **SIZE) == []
