"""Properties that hold for any ground truth and any predictions."""

import copy
import json

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tests.visdeploy.evaluation.builders import (
    FRAMES,
    HEIGHT,
    WIDTH,
    annotation,
    box_rle,
    ground_truth,
    moving,
    perfect,
    prediction,
    video,
)
from visdeploy.errors import ConfigError
from visdeploy.evaluation import evaluate, read_annotations
from visdeploy.evaluation.boundary import Contour, contour_map, contour_score

ALL = ("ytvis", "jf", "hota", "clear", "identity", "trackmap")


@st.composite
def tracks(draw) -> list:
    boxes = st.builds(box_rle, st.integers(0, 50), st.integers(0, 30), st.integers(3, 25), st.integers(3, 25))
    masks = draw(st.lists(st.none() | boxes, min_size=FRAMES, max_size=FRAMES))
    masks[draw(st.integers(0, FRAMES - 1))] = draw(boxes)
    return masks


@st.composite
def ground_truths(draw) -> dict:
    objects = draw(st.lists(st.tuples(st.integers(1, 2), st.sampled_from([1, 7]), tracks()), min_size=1, max_size=4))
    entries = [annotation(n, v, c, masks) for n, (v, c, masks) in enumerate(objects, 1)]
    return ground_truth() | {"annotations": entries}


@st.composite
def predictions(draw) -> list[dict]:
    found = draw(st.lists(st.tuples(st.integers(1, 2), st.sampled_from([1, 7]), tracks()), max_size=5))
    scores = draw(st.permutations(range(len(found))))
    return [prediction(v, c, 0.3 + 0.1 * s, masks) for (v, c, masks), s in zip(found, scores, strict=True)]


@settings(max_examples=25, deadline=None)
@given(ground_truths())
def test_perfect_predictions_are_perfect(truth):
    report = evaluate(perfect(truth), truth, metrics=ALL)
    present = {a["category_id"] for a in truth["annotations"]}
    names = [c["name"] for c in truth["categories"] if c["id"] in present]
    assert report["AP"] == pytest.approx(1)
    assert report["AR100"] == 1
    for name in names:
        assert report["hota"]["per_class"][name]["DetA"] == 1
        assert report["clear"]["per_class"][name]["MOTA"] == 1
        assert report["identity"]["per_class"][name]["IDF1"] == 1


def test_perfect_disjoint_objects_have_perfect_contours_and_association():
    truth = ground_truth()
    report = evaluate(perfect(truth), truth, metrics=ALL)
    assert (report["JF_mean"], report["J_recall"], report["J_decay"]) == (1, 1, 0)
    assert report["HOTA"] == pytest.approx(1)
    assert report["IDSW"] == 0


@settings(max_examples=25, deadline=None)
@given(ground_truths(), predictions(), st.randoms())
def test_order_of_predictions_does_not_matter(truth, found, random):
    shuffled = random.sample(found, len(found))
    first, second = (evaluate(order, truth, metrics=["ytvis", "jf", "identity"]) for order in (found, shuffled))
    assert first["ytvis"] == second["ytvis"]
    assert first["identity"] == second["identity"]
    assert first["JF_mean"] == pytest.approx(second["JF_mean"], abs=1e-12)


@settings(max_examples=25, deadline=None)
@given(ground_truths(), predictions(), tracks(), st.integers(1, 2), st.sampled_from([1, 7]))
def test_a_last_false_positive_never_raises_ap(truth, found, masks, video_id, category_id):
    """A prediction below all others of a class without ground truth in its video can only be wrong."""
    assume(all((a["video_id"], a["category_id"]) != (video_id, category_id) for a in truth["annotations"]))
    before, after = evaluate(found, truth), evaluate([*found, prediction(video_id, category_id, 0.1, masks)], truth)
    assert after["AP"] <= before["AP"] + 1e-12
    assert after["AR100"] == before["AR100"]


@settings(max_examples=25, deadline=None)
@given(tracks(), tracks())
def test_j_and_f_are_symmetric(one, other):
    def score(wanted, found):
        truth = ground_truth() | {"videos": [video(1)], "annotations": [annotation(1, 1, 1, wanted)]}
        return evaluate([prediction(1, 1, 0.5, found)], truth, metrics=["jf"])["jf"]["per_object"]["clip1_1"]

    assert score(one, other) == pytest.approx(score(other, one), abs=1e-12)


@settings(max_examples=25, deadline=None)
@given(ground_truths(), predictions())
def test_scores_stay_in_range_and_survive_json(truth, found):
    report = evaluate(found, truth, metrics=ALL)
    for name in ("AP", "AP50", "AR1", "AR100", "JF_mean", "HOTA", "DetA", "AssA", "LocA", "IDF1", "MOTP"):
        assert 0 <= report[name] <= 1 + 1e-9 or (report[name] == -1 and name.startswith("A")), name
    assert report["AP75"] <= report["AP50"] + 1e-12
    assert json.loads(json.dumps(report.to_dict())) == report.metrics


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.booleans())
def test_contour_follows_its_definition(seed, smooth):
    mask = np.random.default_rng(seed).random((9, 12)) < (0.9 if smooth else 0.5)
    expected = np.zeros_like(mask)
    for y, x in np.ndindex(mask.shape):
        inside = [(y + dy, x + dx) for dy, dx in ((0, 1), (1, 0), (1, 1)) if y + dy < 9 and x + dx < 12]
        expected[y, x] = any(mask[y, x] != mask[place] for place in inside)
    assert (contour_map(mask) == expected).all()


def test_contour_window_changes_nothing():
    shape, full = (90, 120), (slice(0, 90), slice(0, 120))
    for y, x in ((0, 0), (30, 40), (70, 95)):
        mask = np.zeros(shape, bool)
        mask[y : y + 20, x : x + 25] = True
        window = (slice(max(y - 3, 0), y + 23), slice(max(x - 3, 0), x + 28))
        window = tuple(slice(w.start, min(w.stop, size)) for w, size in zip(window, shape, strict=True))
        part, whole = Contour.of(mask[window], window, shape), Contour.of(mask, full, shape)
        assert (part.pixels == whole.pixels).all()
        assert (part.near == whole.near).all()
        assert contour_score(part, whole) == 1


def crowd_truth() -> dict:
    truth = ground_truth()
    truth["annotations"].append(annotation(4, 1, 1, moving(20, 25, 20, 12), iscrowd=1))
    return truth


def test_crowds_absorb_any_number_of_predictions():
    truth = crowd_truth()
    extra = [prediction(1, 1, 0.99, moving(20, 25, 20, 12)), prediction(1, 1, 0.98, moving(20, 25, 20, 12))]
    assert evaluate([*perfect(truth), *extra], truth)["AP"] == pytest.approx(1)


def test_an_object_is_taken_before_a_crowd_that_fits_better():
    truth = crowd_truth()
    truth["annotations"][0]["segmentations"] = moving(22, 25, 20, 12)
    assert evaluate([prediction(1, 1, 0.9, moving(20, 25, 20, 12))], truth)["per_category"]["cat"]["AR1"] > 0


def test_more_than_100_predictions_of_one_class():
    truth = ground_truth()
    wrong = [prediction(1, 1, 0.95, [box_rle(50, 30, 4, 4), *[None] * (FRAMES - 1)]) for _ in range(100)]
    found = evaluate([*wrong, *perfect(truth)], truth)["per_category"]
    assert found["cat"]["AR100"] == pytest.approx(0.5)  # the cat of video 1 is the 101st of its class there
    assert found["dog"]["AP"] == pytest.approx(1)


def test_empty_predictions_and_empty_masks():
    truth = ground_truth()
    report = evaluate([], truth, metrics=ALL)
    assert (report["AP"], report["AR100"], report["HOTA"], report["IDF1"]) == (0, 0, 0, 0)
    assert report["J_mean"] == pytest.approx(1 / 15)  # the one frame in which the third object is absent
    nothing = {"size": [HEIGHT, WIDTH], "counts": [HEIGHT * WIDTH]}
    report = evaluate([prediction(1, 1, 0.9, [nothing] * FRAMES)], truth, metrics=ALL)
    assert (report["AP"], report["CLR_FP"]) == (0, FRAMES)
    assert report["J_mean"] == pytest.approx(1 / 15)


def test_no_ground_truth_at_all():
    truth = ground_truth() | {"annotations": []}
    report = evaluate([prediction(1, 1, 0.9, moving(2, 3, 5, 5))], truth, metrics=ALL)
    assert (report["AP"], report["AR1"], report["JF_mean"], report["HOTA"]) == (-1, -1, -1, 0)
    assert ("ytvis", "AP", "–") in report.table()


def test_short_videos_are_left_out_of_j_and_f():
    truth = ground_truth() | {"videos": [video(1, 3)]}
    truth["annotations"] = [annotation(1, 1, 1, moving(2, 3, 5, 5, frames=3))]
    assert evaluate(perfect(truth), truth, metrics=["jf"])["by_object"] == {}


def test_decay_is_first_quarter_minus_last():
    truth = ground_truth() | {
        "videos": [video(1, 8)],
        "annotations": [annotation(1, 1, 1, moving(2, 3, 5, 5, frames=8))],
    }
    found = copy.deepcopy(perfect(truth))
    found[0]["segmentations"][6:] = [None, None]
    numbers = evaluate(found, truth, metrics=["jf"])["by_object"]["clip1_1"]
    assert numbers["J_frames"] == [1, 1, 1, 1, 1, 1, 0, 0]
    assert numbers["J_decay"] == pytest.approx(1 - 1 / 3)  # frames 0..2 against 5..7


def test_report_access_and_table():
    truth = read_annotations(ground_truth())
    report = evaluate(perfect(ground_truth()), truth, metrics=["hota", "ytvis"])
    assert list(report.metrics) == ["ytvis", "hota"]
    assert report["hota"]["HOTA"] == report["HOTA"]
    with pytest.raises(ConfigError, match=r"no score 'MOTA'.*Only"):
        report["MOTA"]
    rows, detailed = report.table(), report.table(details=True)
    assert ("ytvis", "AP", "1.0000") in rows
    assert ("ytvis", "APl", "–") in rows
    assert {row[0] for row in detailed} == {"ytvis", "ytvis · cat", "ytvis · dog", "hota", "hota · cat", "hota · dog"}
    copied = report.to_dict()
    copied["ytvis"]["AP"] = 0
    assert report["AP"] == pytest.approx(1)
