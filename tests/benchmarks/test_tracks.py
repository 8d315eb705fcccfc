"""The benchmark of tracks counts the windows of the runtime, and the objects that cross their borders."""

import importlib
import json
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

import visdeploy
from tests.conftest import REPOSITORY
from tests.visdeploy.clip_graph import CLASSES, LENGTH, STRIDE, make_clip_bundle, moving
from visdeploy.masks import Mask

FRAMES = 14


@pytest.fixture
def tracks(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(REPOSITORY / "benchmarks"))
    return importlib.import_module("tracks")


@pytest.fixture
def predictor(tmp_path) -> visdeploy.VISPredictor:
    return visdeploy.VISPredictor(make_clip_bundle(tmp_path / "clip.vis"), device="cpu", threads=1)


@pytest.mark.parametrize(
    ("frames", "expected"),
    [(LENGTH - 1, []), (LENGTH, []), (LENGTH + STRIDE, [LENGTH - 2]), (14, [LENGTH - 2, LENGTH + STRIDE - 2])],
)
def test_borders_lie_in_the_middle_of_what_two_windows_share(tracks, predictor, frames, expected):
    assert LENGTH - STRIDE == 4
    assert tracks.borders(predictor, frames) == expected


def test_a_perfect_tracker_has_no_switches_at_its_borders(tracks, predictor, tmp_path):
    """The graph turns its slots at every window; stitched tracks keep their objects."""
    clip, objects = moving(FRAMES), []
    for channel in range(3):
        masks = clip[..., channel] > 128
        objects.append([Mask.encode(mask).to_coco() for mask in masks])
    (tmp_path / "JPEGImages/clip").mkdir(parents=True)
    names = [f"clip/{t:02}.png" for t in range(FRAMES)]
    for name, frame in zip(names, clip, strict=True):
        Image.fromarray(frame).save(tmp_path / "JPEGImages" / name)
    data = {
        "videos": [{"id": 1, "height": clip.shape[1], "width": clip.shape[2], "length": FRAMES, "file_names": names}],
        "categories": [{"id": k + 1, "name": name} for k, name in enumerate(CLASSES)],
        "annotations": [
            {"id": k + 1, "video_id": 1, "category_id": k + 1, "iscrowd": 0, "segmentations": masks}
            for k, masks in enumerate(objects)
        ],
    }
    (tmp_path / "truth.json").write_text(json.dumps(data))
    found = tracks.measure(predictor, tmp_path / "truth.json", tmp_path / "JPEGImages", [])
    assert found["clip"] | {"AP": 0, "AP50": 0} == found["all"] | {"AP": 0, "AP50": 0}
    assert (found["all"]["objects"], found["all"]["tracks"], found["all"]["crossed"]) == (3, 3, 6)
    assert (found["all"]["broken"], found["all"]["IDSW"], found["all"]["recall"]) == (0, 0, 1.0)
    assert np.isclose(found["all"]["IDF1"], 1.0)
    truth, turned = tracks.select(tmp_path / "truth.json", ["clip"]), predictor(list(clip), name="clip")
    first, second = (track.masks for track in turned.tracks[:2])
    border = tracks.borders(predictor, FRAMES)[0]
    turned.tracks[0].masks = {t: (first if t < border else second)[t] for t in range(FRAMES)}
    turned.tracks[1].masks = {t: (second if t < border else first)[t] for t in range(FRAMES)}
    assert [tracks.broken(turned, truth, start) for start in (border - 1, border, border + 1)] == [0, 2, 0]
    best = max(track.score for track in predictor(list(clip)).tracks)
    folders = tmp_path / "truth.json", tmp_path / "JPEGImages"
    shown = [tracks.measure(predictor, *folders, [], min_score=best + step)["all"] for step in (0, 1e-6)]
    assert [each["tracks"] for each in shown] == [3, 0]
    assert [each["recall"] for each in shown] == [1, 0]
    assert [each["AP"] for each in shown] == [found["all"]["AP"]] * 2
