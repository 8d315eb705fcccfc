"""Results know which frames of their source they are about, and overlays show those."""

import json

import numpy as np
import pytest
from PIL import Image

from tests.visdeploy.step_graph import make_bundle
from visdeploy import VISPredictor, formats
from visdeploy.errors import DataError
from visdeploy.masks import Mask
from visdeploy.results import Track
from visdeploy.video import VideoWriter, open_source

GREY = 10
FRAMES = np.stack([np.full((96, 160, 3), GREY * t, np.uint8) for t in range(10)])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("grey") / "seq"
    path.mkdir()
    for t, frame in enumerate(FRAMES):
        Image.fromarray(frame).save(path / f"{t}.png")
    return path


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return VISPredictor(make_bundle(tmp_path_factory.mktemp("bundle") / "boxes.vis"), device="cpu")


def with_track(result):
    """Add a track of a few pixels: a video without one has no entry in a result file."""
    corner = np.zeros((96, 160), bool)
    corner[:2, :2] = True
    result.tracks = [Track(0, 0, 0.9, {0: Mask.encode(corner)})]
    return result


def shown(path):
    """Return the number of each frame of a video of grey frames."""
    return [round(float(frame.image.mean()) / GREY) for frame in open_source(path)]


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("folder", {"step": 2}),
        ("folder", {"step": 2, "fps": 10}),
        ("glob", {"step": 3, "fps": 10}),
        ("array", {"step": 2}),
        ("folder", {"step": 4, "max_frames": 2}),
        ("folder", {"start": 3, "step": 2}),
        ("array", {"start": 5, "max_frames": 3}),
        ("folder", {}),
    ],
)
def test_an_overlay_shows_the_processed_frames(model, folder, tmp_path, kind, options):
    source = {"folder": folder, "glob": str(folder / "*.png"), "array": FRAMES}[kind]
    result = model(source, **options)
    wanted = list(range(options.get("start", 0), 10, options.get("step", 1)))[: options.get("max_frames")]
    result.render(tmp_path / "overlay.mp4", source=FRAMES if kind == "array" else None)
    assert shown(tmp_path / "overlay.mp4") == wanted
    assert list(result.positions) == ([] if wanted == list(range(10)) else wanted)


def test_a_video_is_processed_from_a_start(model, tmp_path):
    with VideoWriter(tmp_path / "in.mp4", 160, 96, 10, quality=0) as writer:
        for frame in FRAMES:
            writer.write(frame)
    result = model(tmp_path / "in.mp4", start=4, step=3)
    assert (result.positions, result.expected_frames) == ((4, 7), 2)
    assert result.timestamps == pytest.approx((0.4, 0.7))
    result.render(tmp_path / "overlay.mp4")
    assert shown(tmp_path / "overlay.mp4") == [4, 7]


def test_the_processed_frames_alone_are_a_source_as_well(model, folder, tmp_path):
    result = model(folder, step=2)
    result.render(tmp_path / "overlay.mp4", source=FRAMES[::2])
    assert shown(tmp_path / "overlay.mp4") == [0, 2, 4, 6, 8]


def test_frames_that_were_skipped_stay_out(model, folder, tmp_path):
    damaged = tmp_path / "seq"
    damaged.mkdir()
    for file in folder.iterdir():
        (damaged / file.name).write_bytes(b"damaged" if file.stem == "3" else file.read_bytes())
    result = model(damaged, on_error="skip")
    assert list(result.positions) == [0, 1, 2, 4, 5, 6, 7, 8, 9]
    result.render(tmp_path / "overlay.mp4")
    assert shown(tmp_path / "overlay.mp4") == [0, 1, 2, 4, 5, 6, 7, 8, 9]


@pytest.mark.parametrize("name", ["tracks.json", "davis"])
def test_positions_are_kept_in_files(model, folder, tmp_path, name):
    result = with_track(model(folder, step=2))
    result.save(tmp_path / name)
    found = formats.load(tmp_path / name)
    assert [list(each.positions) for each in found] == [[0, 2, 4, 6, 8]]
    found[0].render(tmp_path / "overlay.mp4", labels=False, ids=False, scores=False)
    assert shown(tmp_path / "overlay.mp4") == [0, 2, 4, 6, 8]


@pytest.mark.parametrize("positions", [[0, 2, 4], [0, 2, 4, 4, 6], [-1, 2, 4, 6, 8]])
def test_wrong_positions_are_refused(model, folder, tmp_path, positions):
    result = with_track(model(folder, step=2))
    result.positions = positions
    with pytest.raises(DataError, match="wrong positions of the frames"):
        result.save(tmp_path / "tracks.json")
    result.positions = [0, 2, 4, 6, 8]
    result.save(tmp_path / "tracks.json")
    text = (tmp_path / "tracks.json").read_text().replace("[0,2,4,6,8]", json.dumps(positions))
    (tmp_path / "tracks.json").write_text(text)
    with pytest.raises(DataError, match="wrong positions of the frames"):
        formats.load(tmp_path / "tracks.json")
