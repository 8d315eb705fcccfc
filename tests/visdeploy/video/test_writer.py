"""Written videos: what is in them, and that nothing half-written stays."""

from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from tests.visdeploy.video.clips import number_of, picture
from visdeploy.errors import ConfigError, DataError, OutputError
from visdeploy.video import VideoWriter, open_source


@pytest.mark.parametrize("ending", [".mp4", ".mov", ".mkv"])
def test_round_trip(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"new/out{ending}"
    with VideoWriter(path, 64, 48, Fraction(30000, 1001), quality=4) as writer:
        for i in range(10):
            writer.write(picture(i, 64, 48))
            assert not path.exists()
    frames = list(open_source(path))
    assert [number_of(f.image) for f in frames] == list(range(10))
    assert np.abs(frames[0].image[5, 5].astype(int) - picture(0, 64, 48)[5, 5]).max() <= 4
    assert [f.timestamp for f in frames] == pytest.approx(np.arange(10) * 1001 / 30000, abs=1e-3)
    with av.open(str(path)) as file:
        context = file.streams.video[0].codec_context
        assert (context.name, context.pix_fmt, context.colorspace, context.color_range) == ("h264", "yuv420p", 1, 1)
        assert float(file.streams.video[0].average_rate) == pytest.approx(30000 / 1001, abs=0.05)
    capture = cv2.VideoCapture(str(path))
    assert capture.read()[1].shape == (48, 64, 3)
    capture.release()
    assert [p.name for p in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize(("odd", "shape"), [("pad", (38, 52, 3)), ("crop", (36, 50, 3))])
def test_odd_sizes(tmp_path: Path, odd: str, shape: tuple[int, int, int]) -> None:
    with VideoWriter(tmp_path / "o.mp4", 51, 37, 25, odd=odd) as writer:  # type: ignore[arg-type]
        writer.write(picture(3, 51, 37))
    (frame,) = open_source(tmp_path / "o.mp4")
    assert frame.image.shape == shape
    assert number_of(frame.image) == 3


def test_own_timestamps(tmp_path: Path) -> None:
    stamps = [0, 0.02, 0.5, 0.51, 2.0]
    with VideoWriter(tmp_path / "v.mp4", 64, 48, 25) as writer:
        for i, stamp in enumerate(stamps):
            writer.write(picture(i, 64, 48), stamp)
    assert [f.timestamp for f in open_source(tmp_path / "v.mp4")] == pytest.approx(stamps, abs=1e-4)


def test_error_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "v.mp4"
    path.write_bytes(b"old")

    def fail() -> None:
        with VideoWriter(path, 64, 48, 25) as writer:
            writer.write(picture(0, 64, 48))
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["v.mp4"]


@pytest.mark.parametrize(
    ("frame", "stamp", "message"),
    [
        (picture(0, 60, 48), None, r"does not match .*\(48, 60, 3\)"),
        (picture(0, 64, 48).astype(float), None, "float64"),
        (picture(0, 64, 48), 0.0, "not later"),
    ],
)
def test_bad_frames(tmp_path: Path, frame: np.ndarray, stamp: float | None, message: str) -> None:

    def fail() -> None:
        with VideoWriter(tmp_path / "v.mp4", 64, 48, 25) as writer:
            writer.write(picture(0, 64, 48))
            writer.write(frame, stamp)

    with pytest.raises(DataError, match=message):
        fail()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"path": "v.gif"}, r"\.mp4, \.mov, \.mkv"),
        ({"width": 0}, "0x48"),
        ({"fps": 0}, "fps"),
        ({"fps": float("nan")}, "fps"),
        ({"quality": 60}, "quality"),
        ({"width": 1, "odd": "crop"}, "1x48"),
    ],
)
def test_bad_settings(tmp_path: Path, arguments: dict[str, object], message: str) -> None:
    settings = {"path": "v.mp4", "width": 64, "height": 48, "fps": 25, **arguments}
    settings["path"] = tmp_path / str(settings["path"])
    with pytest.raises(ConfigError, match=message):
        VideoWriter(**settings)  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


def test_place_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match=r"cannot write .*v\.mp4 .*a file; choose another path"):
        VideoWriter(tmp_path / "file" / "v.mp4", 64, 48, 25)
