"""Ground truth of DAVIS and MOTS as files: the scores are those of the same masks as YouTube-VIS JSON."""

import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from tests.visdeploy.evaluation.test_goldens import ground_truth, reference
from visdeploy import ConfigError, DataError
from visdeploy.cli import app
from visdeploy.evaluation import evaluate
from visdeploy.formats import save
from visdeploy.masks import Mask
from visdeploy.results import Track, VideoResult


def write_davis(folder, name, frames, numbers=None):
    """Write indexed PNGs without any further file, as the data set has them; only those of some frames if given."""
    (folder / name).mkdir(parents=True)
    for t in range(len(frames)) if numbers is None else numbers:
        pixels = frames[t]
        image = Image.fromarray(pixels.astype(np.uint8))
        image.putpalette([0] * 768)
        image.save(folder / name / f"{t:05d}.png")


def painted(video, masks_by_number):
    frames = np.zeros((video.length, video.height, video.width), np.uint8)
    for number, masks in masks_by_number:
        for t, mask in enumerate(masks):
            if mask is not None:
                frames[t][mask.decode()] = number
    return frames


@pytest.mark.parametrize("name", ["osvos", "rvos"])
def test_davis_folders_give_the_scores_of_the_recording(shared, tmp_path, name):
    folder = shared / "goldens" / "eval" / "real_davis"
    truth = ground_truth(folder / "gt.json")
    entries = json.loads((folder / "predictions" / f"{name}.json").read_text())
    for video in truth.videos:
        objects = truth.annotations_by_video[video.id]
        frames = painted(video, [(n, a.masks) for n, a in enumerate(objects, start=1)])
        write_davis(tmp_path / "truth", video.name, frames)
        # the best one last, because it gets the pixels that two claim
        found = sorted((e for e in entries if e["video_id"] == video.id), key=lambda e: e["score"])
        masks = [[None if s is None else Mask.from_coco(s) for s in e["segmentations"]] for e in found]
        write_davis(tmp_path / "found", video.name, painted(video, list(enumerate(masks, start=1))))
    report = evaluate(tmp_path / "found", tmp_path / "truth")
    assert list(report.metrics) == ["jf"]
    expected = reference(folder / "reference.json")[name]["davis_unsupervised"]
    scores = {k: v for k, v in expected.items() if isinstance(v, float)}
    assert len(scores) >= 7
    assert {k: report["jf"][k] for k in scores} == pytest.approx(scores, abs=1e-9)


@pytest.fixture
def davis(tmp_path):
    """Two objects that move, and a result that is one pixel off."""
    frames, found = np.zeros((2, 5, 40, 50), np.uint8)
    for t in range(5):
        frames[t, 5:15, 5 + t : 20 + t], frames[t, 22:35, 20:40] = 1, 2
        found[t, 6:15, 5 + t : 21 + t], found[t, 22:36, 20:39] = 2, 1
    write_davis(tmp_path / "found", "v", found)
    return tmp_path, frames, found


def test_void_pixels_do_not_count(davis):
    path, frames, found = davis
    void = np.zeros_like(frames, bool)
    void[:, 12:30, 15:30] = True
    write_davis(path / "void", "v", np.where(void, 255, frames))
    write_davis(path / "cut", "v", np.where(void, 0, frames))
    write_davis(path / "found_cut", "v", np.where(void, 0, found))
    with_void, cut = evaluate(path / "found", path / "void")["jf"], evaluate(path / "found_cut", path / "cut")["jf"]
    assert with_void == cut
    assert evaluate(path / "found", path / "cut")["jf"]["J_mean"] < cut["J_mean"]
    pairs = zip(found == 2, frames == 1, ~void, strict=True)
    region = [(a & b & seen).sum() / ((a | b) & seen).sum() for a, b, seen in pairs]
    assert with_void["by_object"]["v_1"]["J"] == pytest.approx(np.mean(region), abs=1e-9)


def test_davis_results_of_any_class_and_format(davis, capsys):
    path, frames, found = davis
    write_davis(path / "truth", "v", frames)
    wanted = evaluate(path / "found", path / "truth")["jf"]
    tracks = [Track(n - 1, n, 0.5, {t: Mask.encode(found[t] == n) for t in range(5)}) for n in (1, 2)]
    result = VideoResult("v", 40, 50, 5, ("a", "b", "c"), tracks)
    for name in ("r.json", "r.coco.json", "folder"):
        save(result, path / name)
        assert evaluate(path / name, path / "truth")["jf"] == wanted
    assert evaluate(result, path / "truth")["jf"] == wanted
    with pytest.raises(SystemExit) as stop:
        app(["evaluate", str(path / "folder"), str(path / "truth")])
    assert stop.value.code == 0
    assert f"{wanted['JF_mean']:.4f}" in capsys.readouterr().out


@pytest.mark.parametrize("numbers", [(0, 1, 2, 4), (1, 2, 3, 4), (0, 2, 3, 4)])
def test_only_annotated_frames_count(davis, numbers):
    """YouTube-VOS annotates every fifth frame; results may have all frames, or the annotated ones only."""
    path, frames, found = davis
    some = list(numbers)
    write_davis(path / "truth", "v", frames, numbers)
    write_davis(path / "found_some", "v", found, numbers)
    write_davis(path / "cut", "v", frames[some])
    write_davis(path / "found_cut", "v", found[some])
    wanted = evaluate(path / "found_cut", path / "cut")["jf"]
    assert 0.8 < wanted["J_mean"] < 1
    for results in ("found", "found_some", "found_cut"):
        assert evaluate(path / results, path / "truth")["jf"] == wanted
    tracks = [Track(n, 0, 1.0, {t: Mask.encode(found[i] == n) for t, i in enumerate(numbers)}) for n in (1, 2)]
    result = VideoResult("v", 40, 50, 4, ("a",), tracks, positions=numbers)
    assert evaluate(result, path / "truth")["jf"] == wanted
    write_davis(path / "short", "v", found[:2])
    with pytest.raises(DataError, match="does not match"):
        evaluate(path / "short", path / "truth")


def mots_line(frame, number, dense):
    mask = Mask.encode(dense)
    return f"{frame} {number} {number // 1000} {mask.height} {mask.width} {mask.counts.decode()}\n"


def box(top, left, height, width):
    dense = np.zeros((60, 80), bool)
    dense[top : top + height, left : left + width] = True
    return dense


@pytest.fixture
def mots(tmp_path):
    """Three frames of a car and a pedestrian; an ignore region on the right of frames 0 and 1."""
    (tmp_path / "truth").mkdir()
    lines = []
    for t in range(3):
        lines += [mots_line(t, 1001, box(5, 5, 10, 20)), mots_line(t, 2001, box(30, 5 + t, 20, 8))]
        if t < 2:
            lines.append(mots_line(t, 10000, box(0, 50, 40, 30)))
    (tmp_path / "truth" / "0002.txt").write_text("".join(lines))
    return tmp_path


def found_file(path, *extra):
    (path / "found").mkdir(exist_ok=True)
    lines = [mots_line(t, 1007, box(5, 6, 10, 20)) for t in range(3)]
    lines += [mots_line(t, 2009, box(30, 5 + t, 18, 8)) for t in range(3)] + list(extra)
    (path / "found" / "0002.txt").write_text("".join(lines))
    return path / "found"


def test_mots_scores(mots):
    report = evaluate(found_file(mots), mots / "truth")
    assert list(report.metrics) == ["hota", "clear"]
    car, pedestrian = (report["clear"]["per_class"][name] for name in ("car", "pedestrian"))
    assert car["sMOTA"] == pytest.approx(190 / 210, abs=1e-9)
    assert pedestrian["sMOTA"] == pytest.approx(0.9, abs=1e-9)
    assert (car["MOTA"], car["IDSW"]) == (1, 0)
    # alphas up to 0.9 (IoU 190/210) and up to 0.9 (IoU 0.9): 18 of 19
    assert report["hota"]["per_class"]["car"]["HOTA"] == pytest.approx(18 / 19, abs=1e-9)


def test_an_ignore_region_removes_what_is_not_matched_and_mostly_inside(mots):
    wanted = evaluate(found_file(mots), mots / "truth").to_dict()
    inside = mots_line(0, 1008, box(10, 55, 10, 10))
    assert evaluate(found_file(mots, inside), mots / "truth").to_dict() == wanted
    half = mots_line(0, 1008, box(10, 45, 10, 10))
    third = mots_line(2, 1008, box(10, 55, 10, 10))  # frame 2 has no region
    for line in (half, third):
        report = evaluate(found_file(mots, line), mots / "truth")
        assert report["clear"]["per_class"]["car"]["CLR_FP"] == 1


def test_several_ignore_regions_of_a_frame(mots):
    wanted = evaluate(found_file(mots), mots / "truth").to_dict()
    with (mots / "truth" / "0002.txt").open("a") as file:
        file.write(mots_line(0, 10000, box(50, 0, 10, 40)))
    extra = mots_line(0, 1008, box(51, 5, 9, 20)), mots_line(0, 1009, box(10, 55, 10, 10))
    assert evaluate(found_file(mots, *extra), mots / "truth").to_dict() == wanted


def test_frames_after_the_last_object_count(mots):
    late = mots_line(5, 1008, box(10, 55, 10, 10))
    assert evaluate(found_file(mots, late), mots / "truth")["clear"]["per_class"]["car"]["CLR_FP"] == 1


def test_smota_follows_from_the_recorded_counts(shared):
    folder = shared / "goldens" / "eval" / "synthetic"
    found = evaluate(folder / "predictions" / "graded.json", folder / "gt.json", metrics=["clear"])["clear"]
    scores = found["detection_average"]
    number = scores["CLR_TP"] + scores["CLR_FN"]
    wanted = (scores["MOTP"] * scores["CLR_TP"] - scores["CLR_FP"] - scores["IDSW"]) / number
    assert scores["sMOTA"] == pytest.approx(wanted, abs=1e-9)


@pytest.mark.parametrize(
    ("name", "text", "named"),
    [
        ("0002.txt", "0 77001 77 60 80 1", "class 77"),
        ("0002.txt", "0 1001 1 60 80 1", "runs"),
        ("0002.txt", "junk", "fields"),
        ("0009.txt", "", "0009"),
    ],
)
def test_malformed_mots_results_are_named(mots, name, text, named):
    folder = found_file(mots)
    (folder / name).write_text(text)
    with pytest.raises(DataError, match=named):
        evaluate(folder, mots / "truth")


def test_results_of_other_classes_take_no_part(mots, caplog):
    wanted = evaluate(found_file(mots), mots / "truth").to_dict()
    other = [mots_line(0, 7001, box(10, 55, 10, 10)), mots_line(2, 10000, box(5, 5, 10, 20))]
    assert evaluate(found_file(mots, *other), mots / "truth").to_dict() == wanted
    assert "left out: 2 of 4" in caplog.text
    with pytest.raises(DataError, match="unknown category"):
        evaluate(mots / "found", mots / "truth", strict=True)


def test_an_empty_file_is_a_video_without_detections(mots):
    folder = found_file(mots)
    (folder / "0002.txt").write_text("")
    report = evaluate(folder, mots / "truth")
    assert (report["clear"]["per_class"]["car"]["CLR_FN"], report["clear"]["per_class"]["car"]["CLR_FP"]) == (3, 0)


def test_classes_that_the_ground_truth_states_count_by_name(tmp_path):
    """A class keeps its name, whatever its number in KITTI MOTS; only the name marks an ignore region."""
    names = ("pedestrian", *(f"thing {n}" for n in range(8)), "rabbit", "car", "ignore")
    tracks = [
        Track(n, names.index(name), 1.0, {t: Mask.encode(box(5 + 18 * n, 5, 10, 20)) for t in range(3)})
        for n, name in enumerate(("car", "pedestrian", "rabbit"))
    ]
    truth = VideoResult("v", 60, 80, 3, names, tracks)
    found = VideoResult("v", 60, 80, 3, ("car", "pedestrian", "rabbit"), [replace(t, label=t.track_id) for t in tracks])
    save(truth, tmp_path / "truth.txt")
    report = evaluate(found, tmp_path / "truth.txt")
    assert [report["clear"]["per_class"][name]["CLR_TP"] for name in ("car", "pedestrian", "rabbit")] == [3, 3, 3]
    assert "ignore" not in report["clear"]["per_class"]
    save([truth], tmp_path / "both", format="mots")
    save([replace(found, name="w")], tmp_path / "both", format="mots")
    with pytest.raises(DataError, match="different classes"):
        evaluate(found, tmp_path / "both")


def test_videos_without_a_result_are_named(davis, caplog):
    path, frames, found = davis
    for name in ("v", "w"):
        write_davis(path / "truth", name, frames)
    half = evaluate(path / "found", path / "truth")["jf"]
    assert "1 of 2 videos" in caplog.text
    assert caplog.text.rstrip().endswith(": w")
    caplog.clear()
    one = evaluate(path / "found", path / "truth" / "v")["jf"]
    assert half["J_mean"] == pytest.approx(one["J_mean"] / 2)
    write_davis(path / "other", "x", found)
    assert evaluate(path / "other", path / "truth" / "v", video_ids={"x": 0})["jf"] == one
    assert caplog.text == ""


def test_an_unknown_class_in_the_ground_truth_is_named(mots):
    (mots / "truth" / "0002.txt").write_text(mots_line(0, 5001, box(5, 5, 10, 20)))
    with pytest.raises(DataError, match="unknown class"):
        evaluate(found_file(mots), mots / "truth")


def test_missing_folders_and_unknown_metrics(davis):
    path, _, _ = davis
    with pytest.raises(DataError):
        evaluate(path / "found", path / "nowhere.txt")
    with pytest.raises(DataError):
        evaluate(path / "nowhere", path / "found")
    with pytest.raises(ConfigError):
        evaluate(path / "found", path / "found", metrics=["speed"])
