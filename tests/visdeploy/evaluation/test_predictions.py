import copy
import json

import numpy as np
import pytest

from tests.visdeploy.evaluation.builders import FRAMES, HEIGHT, WIDTH, box_rle, ground_truth, perfect
from visdeploy.errors import ConfigError, DataError
from visdeploy.evaluation import evaluate
from visdeploy.masks import Mask
from visdeploy.results import Track, VideoResult

ALL = ("ytvis", "jf", "hota", "clear", "identity", "trackmap")


def results(classes=("dog", "cat")) -> list[VideoResult]:
    """Return the perfect predictions as results, with classes in another order than the categories."""
    truth = ground_truth()
    names = {c["id"]: c["name"] for c in truth["categories"]}
    found = []
    for video in truth["videos"]:
        tracks = [
            Track(
                number,
                list(classes).index(names[p["category_id"]]),
                p["score"],
                {t: Mask.from_coco(rle) for t, rle in enumerate(p["segmentations"]) if rle is not None},
            )
            for number, p in enumerate(p for p in perfect(truth) if p["video_id"] == video["id"])
        ]
        name = video["file_names"][0].split("/")[0]
        found.append(VideoResult(name, HEIGHT, WIDTH, FRAMES, tuple(classes), tracks))
    return found


def test_every_form_of_input_scores_the_same(tmp_path):
    entries = perfect(ground_truth())
    whole = tmp_path / "results.json"
    whole.write_text(json.dumps(entries))
    folder = tmp_path / "folder"
    folder.mkdir()
    for index in range(2):
        (folder / f"{index}.json").write_text(json.dumps([e for e in entries if e["video_id"] == index + 1]))
    (folder / "notes.txt").write_text("not a result")
    truth = tmp_path / "truth.json"
    truth.write_text(json.dumps(ground_truth()))
    expected = evaluate(entries, ground_truth(), metrics=ALL)
    for form in (whole, str(whole), folder, iter(entries), results()):
        assert evaluate(form, truth, metrics=ALL) == expected
    assert expected["AP"] == pytest.approx(1)


def test_one_result_and_explicit_ids():
    result = results()[1]
    assert evaluate(result, ground_truth())["AR100"] == pytest.approx(0.25)  # one of two cats, no dog
    result.name = "camera 3"
    with pytest.raises(DataError, match=r"camera 3.*no single video.*video_ids"):
        evaluate(result, ground_truth())
    assert evaluate(result, ground_truth(), video_ids={"camera 3": 2})["AR100"] == pytest.approx(0.25)
    with pytest.raises(DataError, match="camera 3"):
        evaluate(result, ground_truth(), video_ids={"camera 3": 5})


def test_names_in_entries_decide_over_their_ids(tmp_path):
    """Files written one a video know neither the ids of the videos nor those of the categories."""
    truth, names = ground_truth(), {1: "cat", 7: "dog"}
    for number in (1, 2):
        entries = [
            e
            | {"video_id": 1, "video_name": f"clip{number}", "category_id": 3, "category_name": names[e["category_id"]]}
            for e in perfect(truth)
            if e["video_id"] == number
        ]
        (tmp_path / f"clip{number}.json").write_text(json.dumps(entries))
    assert evaluate(tmp_path, truth, metrics=ALL) == evaluate(perfect(truth), truth, metrics=ALL)


def test_unknown_names_in_entries():
    entry = perfect(ground_truth())[0]
    with pytest.raises(DataError, match=r"predictions\[0\] belongs to no single video.*'other'"):
        evaluate([entry | {"video_name": "other"}], ground_truth())
    assert evaluate([entry | {"video_name": "other"}], ground_truth(), video_ids={"other": 1})["AR1"] > 0
    with pytest.raises(DataError, match=r"predictions\[0\]: unknown category.*'lynx'"):
        evaluate([entry | {"category_name": "lynx"}], ground_truth(), strict=True)


def test_videos_in_one_folder_are_told_apart_by_id():
    truth = ground_truth()
    for video in truth["videos"]:
        video["file_names"] = [f"all/{name.replace('/', '_')}" for name in video["file_names"]]
    entries = [entry | {"video_name": "all"} for entry in perfect(truth)]
    assert evaluate(entries, truth)["AP"] == pytest.approx(1)
    assert set(evaluate(entries, truth, metrics=["jf"])["by_object"]) == {"all#1_1", "all#1_2", "all#2_3"}


def change(field, value):
    def apply(result: VideoResult) -> None:
        setattr(result, field, value)

    return apply


BAD_RESULTS = {
    "frames": (change("num_frames", FRAMES + 1), "does not match video 1 .*seen: 6 frames of.*expected: 5 frames of"),
    "height": (change("height", 20), "does not match video 1 .*seen: 5 frames of 20x60; expected: 5 frames of 40x60"),
    "width": (change("width", 20), "does not match video 1 .*seen: 5 frames of 40x20; expected: 5 frames of 40x60"),
    "classes": (change("classes", ("dog", "lynx")), "track 0: unknown category.*lynx.*'cat', 'dog'"),
    "no classes": (change("classes", ()), "track 0: label without a class"),
    "label": (change("classes", ("dog",)), r"track 0: label outside the classes.*seen: 1; expected: 0\.\.0"),
    "name": (change("name", "clip2"), "two results belong to video 2"),
    "mask": (
        lambda r: r.tracks[0].masks.update({1: Mask.encode(np.ones((4, 4)))}),
        "frame 1: wrong mask size.*4x4.*40x60",
    ),
    "score": (lambda r: setattr(r.tracks[0], "score", float("inf")), "track 0: invalid score .*inf.*finite"),
}


@pytest.mark.parametrize(("apply", "message"), BAD_RESULTS.values(), ids=BAD_RESULTS.keys())
def test_bad_results(apply, message):
    found = results()
    apply(found[0])
    with pytest.raises(DataError, match=message):
        evaluate(found, ground_truth(), strict=True)


BAD_ENTRIES = {
    "video": ({"video_id": 3}, r"predictions\[1\].*'video_id'.*unknown video"),
    "video is text": ({"video_id": "1"}, "'video_id'"),
    "category": ({"category_id": 2}, r"'category_id'.*unknown category.*\[1, 7\]"),
    "score": ({"score": "0.5"}, "'score'.*finite number"),
    "score nan": ({"score": float("nan")}, "'score'.*finite number"),
    "score true": ({"score": True}, "'score'.*finite number"),
    "no masks": ({"segmentations": None}, "'segmentations'.*list"),
    "frames": ({"segmentations": [None] * 4}, "4 items.*5 items"),
    "size": ({"segmentations": [None] * 4 + [box_rle(1, 1, 2, 2, width=50)]}, r"segmentations\[4\].*40x50.*40x60"),
    "text": ({"segmentations": [None] * 4 + [{"size": [HEIGHT, WIDTH], "counts": "0"}]}, r"segmentations\[4\]"),
}


@pytest.mark.parametrize(("fields", "message"), BAD_ENTRIES.values(), ids=BAD_ENTRIES.keys())
def test_bad_entries(fields, message):
    entries = copy.deepcopy(perfect(ground_truth()))
    entries[1] |= fields
    with pytest.raises(DataError, match=message):
        evaluate(entries, ground_truth(), strict=True)


@pytest.mark.parametrize("field", ["video_id", "category_id", "score", "segmentations"])
def test_missing_field(field):
    entries = perfect(ground_truth())
    del entries[2][field]
    with pytest.raises(DataError, match=rf"predictions\[2\]: field '{field}' is missing"):
        evaluate(entries, ground_truth())


def test_mixed_input_and_wrong_files(tmp_path):
    with pytest.raises(DataError, match=r"predictions\[1\].*VideoResult"):
        evaluate([perfect(ground_truth())[0], results()[0]], ground_truth())
    path = tmp_path / "results.json"
    path.write_text('{"annotations": []}')
    with pytest.raises(DataError, match=r"results\.json is not a YouTube-VIS result file.*dict"):
        evaluate(path, ground_truth())
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no results in"):
        evaluate(tmp_path / "empty", ground_truth())
    with pytest.raises(DataError, match="cannot read"):
        evaluate(tmp_path / "nowhere.json", ground_truth())


@pytest.mark.parametrize("metrics", ["ytvis", (), ("map",)])
def test_unknown_metrics(metrics):
    with pytest.raises(ConfigError, match="metrics="):
        evaluate([], ground_truth(), metrics=metrics)
