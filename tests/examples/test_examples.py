"""The example programs run without changes."""

import subprocess
import sys

import numpy as np
import pytest

from tests.conftest import REPOSITORY
from visdeploy.formats import load
from visdeploy.video import VideoWriter, open_source

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """Write two short videos of moving squares."""
    folder = tmp_path_factory.mktemp("clips")
    for number, colour in enumerate(((220, 40, 30), (30, 60, 220))):
        with VideoWriter(folder / f"{number}.mp4", 160, 96, 10) as writer:
            for t in range(6):
                image = np.full((96, 160, 3), 90, np.uint8)
                image[20:60, 10 + 12 * t : 50 + 12 * t] = colour
                writer.write(image)
    return [folder / "0.mp4", folder / "1.mp4"]


def example(name, *words):
    ran = subprocess.run(
        [sys.executable, REPOSITORY / "examples" / name, *map(str, words)], capture_output=True, text=True
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


def test_push_frames_prints_every_frame_of_both_streams(tiny_bundle, clips):
    lines = example("push_frames.py", tiny_bundle, *clips).strip().splitlines()
    assert [int(line.split("|")[0]) for line in lines] == list(range(6))
    assert any("#" in line for line in lines)


def test_demo_writes_everything_it_names(clips, tmp_path):
    printed = example("demo.py", "--video", clips[0], "--out", tmp_path, "--min-score", "0")
    assert "parity certificate" in printed
    assert "FPS" in printed
    assert (tmp_path / "visolo_tiny.vis" / "certificate.json").is_file()
    with open_source(tmp_path / "overlay.mp4") as frames:
        assert sum(1 for _ in frames) == 6
    assert (tmp_path / "contact_sheet.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "results.json").read_text().startswith("[")
    for video in load(tmp_path / "results.json"):
        assert video.num_frames == 6
