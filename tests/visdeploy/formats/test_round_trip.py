"""Reading returns the written results, or, for formats with one instance per pixel, the resolved masks."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from PIL import Image

from tests.support import rectangle
from tests.visdeploy.formats.results import CLASSES, video_results, walkers
from visdeploy import formats
from visdeploy.errors import ConfigError, DataError
from visdeploy.formats.overlaps import owner_map, resolved, without_overlaps
from visdeploy.masks import Mask
from visdeploy.results import FrameResult, Instance, Track, VideoResult

PATHS = {"ytvis": "r.json", "coco": "r.coco.json", "parquet": "r.parquet", "mots": "r.txt", "davis": "r"}
EXACT = [name for name, entry in formats.FORMATS.items() if entry.exact]

pytest.importorskip("pyarrow")


def wanted(result: VideoResult, name: str) -> VideoResult:
    return result if formats.FORMATS[name].exact else resolved(result)


@pytest.mark.parametrize("name", formats.FORMATS)
def test_fixed_result(tmp_path: Path, name: str) -> None:
    result = walkers()
    assert result.save(tmp_path / PATHS[name]) == tmp_path / PATHS[name]
    assert formats.detect_format(tmp_path / PATHS[name]) == name
    assert formats.load(tmp_path / PATHS[name]) == [wanted(result, name)]
    assert formats.load(tmp_path / PATHS[name], format=name) == [wanted(result, name)]


@pytest.mark.parametrize("name", formats.FORMATS)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(result=video_results())
def test_any_result(tmp_path: Path, name: str, result: VideoResult) -> None:
    path = tmp_path / PATHS[name]
    if path.is_dir():
        for folder in path.iterdir():
            for file in folder.iterdir():
                file.unlink()
            folder.rmdir()
    formats.save(result, path, format=name)
    (back,) = formats.load(path, format=name)
    assert back == wanted(result, name)
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("name", formats.FORMATS)
def test_several_videos(tmp_path: Path, name: str) -> None:
    results = [walkers("b"), walkers("a", frames=3, height=33, width=35), VideoResult("empty", 8, 9, 4, CLASSES)]
    path = tmp_path / ("folder" if name == "mots" else PATHS[name])
    formats.save(results, path, format=name)
    back = {r.name: r for r in formats.load(path, format=name)}
    assert back.pop("empty", None) == (None if name == "ytvis" else results[2])
    assert back == {r.name: wanted(r, name) for r in results[:2]}


@pytest.mark.parametrize("name", formats.FORMATS)
def test_overwriting(tmp_path: Path, name: str) -> None:
    path = tmp_path / PATHS[name]
    walkers(frames=9).save(path, format=name)
    walkers(frames=2).save(path, format=name)
    assert formats.load(path) == [wanted(walkers(frames=2), name)]


@pytest.mark.parametrize("name", EXACT)
def test_long_ids_survive(tmp_path: Path, name: str) -> None:
    result = walkers()
    result.tracks[2].track_id = 123_456_789
    result.save(tmp_path / "x", format=name)
    assert formats.load(tmp_path / "x", format=name) == [result]


def test_masks_with_one_owner_are_the_same_in_davis_and_mots(tmp_path: Path) -> None:
    walkers().save(tmp_path / "d")
    walkers().save(tmp_path / "m.txt")
    assert formats.load(tmp_path / "d") == formats.load(tmp_path / "m.txt")


@settings(max_examples=60, deadline=None)
@given(result=video_results())
def test_resolved_masks(result: VideoResult) -> None:
    """No pixel has two owners, none is lost or won, and each belongs to the best mask over it."""
    for before, after in zip(result.frames(), resolved(result).frames(), strict=True):
        old = {i.track_id: i.mask.decode() for i in before}
        new = {i.track_id: i.mask.decode() for i in after}
        everything = np.sum([*old.values(), np.zeros((result.height, result.width), int)], axis=0)
        np.testing.assert_array_equal(np.sum([*new.values(), np.zeros_like(everything)], axis=0), everything > 0)
        taken = np.zeros_like(everything, bool)
        for instance in before:  # best first
            own = old[instance.track_id] & ~taken
            np.testing.assert_array_equal(new.get(instance.track_id, np.zeros_like(own)), own)
            taken |= own
        moved = int(everything.sum() - (everything > 0).sum())
        assert without_overlaps(before)[1] == owner_map(before)[1] == moved


def test_equal_scores_go_to_the_lower_id() -> None:
    full = Mask.encode(np.ones((2, 3)))
    owners, moved = owner_map(FrameResult(0, 0.0, 2, 3, (Instance(4, 0, 0.5, full), Instance(2, 0, 0.5, full))))
    assert (owners == 2).all()
    assert moved == 6


def test_overlap_is_logged_and_kept(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    lost = sum(without_overlaps(f)[1] for f in walkers().frames())
    assert lost > 0
    walkers().save(tmp_path / "d")
    walkers().save(tmp_path / "m.txt")
    assert caplog.text.count(f"street: {lost} pixels of overlapping masks") == 2
    assert f'"reassigned_pixels":{lost}' in (tmp_path / "d/street/tracks.json").read_text()
    assert f'"reassigned_pixels":{lost}' in (tmp_path / "m.tracks.json").read_text()


@pytest.mark.parametrize("large", [254, 1632])
def test_indexed_pngs_keep_ids_beyond_one_byte_and_never_use_the_value_of_void(tmp_path: Path, large: int) -> None:
    result = walkers()
    result.tracks[2].track_id = large
    result.save(tmp_path / "d")
    assert formats.load(tmp_path / "d") == [resolved(result)]
    values = set()
    for file in (tmp_path / "d" / result.name).glob("*.png"):
        with Image.open(file) as image:
            values |= set(np.unique(np.array(image)).tolist())
    assert values == {0, 1, 2, 3}


def nothing(result: VideoResult) -> VideoResult:
    return result


def too_many(result: VideoResult) -> VideoResult:
    result.tracks = [Track(i, 0, 0.5) for i in range(255)]
    return result


def nan_score(result: VideoResult) -> VideoResult:
    result.tracks[0].score = float("nan")
    return result


def wrong_label(result: VideoResult) -> VideoResult:
    result.tracks[0].label = 3
    return result


def wrong_size(result: VideoResult) -> VideoResult:
    result.tracks[0].masks[1] = rectangle(9, 9, 0, 0, 2, 2)
    return result


def crowd(result: VideoResult) -> VideoResult:
    result.tracks = [Track(i, 0, 0.5) for i in range(1001)]
    return result


@pytest.mark.parametrize(
    ("change", "name", "options", "error", "message"),
    [
        (too_many, "davis", {}, DataError, "too many tracks for indexed PNGs .*seen: 255"),
        (nan_score, "ytvis", {}, DataError, "NaN"),
        (nan_score, "coco", {}, DataError, "NaN"),
        (nan_score, "davis", {}, DataError, "NaN"),
        (nan_score, "mots", {}, DataError, "NaN"),
        (nan_score, "parquet", {}, DataError, "NaN"),
        (wrong_label, "ytvis", {}, DataError, "label outside the classes .*seen: 3; expected: 0..2"),
        (wrong_size, "coco", {}, DataError, "track 0, frame 1: wrong mask size .*9x9.*40x60"),
        (crowd, "mots", {}, DataError, "too many tracks of one class"),
        (nothing, "gif", {}, ConfigError, "unknown result format .*ytvis"),
        (nothing, "coco", {"colour": 1}, ConfigError, "option 'colour'"),
        (nothing, "ytvis", {"colour": 1}, ConfigError, "expected: video_ids, ground_truth"),
    ],
)
def test_what_cannot_be_saved(tmp_path: Path, change, name, options, error, message) -> None:
    with pytest.raises(error, match=message):
        change(walkers()).save(tmp_path / "out", format=name, **options)
    assert list(tmp_path.iterdir()) == []


def test_several_results_that_do_not_fit_together(tmp_path: Path) -> None:
    other = walkers("other")
    other.classes = ("cat", "dog", "bus")
    with pytest.raises(DataError, match="different classes"):
        formats.save([walkers(), other], tmp_path / "r.json")
    with pytest.raises(DataError, match="same name"):
        formats.save([walkers(), walkers()], tmp_path / "r.json")
    with pytest.raises(DataError, match="nothing to save"):
        formats.save([], tmp_path / "r.json")
    with pytest.raises(ConfigError, match="a folder for several videos"):
        formats.save([walkers(), walkers("b")], tmp_path / "r.txt")
    with pytest.raises(DataError, match="share a folder"):
        formats.save([walkers("a/b"), walkers("a:b")], tmp_path / "r")
    with pytest.raises(DataError, match="share a file"):
        formats.save([walkers("a/b"), walkers("a:b")], tmp_path / "r", format="mots")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("path", ["r.xml", "r.tar.gz"])
def test_unknown_ending(tmp_path: Path, path: str) -> None:
    with pytest.raises(ConfigError, match="cannot tell the format"):
        walkers().save(tmp_path / path)


def test_davis_never_removes_what_it_did_not_write(tmp_path: Path) -> None:
    (tmp_path / "out/street").mkdir(parents=True)
    (tmp_path / "out/street/thesis.tex").write_text("years of work")
    (tmp_path / "out/notes.txt").write_text("")
    with pytest.raises(DataError, match=r"not a DAVIS result .*thesis\.tex"):
        walkers().save(tmp_path / "out", format="davis")
    walkers("other").save(tmp_path / "out", format="davis")
    assert (tmp_path / "out/street/thesis.tex").read_text() == "years of work"
    assert (tmp_path / "out/notes.txt").exists()
