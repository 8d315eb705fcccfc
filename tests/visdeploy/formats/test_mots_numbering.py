"""Numbers of frames and classes in MOTS text: KITTI MOTS from 0, MOTSChallenge from 1."""

from pathlib import Path

import pytest

from tests.support import exit_code, rectangle
from tests.visdeploy.formats.results import walkers
from visdeploy import evaluate, formats
from visdeploy.cli import runs
from visdeploy.cli.outputs import parse_options
from visdeploy.errors import ConfigError, DataError
from visdeploy.masks import Mask
from visdeploy.results import Track, VideoResult

SIZE = (40, 60)
CLASSES = ("Person", "car", "zebra", "pedestrian", "ignore")


def at(left: int, top: int = 5) -> Mask:
    return rectangle(*SIZE, top, left, 8, 6)


def street(name: str = "0002") -> VideoResult:
    tracks = [
        Track(4, 0, 0.9, {0: at(0), 1: at(1), 2: at(2)}),
        Track(5, 1, 0.8, {1: at(20)}),
        Track(6, 2, 0.7, {0: at(30)}),
        Track(7, 3, 0.6, {2: at(40)}),
        Track(8, 4, 0.5, {0: at(0, 20)}),
        Track(9, 4, 0.4, {0: at(20, 20), 2: at(20, 20)}),
    ]
    return VideoResult(name, *SIZE, 3, CLASSES, tracks)


def numbers(path: Path) -> list[tuple[int, int, int]]:
    lines = [line.split() for line in path.read_text().splitlines()]
    return sorted((int(frame), int(number), int(kind)) for frame, number, kind, *_ in lines)


def test_motschallenge_as_its_server_reads_it(tmp_path, caplog):
    street().save(tmp_path / "0002.txt", numbering="motschallenge")
    assert numbers(tmp_path / "0002.txt") == [
        (1, 2000, 2), (1, 10000, 10), (2, 1000, 1), (2, 2000, 2), (3, 2000, 2), (3, 2001, 2), (3, 10000, 10),
    ]  # fmt: skip
    assert "1 tracks of classes that MOTSChallenge does not have are left out: zebra" in caplog.text


@pytest.mark.parametrize("keep_metadata", [True, False])
def test_motschallenge_is_read_back(tmp_path, keep_metadata, caplog):
    street().save(tmp_path / "0002.txt", numbering="motschallenge")
    caplog.clear()
    if not keep_metadata:
        (tmp_path / "0002.tracks.json").unlink()
    (found,) = formats.load(tmp_path / "0002.txt", **({} if keep_metadata else {"numbering": "motschallenge"}))
    assert found.num_frames == 3
    assert found.classes[:2] == ("car", "pedestrian")
    tracks = {(found.classes[t.label], min(t.masks)): t for t in found.tracks}
    kept = street().tracks
    wanted = {("pedestrian", 0): kept[0], ("car", 1): kept[1], ("pedestrian", 2): kept[3]}
    for key, track in wanted.items():
        assert tracks[key].masks == track.masks
        assert tracks[key].score == (track.score if keep_metadata else 1)
    if keep_metadata:  # without names, regions that do not count are left out
        assert {f: m.area for f, m in tracks["ignore", 0].masks.items()} == {0: 96, 2: 48}
    assert len(tracks) == 3 + keep_metadata
    assert not caplog.records


def test_kitti_is_the_default_and_read_from_zero(tmp_path, caplog):
    result = VideoResult("0002", *SIZE, 3, ("car", "pedestrian"), [Track(1, 1, 0.5, {0: at(0), 2: at(2)})])
    result.save(tmp_path / "0002.txt")
    assert numbers(tmp_path / "0002.txt") == [(0, 2000, 2), (2, 2000, 2)]
    assert formats.load(tmp_path / "0002.txt") == [result]
    (tmp_path / "0002.tracks.json").unlink()
    (found,) = formats.load(tmp_path / "0002.txt", classes=["car", "pedestrian"])
    assert sorted(found.tracks[0].masks) == [0, 2]
    with pytest.raises(DataError, match=r"line 1: field 'frame' is wrong .*whole number, 1\.\."):
        formats.load(tmp_path / "0002.txt", numbering="motschallenge")
    assert not caplog.records


def test_a_folder_that_seems_to_start_at_one_is_announced(tmp_path, caplog):
    formats.save([street("a"), street("b")], tmp_path / "mots", format="mots", numbering="motschallenge")
    for name in "ab":
        (tmp_path / "mots" / f"{name}.tracks.json").unlink()
    caplog.clear()
    found = formats.load(tmp_path / "mots", format="mots")
    assert [result.num_frames for result in found] == [4, 4]
    assert caplog.text.count("frames may be numbered from 1, as by MOTSChallenge") == 1
    caplog.clear()
    for numbering, length in (("kitti", 4), ("motschallenge", 3)):
        found = formats.load(tmp_path / "mots", format="mots", numbering=numbering)
        assert [result.num_frames for result in found] == [length, length]
    assert not caplog.records


def test_results_are_evaluated_in_either_numbering(tmp_path):
    truth = VideoResult("0002", *SIZE, 3, ("car", "pedestrian"), [Track(1, 1, 1.0, {i: at(9 * i) for i in range(3)})])
    truth.save(tmp_path / "truth" / "0002.txt", numbering="motschallenge")
    (tmp_path / "truth" / "0002.tracks.json").unlink()
    truth.save(tmp_path / "kitti" / "0002.txt")
    truth.save(tmp_path / "challenge" / "0002.txt", numbering="motschallenge")
    truth.save(tmp_path / "foreign" / "0002.txt", numbering="motschallenge")
    (tmp_path / "foreign" / "0002.tracks.json").unlink()
    for results in ("kitti", "challenge", "foreign"):
        report = evaluate(tmp_path / results, tmp_path / "truth", numbering="motschallenge")
        assert report["clear"]["per_class"]["pedestrian"]["sMOTA"] == 1
    words = (str(tmp_path / "kitti"), str(tmp_path / "truth"), "--numbering", "motschallenge")
    assert exit_code("evaluate", *words) == 0


def test_predict_writes_the_numbering_of_its_option(tmp_path):
    options = parse_options(["numbering=motschallenge", "filter_tracks=false"])
    runs._save(street(), tmp_path / "0002.txt", None, options)
    assert numbers(tmp_path / "0002.txt")[0] == (1, 2000, 2)
    zebra = VideoResult("zoo", *SIZE, 1, ("zebra",), [Track(1, 0, 1.0, {0: at(0)})])
    with pytest.raises(DataError, match=r"was written to .*zoo\.txt\.json instead"):
        runs._save(zebra, tmp_path / "zoo.txt", None, options)


@pytest.mark.parametrize("numbering", ["mots", "", None, 1, ["kitti"]])
def test_an_unknown_numbering_is_named(tmp_path, numbering):
    with pytest.raises(ConfigError, match=r"unknown numbering.*kitti or motschallenge"):
        street().save(tmp_path / "0002.txt", numbering=numbering)
    assert not list(tmp_path.iterdir())


def test_a_model_without_the_classes_is_named(tmp_path):
    with pytest.raises(DataError, match=r"no class of MOTSChallenge .*zebra.*car, pedestrian"):
        VideoResult("a", *SIZE, 1, ("zebra",), [Track(1, 0, 1.0, {0: at(0)})]).save(
            tmp_path / "a.txt", numbering="motschallenge"
        )


def test_numbering_is_for_mots_alone(tmp_path):
    walkers().save(tmp_path / "r.json")
    with pytest.raises(ConfigError, match="numbering is for MOTS text"):
        evaluate([], {"videos": [], "categories": [], "annotations": []}, numbering="kitti")
    with pytest.raises(ConfigError, match="cannot load with option 'numbering'"):
        formats.load(tmp_path / "r.json", numbering="kitti")
