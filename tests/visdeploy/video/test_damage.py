"""Verdicts on damaged, cut and odd files: one rule for all containers."""

import re
from fractions import Fraction
from functools import partial
from pathlib import Path

import pytest

from tests.campaigns.media import compare
from tests.campaigns.media_cases import (
    AVI_CASES,
    MATROSKA_CASES,
    MP4_CASES,
    MPEG_CASES,
    avi,
    bare,
    fast,
    h264,
    live,
    vp9,
)
from tests.campaigns.media_files import Case, append, cut, hole, patched, video
from tests.campaigns.media_images import ANIMATION_CASES, several
from tests.visdeploy.video.clips import make_clip
from visdeploy.errors import SourceError
from visdeploy.video import open_source
from visdeploy.video.integrity import Ending, examine

SLOW = {"hevc.mp4", "av1.mp4"}
CASES = [*MP4_CASES, *AVI_CASES, *MATROSKA_CASES, *MPEG_CASES, *ANIMATION_CASES]
GIF = partial(several, duration=100)
LAST = {".mkv": b"\xa3", ".webm": b"\xa3", ".gif": b"\x2c", ".mp4": b"mdat", ".avi": b"00dc"}


@pytest.mark.parametrize("case", [case for case in CASES if case.name not in SLOW], ids=lambda case: case.name)
def test_frames_times_and_verdict(tmp_path: Path, case: Case) -> None:
    """See the cases for what is special about each file."""
    row = compare(case, tmp_path)
    assert row.good, row.line()


@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("a.mp4", cut(fast, 0.9)),
        ("b.mkv", cut(h264, 0.8)),
        ("c.webm", cut(vp9, 0.6)),
        ("d.ts", cut(h264, 0.71)),
        ("e.avi", cut(avi, 0.6)),
        ("f.gif", cut(GIF, 0.7)),
        ("g.mkv", cut(live, 0.8)),
    ],
)
def test_responses_to_a_cut(tmp_path: Path, name: str, make) -> None:
    path = make(tmp_path / name)
    skipping = open_source(path, on_error="skip")
    every = [frame.timestamp for frame in skipping]
    raising, delivered = open_source(path), []
    with pytest.raises(SourceError, match=r"is truncated|decoding failed after") as caught:
        delivered.extend(frame.timestamp for frame in raising)
    stopping = open_source(path, on_error="stop")
    assert [frame.timestamp for frame in stopping] == delivered == every[: len(delivered)]
    assert len(every) - 3 <= len(delivered) <= len(every)
    assert {s.verdict for s in (skipping, raising, stopping)} == {"damaged"}
    assert "--on-damage skip or stop-here" in str(caught.value)
    assert ", damaged" in str(skipping.report())


def test_an_abandoned_source_has_no_verdict(tmp_path: Path) -> None:
    source = open_source(fast(tmp_path / "a.mp4"))
    reader = iter(source)
    next(reader)
    reader.close()
    assert source.verdict == "unknown"
    assert len(list(source)) == 24
    assert source.verdict == "complete"


def test_a_limit_before_the_damage(tmp_path: Path) -> None:
    source = open_source(cut(fast, 0.9)(tmp_path / "a.mp4"), max_frames=5)
    assert len(list(source)) == 5
    assert source.verdict == "complete"


def test_frames_before_the_first_key_frame(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    case = next(case for case in MATROSKA_CASES if case.name == "headless.mkv")
    assert len(list(open_source(case.make(tmp_path / case.name)))) == 12
    assert re.search(r"headless starts in the middle of a group of pictures; 7 frames before the first", caplog.text)


def test_a_wrong_count_in_the_header_is_no_damage(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    case = next(case for case in AVI_CASES if case.name == "count.avi")
    source = open_source(case.make(tmp_path / case.name))
    assert len(list(source)) == source.report().expected_frames == 24
    assert not caplog.records


@pytest.mark.parametrize(
    ("name", "container", "make"),
    [
        ("a.mkv", "matroska,webm", h264),
        ("b.webm", "matroska,webm", vp9),
        ("c.gif", "gif", GIF),
        ("d.mp4", "mov,mp4,m4a,3gp,3g2,mj2", bare),
        ("e.avi", "avi", avi),
    ],
)
def test_no_cut_looks_complete(tmp_path: Path, name: str, container: str, make) -> None:
    """A file whose end is missing is cut, or ends behind its last frame."""
    data, path = make(tmp_path / name).read_bytes(), tmp_path / name
    whole = examine(path, container, index=0, identity=1)
    for size in range(len(data) // 2, data.rindex(LAST[path.suffix]), max(1, len(data) // 300)):
        path.write_bytes(data[:size])
        found = examine(path, container, index=0, identity=1)
        assert found.ending in (Ending.CUT, Ending.OPEN), size
        assert found.frames is None or found.frames <= whole.frames


@pytest.mark.parametrize("tail", [b"notes of a recorder", b"\0" * 50, b"12"])
@pytest.mark.parametrize("name", ["a.mp4", "b.mkv", "c.avi", "d.gif"])
def test_bytes_behind_a_video_are_no_damage(tmp_path: Path, name: str, tail: bytes) -> None:
    make = {"a.mp4": h264, "b.mkv": h264, "c.avi": avi, "d.gif": GIF}[name]
    source = open_source(patched(make, append(tail))(tmp_path / name))
    assert len(list(source)) == (6 if name == "d.gif" else 24)
    assert source.verdict == "complete"


def test_concealed_damage_is_delivered_and_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    make = partial(video, codec="mpeg1video", options={"b": "4M"}, gop=24, size=(176, 144))
    source = open_source(hole(make, 0.5, 200)(tmp_path / "a.m1v"))
    assert len(list(source)) >= 23
    assert (source.corrupt_frames > 0, source.verdict) == (True, "damaged")
    assert "concealed by the decoder" in caplog.text


@pytest.mark.parametrize(("degrees", "size"), [(0, (64, 48)), (90, (48, 64)), (180, (64, 48)), (270, (48, 64))])
def test_size_and_pixel_aspect_before_the_first_frame(tmp_path: Path, degrees: int, size: tuple[int, int]) -> None:
    path = video(tmp_path / "a.mp4", frames=3, turn=(degrees, False, False), aspect=Fraction(4, 3))
    source = open_source(path)
    before = (source.width, source.height, source.pixel_aspect)
    assert before[:2] == size
    assert [frame.image.shape for frame in source] == [(*size[::-1], 3)] * 3
    assert (source.width, source.height, source.pixel_aspect) == before
    assert float(before[2]) == pytest.approx(3 / 4 if degrees % 180 else 4 / 3)


@pytest.mark.parametrize("filling", [0x00, 0xFF])
def test_a_gif_that_lost_an_image_is_not_complete(tmp_path: Path, filling: int) -> None:
    """Bytes of one image, its control block and the start of the next one are overwritten at all places."""
    whole = GIF(tmp_path / "a.gif").read_bytes()
    images = len(list(open_source(tmp_path / "a.gif")))
    length, lost = len(whole) // images + 40, 0
    for start in range(len(whole) // 4, len(whole) - length, length // 7):
        holed = tmp_path / f"{start}.gif"
        holed.write_bytes(whole[:start] + bytes([filling]) * length + whole[start + length :])
        source = open_source(holed, on_error="skip")
        if len(list(source)) < images:
            lost += 1
            assert source.verdict != "complete", start
    assert lost > 3


def test_an_unreadable_length_within_an_mkv_file_is_damage(tmp_path: Path) -> None:
    """The last frame is there and reaches the duration of the track; those before it are lost."""
    whole = h264(tmp_path / "a.mkv").read_bytes()
    places = [match.start() for match in re.finditer(rb"\xa3[\x40-\x7f]", whole)]
    holed = tmp_path / "b.mkv"
    holed.write_bytes(whole[: places[len(places) // 2] + 1] + b"\0" + whole[places[len(places) // 2] + 2 :])
    source = open_source(holed, on_error="skip")
    assert len(list(source)) < 24
    assert source.verdict == "damaged"
    assert examine(holed, "matroska", index=0, identity=0).ending is Ending.BROKEN


def test_a_lost_b_frame_at_the_end_of_an_mkv_file_is_noticed(tmp_path: Path) -> None:
    """It is stored last but shown before the frame that ends with the track."""
    whole = make_clip(tmp_path / "whole.mkv").read_bytes()
    last = max(found.start() for found in re.finditer(rb"\xa3([\x80-\xff]|[\x40-\x7f].)\x81", whole))
    path = tmp_path / "cut.mkv"
    path.write_bytes(whole[: last + 12])
    source = open_source(path, on_error="stop")
    assert len(list(source)) == 11
    assert source.verdict == "damaged"
