"""VISOLO's decoder: recorded tracks and scores, overlap suppression, resumption, bounded memory, bad outputs."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.visdeploy.step_graph import fields
from visdeploy.errors import BundleError, StreamError, VisdeployError
from visdeploy.manifest import ModelSpec, Window
from visdeploy.masks.resampling import resize_mask
from visdeploy.methods import create_decoder
from visdeploy.methods.visolo import VisoloDecoder, suppress_overlaps

SIZE = (16, 24)
WINDOW = Window(mode="online")


def decoder(classes=3, **options):
    names = [f"class{i}" for i in range(classes)]
    return VisoloDecoder(names, window=WINDOW, decode={}, tracking=options.pop("tracking", {}), **options)


def outputs(masks, class_scores, query, reference, cells=None):
    masks = np.asarray(masks, np.uint8)
    flat = masks.reshape(len(masks), int(np.prod(masks.shape[1:]))).astype(np.float32)
    return {
        "masks": masks,
        "overlaps": flat @ flat.T,
        "cells": np.arange(len(masks)) if cells is None else cells,
        "class_scores": np.asarray(class_scores, np.float32),
        "query": np.asarray(query, np.float32),
        "reference": np.asarray(reference, np.float32),
    }


def stripes(n):
    """Return disjoint masks, one band of columns each."""
    masks = np.zeros((n, *SIZE), np.uint8)
    for i in range(n):
        masks[i, :, 4 * i : 4 * i + 4] = 1
    return masks


def random_outputs(rng, n, classes=3):
    vectors = rng.normal(0, 2, (2, n, 4))
    return outputs(stripes(n), rng.random((n, classes)), *vectors)


def step(dec, out, t=0, size=SIZE):
    return dec.step(out, index=t, timestamp=t / 10, height=size[0], width=size[1])


@pytest.mark.parametrize("case", ["gaps", "starts_empty", "never", "dense"])
def test_recorded_tracks_and_final_scores(shared, case):
    with np.load(shared / "goldens" / "visolo" / "tracker_cases.npz") as data:
        gold = {k.removeprefix(case + "/"): v for k, v in data.items() if k.startswith(case + "/")}
    dec = decoder(classes=5, keep_tracks=True)
    presence = np.zeros((len(gold.get("final_scores", ())), int(gold["T"])), bool)
    for t in range(int(gold["T"])):
        n = int(gold[f"f{t}/count"])
        cells = gold.get(f"f{t}/cell", np.zeros(0, np.int64))
        packed = gold.get(f"f{t}/masks", np.zeros((0, 12), np.uint8))
        masks = np.unpackbits(packed, axis=1)[:, : 8 * 12].reshape(n, 8, 12)
        scores = gold.get(f"f{t}/class_scores", np.zeros((0, 5), np.float32))
        out = outputs(masks, scores, gold["q"][t][cells], gold["r"][t][cells], cells)
        out["overlaps"] = np.diag(np.diagonal(out["overlaps"]))  # the recorded masks are suppressed already
        frame = step(dec, out, t, (8, 12))
        assert dec.last.kept.tolist() == list(range(n))
        assert dec.last.association.track_ids.tolist() == gold.get(f"f{t}/track_id", np.zeros(0)).tolist()
        assert dec.last.association.lost.tolist() == gold[f"f{t}/lost_before_append"].tolist()
        by_id = {i.track_id: i.mask.decode() for i in frame}
        for row, track_id in enumerate(dec.last.association.track_ids):
            presence[track_id, t] = True
            assert np.array_equal(by_id[track_id], masks[row])
    final = dec.summaries()
    assert [s.label for s in final] == gold.get("final_labels", np.zeros(0)).tolist()
    np.testing.assert_allclose([s.score for s in final], gold.get("final_scores", np.zeros(0)), rtol=0, atol=1e-6)
    assert np.array_equal(presence, gold.get("final_presence", presence))


@pytest.mark.parametrize(("file", "frames"), [("online_a.npz", 9), ("official_size_h.npz", 4)])
def test_recorded_masks_at_the_original_size(shared, file, frames):
    with np.load(shared / "goldens" / "visolo" / file) as data:
        gold = {k: v for k, v in data.items() if "/det/" in k or k.startswith("final/")}
    tracks, count, height, width = gold["final/masks_shape"]
    final = np.unpackbits(gold["final/masks_packed"], axis=1)[:, : height * width].reshape(tracks, count, height, width)
    checked = 0
    for t in range(frames):
        n, h, w = gold[f"online/f{t}/det/masks_shape"]
        masks = np.unpackbits(gold[f"online/f{t}/det/masks_packed"], axis=1)[:, : h * w].reshape(n, h, w)
        for mask, track_id in zip(masks, gold[f"online/f{t}/det/track_id"], strict=True):
            assert np.array_equal(resize_mask(mask, height, width), final[track_id, t])
            checked += 1
    assert checked == sum(int(gold[f"online/f{t}/det/count"]) for t in range(frames)) > 0


def suppressed_by_the_letter(masks, threshold):
    masks = masks.copy()
    for i in range(len(masks)):
        for j in range(i + 1, len(masks)):
            if masks[i].any() and masks[j].any() and (masks[i] & masks[j]).sum() / masks[j].sum() > threshold:
                masks[j] = False
    return [i for i, mask in enumerate(masks) if mask.any()]


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**32), st.integers(0, 8), st.sampled_from([0.2, 0.5, 0.8]))
def test_overlap_suppression_follows_the_letter(seed, n, threshold):
    masks = np.random.default_rng(seed).random((n, 12)) < 0.4
    flat = masks.astype(np.float32)
    assert suppress_overlaps(flat @ flat.T, threshold).tolist() == suppressed_by_the_letter(masks, threshold)


def test_exactly_half_covered_survives():
    assert suppress_overlaps(np.array([[4, 2], [2, 4]], np.float32)).tolist() == [0, 1]
    assert suppress_overlaps(np.array([[4, 3], [3, 4]], np.float32)).tolist() == [0]


def test_scores_are_running_means_over_presence():
    dec = decoder(keep_tracks=True)
    strong = [[3, 0]]
    first = step(dec, outputs(stripes(1), [[0.9, 0.1, 0.0]], strong, strong))
    step(dec, outputs(stripes(0), np.zeros((0, 3)), np.zeros((0, 2)), np.zeros((0, 2))), 1)
    third = step(dec, outputs(stripes(1), [[0.3, 0.8, 0.0]], strong, strong), 2)
    assert [(i.track_id, i.label) for i in (*first, *third)] == [(0, 0), (0, 0)]
    assert (first.instances[0].score, third.instances[0].score) == pytest.approx((0.9, 0.6))
    (summary,) = dec.summaries()
    assert (summary.presence, summary.label, summary.score) == (2, 0, pytest.approx(0.6))
    assert summary.class_scores == pytest.approx((0.6, 0.45, 0.0))


def test_a_mask_that_vanishes_when_scaled_down_is_no_instance_but_counts():
    dec = decoder(keep_tracks=True)
    masks = np.zeros((2, *SIZE), np.uint8)
    masks[0, 3, 3] = 1
    masks[1, 8:] = 1
    frame = step(dec, outputs(masks, np.full((2, 3), 0.5), np.eye(2), np.eye(2)), size=(4, 6))
    assert [i.track_id for i in frame] == [1]
    assert [s.presence for s in dec.summaries()] == [1, 1]


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32), st.lists(st.integers(0, 5), min_size=2, max_size=8), st.integers(0, 7), st.booleans())
def test_saved_in_the_middle_continues_alike(seed, counts, cut, keep):
    rng = np.random.default_rng(seed)
    whole, resumed = (decoder(keep_tracks=keep, tracking={"max_lost": 2}) for _ in range(2))
    for t, n in enumerate(counts):
        if t == cut:
            saved, resumed = resumed.state(), decoder(keep_tracks=keep, tracking={"max_lost": 2})
            resumed.load_state(saved)
        out = random_outputs(rng, n)
        assert step(whole, out, t) == step(resumed, out, t)
    assert whole.summaries() == resumed.summaries()


def test_bookkeeping_is_bounded_unless_tracks_are_kept():
    bounded, collecting = decoder(tracking={"max_lost": 5}), decoder(tracking={"max_lost": 5}, keep_tracks=True)
    apart = np.full((3, 4), 9.0)
    for t in range(50):  # opposite vectors: three births in every frame
        out = outputs(stripes(3), np.full((3, 3), 0.5), apart, -apart)
        assert step(bounded, out, t) == step(collecting, out, t)
    assert len(collecting.summaries()) == 150
    assert len(bounded.summaries()) == 3 + 5


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda o: o.pop("query"), "no output 'query'"),
        (lambda o: o.update(masks=o["masks"].astype(np.float32)), "output 'masks' is malformed"),
        (lambda o: o.update(overlaps=o["overlaps"][:1]), "output 'overlaps' is malformed"),
        (lambda o: o.update(class_scores=o["class_scores"][:, :2]), "output 'class_scores' is malformed"),
        (lambda o: o.update(cells=o["cells"].astype(np.int32)), "output 'cells' is malformed"),
        (lambda o: o.update(reference=o["reference"][:, :1]), "output 'reference' is malformed"),
    ],
)
def test_malformed_outputs_change_nothing(spoil, message):
    rng = np.random.default_rng(0)
    dec = decoder()
    step(dec, random_outputs(rng, 3))
    before, out = dec.state(), random_outputs(rng, 3)
    spoil(out)
    with pytest.raises(BundleError, match=message):
        step(dec, out, 1)
    assert all(np.array_equal(before[k], v) for k, v in dec.state().items())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"method": "mystery"}, "no installed package has the method"),
        ({"decode": {"overlap": 0.5}}, r"decode\.overlap"),
        ({"decode": {"overlap_threshold": 2}}, r"decode\.overlap_threshold"),
        ({"tracking": {"max_lost": -1}}, r"tracking\.max_lost"),
        ({"tracking": {"affinity_threshold": "much"}}, r"tracking\.affinity_threshold"),
    ],
)
def test_wrong_manifest_fields_are_named(arguments, message):
    arguments = {"method": "visolo", "decode": {}, "tracking": {}} | arguments
    with pytest.raises(BundleError, match=message):
        create_decoder(ModelSpec(**({k: v for k, v in fields().items() if k in ModelSpec.model_fields} | arguments)))


@pytest.mark.parametrize(
    "spoil",
    [
        lambda s: s.pop("votes.total"),
        lambda s: s.update({"votes.total": s["votes.total"][:, :1]}),
        lambda s: s.update({"votes.presence": s["votes.presence"] * 0}),
        lambda s: s.update({k: v[:1] for k, v in s.items() if k.startswith("votes.")}),
        lambda s: s.pop("tracker.counters"),
    ],
)
def test_a_damaged_state_is_refused_and_changes_nothing(spoil):
    dec = decoder()
    step(dec, random_outputs(np.random.default_rng(0), 3))
    state, fresh = dec.state(), decoder()
    spoil(state)
    with pytest.raises(StreamError) as caught:
        fresh.load_state(state)
    assert isinstance(caught.value, VisdeployError)
    assert fresh.summaries() == []
