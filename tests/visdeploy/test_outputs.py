"""Outputs are refused before anything is computed if they would destroy something or cannot be written."""

import os
from pathlib import Path

import pytest

from visdeploy.errors import OutputError
from visdeploy.outputs import Output, check_distinct, check_inputs_kept, check_new, check_writable, free_path


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Return a folder with a video, frames, links to them, and a bundle."""
    (tmp_path / "data/frames").mkdir(parents=True)
    (tmp_path / "b.vis/engines").mkdir(parents=True)
    for name in ("data/in.mp4", "data/frames/0.png", "b.vis/manifest.json", "b.vis/model.onnx"):
        (tmp_path / name).write_text("")
    os.link(tmp_path / "data/in.mp4", tmp_path / "hard.mp4")
    (tmp_path / "soft.mp4").symlink_to("data/in.mp4")
    (tmp_path / "linked").symlink_to("data")
    (tmp_path / "0.png").symlink_to("data/in.mp4")
    return tmp_path


@pytest.mark.parametrize(
    ("output", "folder", "message"),
    [
        ("data/in.mp4", False, "would replace the input .*in.mp4"),
        ("data/../data/in.mp4", False, "would replace"),
        ("hard.mp4", False, "would replace"),
        ("soft.mp4", False, "would replace"),
        ("linked/in.mp4", False, "would replace"),
        ("data/IN.MP4", False, "would replace"),
        ("DATA/in.mp4", False, "would replace"),
        ("data/frames", True, "would replace the input .*0.png"),
        ("linked/frames", True, "would replace"),
        ("data", True, "would replace"),
        ("b.vis", True, "would replace the input .*b.vis"),
        ("b.vis/r.json", False, "lies in the bundle .*b.vis"),
        ("b.vis/engines/new/r.json", False, "lies in the bundle"),
        ("data/out.mp4", False, None),
        ("data/frames/out.mp4", False, None),
        ("data/masks", True, None),
        ("data/frames/masks", True, "would lie among the images of the input"),
        ("linked/frames/masks", True, "would lie among the images"),
        ("data/frames/new/masks", True, None),
        ("b.vis.json", False, None),
    ],
)
def test_inputs_are_kept(data: Path, output: str, folder: bool, message: str | None) -> None:
    inputs = [data / "data/in.mp4", data / "data/frames/0.png", data / "b.vis"]
    outputs = [Output(data / output, folder=folder)]
    if message is None:
        check_inputs_kept(outputs, inputs)
        return
    with pytest.raises(OutputError, match=message):
        check_inputs_kept(outputs, inputs)


def test_a_link_to_an_input_is_not_replaced(data: Path) -> None:
    with pytest.raises(OutputError, match="would replace"):
        check_inputs_kept([Output(data / "soft.mp4")], [data / "soft.mp4"])


def test_composed_names_are_equal(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="would replace"):
        check_inputs_kept([Output(tmp_path / "e\u0301.mp4")], [tmp_path / "\u00e9.mp4"])


@pytest.mark.parametrize(
    ("output", "folder", "message"),
    [
        ("data", False, "seen: a folder; expected: no such path, or a file"),
        ("data/in.mp4", True, "seen: a file; expected: no such path, or a folder"),
        ("pipe", False, "neither a file nor a folder"),
        ("data/in.mp4/r.json", False, "A part of the path is a file"),
        ("r" * 300, False, "File name too long"),
        ("new/r.json", False, None),
        ("hard.mp4", False, None),
    ],
)
def test_what_can_be_written(data: Path, output: str, folder: bool, message: str | None) -> None:
    os.mkfifo(data / "pipe")
    before = sorted(data.rglob("*"))
    if message is None:
        check_writable([Output(data / output, folder=folder)])
    else:
        with pytest.raises(OutputError, match=message):
            check_writable([Output(data / output, folder=folder)])
    assert sorted(data.rglob("*")) == before


def test_outputs_are_distinct(tmp_path: Path) -> None:
    one, other = Output(tmp_path / "a/r.mp4"), Output(tmp_path / "b/../A/R.mp4")
    check_distinct([one, Output(tmp_path / "a/r.mp4.json")])
    for pair in ([one, other], [other, one], [one, Output(tmp_path / "a", folder=True)]):
        with pytest.raises(OutputError, match="would replace each other"):
            check_distinct(pair)


def test_existing_outputs(data: Path) -> None:
    check_new([Output(data / "new.json")], hint="")
    with pytest.raises(OutputError, match=r"in\.mp4 exists already\. Say so\.$"):
        check_new([Output(data / "new.json"), Output(data / "data/in.mp4")], hint="Say so.")


def test_free_path(tmp_path: Path) -> None:
    names = []
    for _ in range(3):
        path = free_path(tmp_path / "r.json")
        path.write_text("")
        names.append(path.name)
    assert names == ["r.json", "r-2.json", "r-3.json"]
