"""Results as Python objects: names, outlines, crops, tables, text; copies, comparison, representation."""

import copy
import json
import pickle
import sys

import numpy as np
import pytest

import visdeploy
from tests.support import rectangle
from tests.visdeploy.formats.results import CLASSES, walkers
from visdeploy import ConfigError, DataError, DependencyError, FrameResult, Instance, Track, VideoResult, formats
from visdeploy.evaluation import AnnotationSet, Prediction, Report, read_annotations
from visdeploy.evaluation.annotations import Annotation, Category, Video
from visdeploy.masks import Mask
from visdeploy.render import Style, draw
from visdeploy.video import Frame, open_source

IMAGE = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)


def test_an_instance_of_a_frame_knows_its_class():
    frame = walkers().frame(0)
    assert [i.class_name for i in frame] == ["dog", "zürich tram", "person"]
    alone = Instance(0, 2, 0.5, rectangle(4, 5, 1, 1, 2, 2))
    assert alone.class_name == "class 2"
    assert FrameResult(0, 0.0, 4, 5, (alone,), CLASSES).instances[0].class_name == "zürich tram"
    assert FrameResult(0, 0.0, 4, 5, (alone,), CLASSES).instances == (alone,)


def test_the_outline_of_an_instance_runs_along_its_box():
    instance = walkers().frame(1).instances[0]
    (outline,) = instance.polygon()
    x1, y1, x2, y2 = instance.box
    assert sorted(map(tuple, outline.tolist())) == sorted([(x1, y1), (x1, y2), (x2, y1), (x2, y2)])


def test_a_crop_is_a_copy_of_the_box():
    instance = walkers().frame(1).instances[0]
    x1, y1, x2, y2 = map(int, instance.box)
    crop = instance.crop(IMAGE)
    np.testing.assert_array_equal(crop, IMAGE[y1:y2, x1:x2])
    assert crop.base is None
    assert instance.crop(IMAGE, margin=100).shape == IMAGE.shape
    assert instance.crop(IMAGE[:, :, 0], margin=1).shape == (y2 - y1 + 2, x2 - x1 + 2)
    with pytest.raises(DataError, match="does not match the result of track 0"):
        instance.crop(IMAGE[1:])
    with pytest.raises(DataError, match="an empty mask"):
        Instance(0, 0, 0.5, Mask.encode(np.zeros((40, 60)))).crop(IMAGE)


def test_a_frame_plots_itself():
    frame = walkers().frame(2)
    np.testing.assert_array_equal(frame.plot(IMAGE, alpha=0.9), draw(IMAGE, frame, alpha=0.9))
    kept = FrameResult(2, 0.0, 40, 60, frame.instances, CLASSES, IMAGE)
    np.testing.assert_array_equal(kept.plot(), draw(IMAGE, frame))
    with pytest.raises(DataError, match=r"no image to plot frame 2 on.*keep_images"):
        frame.plot()


def test_a_video_gives_its_tracks_and_frames():
    video = walkers()
    assert list(video) == video.tracks
    assert video.track(3) is video.tracks[1]
    for error in (ConfigError, KeyError):
        with pytest.raises(error, match=r"has no track 4 \(expected: one of \[0, 3, 7\]\)"):
            video.track(4)
    for index in (-1, 6):
        with pytest.raises(ConfigError, match=r"whole number, 0\.\.5"):
            video.frame(index)


@pytest.mark.parametrize(("format", "name"), [("ytvis", "r.json"), ("coco", "r.coco.json")])
def test_the_json_text_is_that_of_the_file(tmp_path, format, name):
    video = walkers()
    assert video.to_json(format=format) == video.save(tmp_path / name).read_text(encoding="utf-8")
    both = [video, walkers("b")]
    assert formats.to_json(both, format=format) == formats.save(both, tmp_path / name).read_text(encoding="utf-8")


def test_json_text_takes_the_options_of_its_format():
    assert json.loads(walkers().to_json(video_ids={"street": 12}))[0]["video_id"] == 12
    with pytest.raises(ConfigError, match="'mots' is not JSON"):
        walkers().to_json(format="mots")
    with pytest.raises(ConfigError, match="'ytvis' cannot save with option 'nope'"):
        walkers().to_json(nope=1)


def test_a_summary_names_the_classes():
    lines = walkers().summary().splitlines()
    assert lines[0] == "street: 3 tracks in 6 frames of 60x40 at 29.97 fps"
    assert "  person: 1 track, score 0.30, in 6 frames" in lines
    many = VideoResult("v", 4, 5, 1, tuple(map(str, range(50))), [Track(i, i, 0.5) for i in range(50)])
    assert many.summary().splitlines()[-1] == "  and 30 more classes"


def test_a_data_frame_has_one_row_per_instance():
    pytest.importorskip("pandas")
    video = walkers()
    table = video.to_dataframe()
    rows = table.to_dict("records")
    assert len(rows) == sum(len(track.masks) for track in video)
    assert list(table.columns)[:7] == ["video", "frame", "timestamp", "track_id", "label", "category", "score"]
    assert (rows[0]["category"], rows[0]["x1"], rows[0]["x2"]) == ("dog", 4, 14)
    assert Mask(40, 60, rows[0]["counts"]) == video.tracks[0].masks[0]


def test_a_data_frame_needs_pandas(monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(DependencyError, match=r"needs the module 'pandas'.*visdeploy\[formats\]"):
        walkers().to_dataframe()


@pytest.mark.parametrize("make", [copy.copy, copy.deepcopy, lambda value: pickle.loads(pickle.dumps(value))])
def test_results_can_be_copied_and_pickled(make):
    video = walkers()
    kept = FrameResult(2, 0.0, 40, 60, video.frame(2).instances, CLASSES, IMAGE)
    mask = video.tracks[0].masks[0]
    assert mask.area  # a cached value
    for value in (video, video.tracks[0], kept, kept.instances[0], mask, Report({"ytvis": {"AP": 0.5}})):
        assert make(value) == value
    np.testing.assert_array_equal(make(kept).image, IMAGE)
    assert make(kept).instances[0].class_name == "dog"


def test_arrays_do_not_make_comparison_ambiguous():
    facts = {"timestamps": np.arange(6) / 10, "positions": np.arange(6) * 2}
    one, other = (VideoResult("v", 4, 5, 6, ("a",), [Track(0, 0, 0.5, {}, np.ones(1))], **facts) for _ in range(2))
    assert one == other
    assert one.timestamps == tuple(t / 10 for t in range(6))
    assert all(type(position) is int for position in one.positions)
    frame = FrameResult(0, 0.0, 40, 60, (), ("a",), IMAGE)
    assert frame == FrameResult(0, 0.0, 40, 60, (), ("a",), 255 - IMAGE)
    assert FrameResult(0, 0.0, 4, 5) != FrameResult(1, 0.0, 4, 5)


def test_results_are_hashable_or_clearly_not(bundle):
    frame = walkers().frame(0)
    kept = FrameResult(0, frame.timestamp, 40, 60, frame.instances, CLASSES, IMAGE)
    assert len({frame, kept}) == 1
    assert len({bundle, visdeploy.Bundle.open(bundle.path)}) == 1
    assert len({frame.instances[0], frame.instances[0].mask}) == 2
    for value in (walkers(), walkers().tracks[0], Report({}), AnnotationSet("a", (), (), ())):
        with pytest.raises(TypeError, match=f"unhashable type: '{type(value).__name__}'"):
            hash(value)


def described(bundle, predictor):
    """Return objects with long names and many parts."""
    long = "n" * 10_000
    mask = Mask.encode(np.random.default_rng(0).random((300, 400)) < 0.5)
    tracks = [Track(i, 0, 0.5, dict.fromkeys(range(300), mask), (0.5,) * 1000) for i in range(500)]
    video = VideoResult(long, 300, 400, 300, (long,) * 100, tracks, timestamps=range(300), source=long)
    source = open_source(np.zeros((2, 40, 60, 3), np.uint8), name=long)
    truth = {
        "categories": [{"id": 1, "name": long}],
        "videos": [{"id": 1, "height": 4, "width": 5, "file_names": [f"{long}/{i}.jpg" for i in range(100)]}],
        "annotations": [],
    }
    annotation = Annotation(1, 1, 1, (mask,) * 500, (1.0,) * 500)
    yield from (mask, *tracks[:1], video, video.frame(0), video.frame(0).instances[0])
    yield from (source, source.report(), Frame(0, 0.0, np.zeros((500, 500, 3), np.uint8)))
    yield from (Report({long: {long: 0.5}}), Report({"ytvis": {"AP": 0.5, "per_category": {long: {"AP": 0.5}}}}))
    yield from (read_annotations(truth), Category(1, long), Video(1, 4, 5, (long,) * 100), annotation)
    yield from (Prediction(1, 1, 0.5, (mask,) * 500), Style(), visdeploy.doctor(), *visdeploy.doctor().engines)
    yield from (visdeploy.Profiler(), bundle, bundle.manifest, predictor, predictor.open_stream(name=long))


def test_no_representation_is_long(bundle, predictor):
    for value in described(bundle, predictor):
        text = repr(value)
        assert len(text) <= 200, type(value)
        assert text.startswith(type(value).__name__), text
        assert "\n" not in text
    assert len(str(bundle.manifest)) <= 200


def test_a_representation_says_what_matters():
    video = walkers()
    assert repr(video) == "VideoResult(name='street', num_frames=6, size=40x60, classes=<3>, tracks=<3>)"
    assert repr(video.tracks[0]) == "Track(track_id=0, label=1, score=0.9, masks=<6>)"
    assert repr(video.frame(0)) == "FrameResult(index=0, timestamp=0.0, size=40x60, instances=<3>)"
    assert "class_name='dog'" in repr(video.frame(0).instances[0])
