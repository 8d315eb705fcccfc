"""Times of frames: missing, equal and repeated ones, and those of decoding."""

from functools import partial
from itertools import pairwise
from pathlib import Path

import pytest

from tests.campaigns.media_files import copied, empty_samples, joined, patched, video, zero_deltas
from visdeploy.video import open_source
from visdeploy.video.clock import Clock

MJPEG = partial(video, codec="mjpeg", pixels="yuvj420p", frames=8, container={"movflags": "faststart"})


@pytest.mark.parametrize(
    ("times", "wanted"),
    [
        ([5.0, 5.1, 5.5], [0, 0.1, 0.5]),
        ([None, None, None], [0, 0.04, 0.08]),
        ([None, 3.0, 3.1, None, 3.2], [0, 0.04, 0.14, 0.18, 0.24]),
        ([0.0, 0.0, 0.05, 0.05, 0.05, 0.3], [0, 0, 0.05, 0.05, 0.05, 0.3]),
        ([0.0, 0.08, 0.04, 0.12], [0, 0.08, 0.08, 0.12]),
        ([1.0, 1.04, 1.08, 0.0, 0.04, 0.1], [0, 0.04, 0.08, 0.12, 0.16, 0.22]),
    ],
)
def test_times_of_the_file_are_kept(times: list[float | None], wanted: list[float]) -> None:
    """Equal times do not push the later ones."""
    clock = Clock(25)
    found = [clock(each) for each in times]
    assert found == pytest.approx(wanted, abs=1e-3)
    assert all(b > a for a, b in pairwise(found))


def test_no_time_and_no_rate() -> None:
    clock = Clock(0)
    assert [clock(None) for _ in range(3)] == pytest.approx([0, 0, 0], abs=1e-3)


def stamps(path: Path) -> list[float]:
    return [frame.timestamp for frame in open_source(path)]


@pytest.mark.parametrize(("codec", "name"), [("libx264", "a.avi"), ("mpeg4", "b.avi")])
def test_frames_of_avi_with_b_frames_are_evenly_spaced(tmp_path: Path, codec: str, name: str) -> None:
    path = video(tmp_path / name, codec, frames=12, bframes=2)
    assert stamps(path) == pytest.approx([n / 25 for n in range(12)])


def test_b_frames_without_times_of_display(tmp_path: Path) -> None:
    path = copied(video(tmp_path / "whole.mp4", frames=12), tmp_path / "a.mp4", times=False)
    assert stamps(path) == pytest.approx([n / 25 for n in range(12)], abs=1e-3)


def test_durations_of_zero(tmp_path: Path) -> None:
    make = partial(video, frames=8, stamps=[0, 40, 50, 300, 340, 1000, 1700, 1710], bframes=0)
    path = patched(make, zero_deltas(2, 4))(tmp_path / "a.mp4")
    assert stamps(path) == pytest.approx([0, 0.04, 0.05, 0.05, 0.09, 0.09, 0.79, 0.8], abs=1e-3)


def test_samples_of_length_zero_are_no_end(tmp_path: Path) -> None:
    path = patched(MJPEG, empty_samples(3, 5))(tmp_path / "a.mov")
    source = open_source(path)
    assert [frame.timestamp for frame in source] == pytest.approx([0, 0.04, 0.08, 0.16, 0.24, 0.28])
    assert (source.verdict, source.expected_frames) == ("complete", 6)


def test_joined_recordings_go_on(tmp_path: Path) -> None:
    make = partial(video, codec="mpeg2video", frames=8, bframes=0)
    path = joined(make, make)(tmp_path / "a.ts")
    assert stamps(path) == pytest.approx([n / 25 for n in range(16)], abs=1e-3)
