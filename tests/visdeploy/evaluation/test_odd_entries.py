"""Entries that tools write and evaluators accept: they change no score, are counted, and are refused if strict."""

import copy
import json
import os

import numpy as np
import pytest

from tests.visdeploy.evaluation.builders import FRAMES, HEIGHT, WIDTH, annotation, box_rle, prediction, video
from tests.visdeploy.evaluation.test_predictions import results
from visdeploy.cli import app
from visdeploy.errors import DataError
from visdeploy.evaluation import evaluate, read_annotations
from visdeploy.masks import Mask

ALL = ("ytvis", "jf", "hota", "clear", "identity", "trackmap")
BOX = box_rle(5, 5, 15, 15)
POLYGON = [[5, 5, 20, 5, 20, 20, 5, 20]]
EMPTY = Mask.encode(np.zeros((HEIGHT, WIDTH))).to_coco()


def truth(*masks, **more):
    """Return a cat that is present in all frames but the last, after changes of some frames."""
    items = [BOX] * 4 + [None]
    items[len(items) - len(masks) :] = masks
    categories = [{"id": 1, "name": "cat"}, {"id": 7, "name": "dog"}]
    return {"categories": categories, "videos": [video(1)], "annotations": [annotation(1, 1, 1, items) | more]}


def found(**more):
    return prediction(1, 1, 0.9, [BOX] * 4 + [None]) | more


RUNS = [205, 15] + [25, 15] * 14 + [1620]  # BOX


def crowded(**change):
    """Return the cat, after an object of something that the file does not list."""
    return truth() | {"annotations": [annotation(2, 1, 1, [BOX] * 5) | change, *truth()["annotations"]]}


VARIANTS = {
    "null": (truth(None), 0),
    "empty list": (truth([]), 0),
    "empty object": (truth({}), 0),
    "polygons": (truth(POLYGON, POLYGON, POLYGON, None), 0),
    "polygons as arrays": (truth(np.array(POLYGON), [np.array(POLYGON[0])], None), 0),
    "empty run lengths": (truth(EMPTY), 1),
    "one run outside": (truth({"size": [HEIGHT, WIDTH], "counts": [HEIGHT * WIDTH]}), 1),
    "no runs": (truth({"size": [HEIGHT, WIDTH], "counts": []}), 1),
    "no text": (truth({"size": [HEIGHT, WIDTH], "counts": ""}), 1),
    "polygon outside": (truth([[70, 50, 80, 50, 80, 60]]), 1),
    "polygon without height": (truth([[7, 5, 7, 5, 8, 5, 8, 5]]), 1),
    "stray part": (truth([*POLYGON, [5, 5, 6, 6]], None), 1),
    "part with an odd number": (truth([[1, 2, 3, 4, 5, 6, 7], *POLYGON], None), 1),
    "no crowd": (truth(iscrowd=False), 0),
    "crowd is null": (truth(iscrowd=None), 0),
    "areas of absent frames": (truth(areas=[225.0, np.float32(225), 225, None, 0]), 0),
    "whole floats as runs": (truth({"size": [HEIGHT, WIDTH], "counts": [float(run) for run in RUNS]}, None), 0),
    "bytes of NumPy": (truth(BOX | {"counts": np.bytes_(BOX["counts"].encode())}, None), 0),
    "bytearray": (truth(BOX | {"counts": bytearray(BOX["counts"].encode())}, None), 0),
    "polygons of NumPy numbers": (truth([[np.float32(v) for v in POLYGON[0]]], None), 0),
    "object of an unknown video": (crowded(video_id=9), 1),
    "object of an unknown category": (crowded(category_id=2), 1),
    "NumPy ids": (truth(id=np.int64(1), video_id=np.int32(1), category_id=np.uint8(1), iscrowd=np.int64(0)), 0),
}


@pytest.mark.parametrize(("data", "odd"), VARIANTS.values(), ids=VARIANTS.keys())
def test_the_same_object_in_other_spellings(data, odd, caplog):
    whole = copy.deepcopy(data)
    report = evaluate([found()], data, metrics=ALL)
    assert report["AP"] == pytest.approx(1)
    assert len(caplog.records) == odd
    assert repr(data) == repr(whole)
    assert evaluate([found()], truth(), metrics=ALL) == report
    if odd:
        assert "annotations[0]" in caplog.text
        with pytest.raises(DataError, match=r"annotations\[0\].*(segmentations\[\d\]|_id')"):
            evaluate([found()], data, strict=True)
    else:
        assert evaluate([found()], data, metrics=ALL, strict=True) == report


@pytest.mark.parametrize("change", [{"video_id": 9}, {"category_id": 9}])
def test_a_file_without_any_object_of_its_lists_is_refused(change):
    with pytest.raises(DataError, match=r"annotations\[0\].*_id'.*9"):
        read_annotations(truth(**change))


@pytest.mark.parametrize("counts", ["", [], b""])
def test_results_without_runs_are_absent(caplog, counts):
    entry = found()
    entry["segmentations"][4] = BOX | {"counts": counts}
    assert evaluate([entry], truth())["AP"] == pytest.approx(1)
    assert "masks without runs, read as absent: 1" in caplog.text
    with pytest.raises(DataError, match=r"segmentations\[4\]"):
        evaluate([entry], truth(), strict=True)


def test_errors_about_endless_lists_take_bounded_time():
    endless: list = []
    for _ in range(60):
        endless = [endless, endless]
    for data in (truth(endless), truth(id=endless), truth(iscrowd=endless), truth(areas=[endless] * 5),
                 truth(BOX | {"counts": endless})):  # fmt: skip
        with pytest.raises(DataError):
            evaluate([found()], data)
    for change in ({"score": endless}, {"category_name": endless}, {"video_id": endless}):
        with pytest.raises(DataError):
            evaluate([found(**change)], truth())


@pytest.mark.parametrize("name", ["truth.json", "truth.txt"])
def test_pipes_are_refused(tmp_path, name):
    """Reading one would wait for a writer."""
    os.mkfifo(tmp_path / name)
    with pytest.raises(DataError, match="pipe"):
        evaluate([found()], tmp_path / name)


def test_odd_entries_are_reported_once_with_their_number(caplog):
    read_annotations(truth(EMPTY, EMPTY, [[1, 1, 2, 2]]))
    assert len(caplog.records) == 1
    assert "masks without pixels, read as absent: 3 (first" in caplog.text
    assert "polygons of fewer than three points, left out: 1 (first" in caplog.text


def test_an_object_without_any_mask_still_counts():
    """As in the reference evaluator, it is an object that was missed."""
    data = truth()
    data["annotations"].append(annotation(2, 1, 1, [EMPTY] * FRAMES))
    assert evaluate([found()], data)["AR100"] == pytest.approx(0.5)


def test_crowds_written_as_true():
    assert read_annotations(truth(iscrowd=True)).annotations[0].crowd


BEYOND = {
    "id": found(category_id=3, score=0.99),
    "name": found(category_name="zebra", score=0.99),
    "id with damaged masks": found(category_id=3, segmentations=None),
}


@pytest.mark.parametrize("extra", BEYOND.values(), ids=BEYOND.keys())
def test_results_of_other_classes_take_no_part(extra, caplog):
    wanted = evaluate([found()], truth(), metrics=ALL)
    for entries in ([found(), extra], [found(), extra, extra]):
        caplog.clear()
        assert evaluate(entries, truth(), metrics=ALL) == wanted
        assert len(caplog.records) == 1
        assert f"left out: {len(entries) - 1} of {len(entries)} (first: predictions[1])" in caplog.text
    assert evaluate([extra], truth())["AP"] == 0
    with pytest.raises(DataError, match=r"predictions\[1\].*unknown category"):
        evaluate([found(), extra], truth(), strict=True)


def test_tracks_of_other_classes_take_no_part(caplog):
    data = truth()
    data["videos"][0]["file_names"] = [f"clip1/{t}.jpg" for t in range(FRAMES)]
    data["categories"] = [{"id": 1, "name": "cat"}]
    both = results()[0]
    cats = results()[0]
    cats.tracks = [t for t in cats.tracks if cats.classes[t.label] == "cat"]
    assert len(both.tracks) > len(cats.tracks) > 0
    assert evaluate(both, data, metrics=["hota", "jf"]) == evaluate(cats, data, metrics=["hota", "jf"])
    assert "left out: 1 of 2 (first: result 'clip1', track " in caplog.text


NUMPY = {
    "score": {"score": np.float32(0.9)},
    "score of dimension 0": {"score": np.array(0.9)},
    "half score": {"score": np.float16(0.9)},
    "category": {"category_id": np.int64(1)},
    "video": {"video_id": np.uint16(1)},
    "category as float": {"category_id": np.float32(1)},
    "size": {"segmentations": [{**BOX, "size": np.array([HEIGHT, WIDTH])}] * 4 + [None]},
    "size of NumPy numbers": {"segmentations": [{**BOX, "size": (np.int64(HEIGHT), np.int32(WIDTH))}] * 4 + [None]},
    "array of masks": {"segmentations": np.array([BOX] * 4 + [None], dtype=object)},
    "bytes": {"segmentations": [{**BOX, "counts": BOX["counts"].encode()}] * 4 + [None]},
    "absent as []": {"segmentations": [BOX] * 4 + [[]]},
}


@pytest.mark.parametrize("change", NUMPY.values(), ids=NUMPY.keys())
def test_results_made_in_a_program(change):
    assert evaluate([found(**change)], truth(), strict=True)["AP"] == pytest.approx(1)


@pytest.mark.parametrize("kind", [list, np.array, lambda runs: [np.int32(r) for r in runs]])
def test_runs_as_arrays(kind):
    runs = [5 * HEIGHT + 5] + [15, HEIGHT - 15] * 14 + [15]
    runs.append(HEIGHT * WIDTH - sum(runs))
    mask = {"size": [HEIGHT, WIDTH], "counts": kind(runs)}
    assert Mask.from_coco(mask) == Mask.from_coco(BOX)
    assert evaluate([found(segmentations=[mask] * 4 + [None])], truth())["AP"] == pytest.approx(1)


BAD_NUMBERS = [np.float32("nan"), np.array([0.9, 0.8]), np.bool_(True), "0.9", 10**400, np.array("0.9")]


@pytest.mark.parametrize("score", BAD_NUMBERS, ids=[type(v).__name__ + str(i) for i, v in enumerate(BAD_NUMBERS)])
def test_no_finite_number(score):
    with pytest.raises(DataError, match=r"'score'.*finite number"):
        evaluate([found(score=score)], truth())


BAD_SIZES = [np.array([HEIGHT]), np.array([[HEIGHT, WIDTH]]), [HEIGHT, float("inf")], np.array([HEIGHT, WIDTH + 1])]


@pytest.mark.parametrize("size", BAD_SIZES, ids=["1 number", "2 dimensions", "inf", "other"])
def test_bad_sizes_are_data_errors(size):
    with pytest.raises(DataError, match=r"segmentations\[0\]"):
        evaluate([found(segmentations=[{**BOX, "size": size}] * 5)], truth())


def test_the_command_line_accepts_odd_entries_unless_strict(tmp_path, capsys):
    (tmp_path / "truth.json").write_text(json.dumps(truth(EMPTY)))
    (tmp_path / "found.json").write_text(json.dumps([found(), found(category_id=3)]))
    command = ["evaluate", str(tmp_path / "found.json"), str(tmp_path / "truth.json")]
    with pytest.raises(SystemExit) as stop:
        app(command)
    assert stop.value.code == 0
    assert "1.0000" in capsys.readouterr().out
    with pytest.raises(DataError, match="an empty mask"):
        app([*command, "--strict"])
