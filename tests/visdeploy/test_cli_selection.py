"""Choice of classes, scores and frames on the command line."""

import json
import re
import shutil

import pytest
from PIL import Image

from tests.support import exit_code
from tests.visdeploy.step_graph import clip
from visdeploy.video import open_source


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("clip") / "boxes"
    path.mkdir()
    for index, frame in enumerate(clip(6)):
        Image.fromarray(frame).save(path / f"{index}.png")
    return path


@pytest.fixture
def entries(bundle, folder, tmp_path):
    """Return a function that runs `predict` and returns the entries of the result file."""

    def run(*options):
        out = tmp_path / "results.json"
        assert exit_code("predict", bundle.path, folder, "--out", out, "--overwrite", *options) == 0
        return json.loads(out.read_text())

    return run


def facts(entries):
    return [(entry["track_id"], entry["category_name"], entry["score"]) for entry in entries]


def test_tracks_are_chosen_by_class_and_score(entries):
    every = facts(entries())
    limit = sorted(score for *_, score in every)[len(every) // 2]
    kept = facts(entries("--classes", "red, blue", "--classes", "pale", "--threshold", limit, "--threshold", "blue=1"))
    assert kept == [each for each in every if each[1] in ("red", "pale") and each[2] >= limit]
    assert 0 < len(kept) < len(every)
    assert facts(entries("--min-score", limit)) == [each for each in every if each[2] >= limit]


def test_frames_are_chosen_by_position(entries):
    video = entries("--start", 1, "--step", 2, "--max-frames", 2)[0]["video"]
    assert (video["num_frames"], video["positions"]) == (2, [1, 3])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--threshold", "high"), "--threshold .*'high'"),
        (("--threshold", "red=2"), "threshold of 'red'"),
        (("--threshold", "0.4", "--threshold", "0.5"), "'0.5' after another one"),
        (("--threshold", "red=0.4", "--threshold", "red =0.5"), "one for each class"),
        (("--threshold", "rde=0.5"), "unknown class 'rde'.*Did you mean 'red'"),
        (("--classes", "red,Green"), "unknown class 'Green'.*Did you mean 'green'"),
    ],
)
def test_wrong_choices_are_one_line(bundle, folder, options, message, capsys):
    assert exit_code("predict", bundle.path, folder, *options) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert re.search(f"ConfigError: .*{message}", line)


def test_an_overlay_shows_the_processed_frames_although_masks_match_the_pattern_too(bundle, folder, tmp_path):
    base, overlay = tmp_path / "base", tmp_path / "o.mp4"
    shutil.copytree(folder, base / "frames")
    pattern, out = base / "**" / "*.png", base / "a" / "new"
    assert exit_code("predict", bundle.path, pattern, "--out", out, "--overlay", overlay) == 0
    assert exit_code("predict", bundle.path, folder, "--overlay", tmp_path / "wanted.mp4") == 0
    assert len(list(out.rglob("*.png"))) == 6
    for frame, wanted in zip(open_source(overlay), open_source(tmp_path / "wanted.mp4"), strict=True):
        assert (frame.image == wanted.image).all()


def test_names_are_printed_as_they_are(bundle, folder, tmp_path, capsys):
    named = tmp_path / "[red]a:star:[b]"
    shutil.copytree(folder, named)
    assert exit_code("predict", bundle.path, named, "--out", tmp_path / "[b].json") == 0
    printed = capsys.readouterr().out
    assert "[red]a:star:[b]: " in printed
    assert "[b].json" in printed
    assert exit_code("predict", bundle.path, named / "[red]") == 1
    assert "no image matches" in (printed := capsys.readouterr().err)
    assert "/[red]a:star:[b]/[red] (" in printed
