"""From labelled frames to an overlay: the commands of docs/own_data.md, on the data of the example."""

import json
import re
import runpy
import shlex
import sys
from pathlib import Path

import pytest
import yaml

from tests.conftest import REPOSITORY
from tests.support import exit_code
from visdeploy.evaluation import read_annotations
from visdeploy.formats import load
from visdeploy.video import open_source
from visdeploy_training.engine.recipe import Recipe

PAGE = (REPOSITORY / "docs" / "own_data.md").read_text()
BLOCKS = dict(re.findall(r"```(\w+)\n(.*?)```", PAGE, flags=re.DOTALL))
COMMANDS = BLOCKS["sh"].strip().splitlines()
SMALLER = {
    "train": "iterations=6 batch_size=2 workers=0 model.height=64 model.width=96 model.grid=[4,6] accelerator=cpu",
    "export": "--certify-frames 2",
}


def write_example(folder: Path, *words: str) -> None:
    before = sys.argv
    sys.argv = ["own_data.py", str(folder), *words]
    try:
        runpy.run_path(str(REPOSITORY / "examples" / "own_data.py"), run_name="__main__")
    finally:
        sys.argv = before


def test_they_are_fewer_than_ten():
    assert len(COMMANDS) + len(["git clone", "pip install"]) < 10


def test_the_example_writes_what_the_reader_takes(tmp_path):
    write_example(tmp_path, "--videos", "2", "--frames", "3")
    truth = read_annotations(tmp_path / "train.json", strict=True)
    assert [video.file_names[2] for video in truth.videos] == ["train_0/00002.jpg", "train_1/00002.jpg"]
    assert [category.name for category in truth.categories] == ["ball", "box"]
    assert len(truth.annotations) == 4
    for video in truth.videos:
        assert all((tmp_path / "frames" / name).is_file() for name in video.file_names)
    assert len(read_annotations(tmp_path / "valid.json").videos) == 1


def test_the_labels_of_the_page_are_read(tmp_path):
    (tmp_path / "a.json").write_text(BLOCKS["json"])
    (annotation,) = read_annotations(tmp_path / "a.json", strict=True).annotations
    assert annotation.category_id == 2
    assert [None if mask is None else mask.area for mask in annotation.masks] == [20000, None]


def test_the_recipe_is_what_the_page_says(capsys):
    assert exit_code("recipes", "show", "own_data") == 0
    recipe = Recipe.model_validate(yaml.safe_load(capsys.readouterr().out))
    assert (recipe.train[0].annotations, recipe.train[0].images, recipe.train[0].layout) == (
        "train.json",
        "frames",
        "ytvis",
    )
    assert recipe.iterations == 1500
    assert recipe.pretrained is True


@pytest.mark.slow
def test_the_commands_run_as_written(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for command in COMMANDS:
        words, _, target = command.partition(" > ")
        program, *words = shlex.split(words)
        if program == "python":
            assert words[0] == "examples/own_data.py"
            write_example(Path(words[1]), "--videos", "2", "--frames", "4")
            assert capsys.readouterr().out.startswith(f"wrote {words[1]}")
            continue
        assert program == "visdeploy"
        words += SMALLER.get(words[0], "").split()
        assert exit_code(*words) == 0, f"{command}\n{capsys.readouterr().err}"
        printed = capsys.readouterr().out
        if target:
            Path(target).write_text(printed)
    (video,) = load("results.json")
    assert (video.num_frames, set(video.classes)) == (4, {"ball", "box"})
    with open_source("overlay.mp4") as frames:
        assert sum(1 for _ in frames) == 4
    assert json.loads(Path("my.vis/manifest.json").read_text())["classes"] == ["ball", "box"]
