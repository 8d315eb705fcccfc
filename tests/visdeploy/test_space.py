"""Free space: outputs that would certainly not fit are refused before anything is read, others never."""

import shutil
from collections import namedtuple
from pathlib import Path

import numpy as np
import pytest

from tests.support import exit_code, square_video
from visdeploy import VideoResult
from visdeploy.formats import save
from visdeploy.space import least_of_pngs, least_of_video
from visdeploy.video import VideoWriter

Usage = namedtuple("Usage", "total used free")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    square_video(tmp_path / "in.mp4", 4)
    (tmp_path / "x.pth").write_bytes(bytes(100_000))
    return tmp_path


@pytest.mark.parametrize(
    "words",
    [
        "predict no.vis in.mp4 --out masks",
        "predict no.vis in.mp4 --overlay o.mp4",
        "predict no.vis in.mp4 --out new/folder/masks --overlay o.mp4",
        "convert x.pth",
        "export x.pth",
    ],
)
def test_too_little_space_is_refused_first(folder, words, monkeypatch, capsys):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(10**9, 10**9 - 1000, 1000))
    before = sorted(folder.rglob("*"))
    assert exit_code(*words.split()) == 1
    printed = capsys.readouterr().err
    assert printed.startswith("OutputError: there is not enough space for ")
    assert "Free some space" in printed
    assert sorted(folder.rglob("*")) == before


@pytest.mark.parametrize(
    ("words", "usage"),
    [
        ("predict no.vis in.mp4 --out r.json", Usage(10**9, 10**9, 0)),  # of unknown size
        ("predict no.vis in.mp4 --out masks --overlay o.mp4", Usage(10**9, 10**9 - 5000, 5000)),
        ("predict no.vis in.mp4 --out masks", Usage(0, 0, 0)),  # file systems without a size
    ],
)
def test_small_outputs_are_not_refused(folder, words, usage, monkeypatch, capsys):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    assert exit_code(*words.split()) == 1
    assert capsys.readouterr().err.startswith("BundleError: no.vis")


def test_outputs_on_one_disk_are_counted_together(folder, monkeypatch, capsys):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(10**9, 10**9 - 3500, 3500))
    for words in ("--out masks", "--overlay o.mp4"):
        exit_code("predict", "no.vis", "in.mp4", *words.split())
        assert "BundleError" in capsys.readouterr().err
    exit_code("predict", "no.vis", "in.mp4", "--out", "masks", "--overlay", "o.mp4")
    assert "not enough space" in capsys.readouterr().err


def test_a_wrong_number_of_frames_in_a_header_is_no_reason(folder, monkeypatch, capsys):
    """A header can announce any number of frames; a file has at most so many as its bytes allow."""
    monkeypatch.setattr("visdeploy.video.files.claimed_frames", lambda _: 10**12)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(10**9, 0, 10**9))
    exit_code("predict", "no.vis", "in.mp4", "--out", "masks")
    assert "BundleError" in capsys.readouterr().err


def test_estimates_are_below_the_smallest_outputs(tmp_path):
    """Empty masks, and a video in which nothing moves."""
    height, width, frames = 480, 640, 12
    save(VideoResult("v", height, width, frames, ("a",)), tmp_path / "masks")
    written = sum(p.stat().st_size for p in (tmp_path / "masks").rglob("*.png"))
    assert 0.5 * written < least_of_pngs(frames) <= written
    with VideoWriter(tmp_path / "o.mp4", width, height, 25) as writer:
        for _ in range(frames):
            writer.write(np.zeros((height, width, 3), np.uint8))
    assert 0 < least_of_video(frames, height, width) <= (tmp_path / "o.mp4").stat().st_size
