"""The command line: what it prints, what it writes, how it fails."""

import json

import pytest

from tests.support import exit_code, square_video
from visdeploy import __version__, exporting
from visdeploy.bundle import Bundle
from visdeploy.cli import models
from visdeploy.video import open_source


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """Return a short video of a moving square."""
    return square_video(tmp_path_factory.mktemp("clip") / "square.mp4", 6)


def test_version_is_the_package_version(capsys):
    assert exit_code("--version") == 0
    assert capsys.readouterr().out.strip() == __version__


def test_info_names_tensors_and_certificate(tiny_bundle, capsys):
    assert exit_code("info", tiny_bundle) == 0
    out = capsys.readouterr().out
    for word in ("visolo tiny", "cat, dog, owl", "mem_ref", "cell_scores", "parity certificate", "passed"):
        assert word in out


def test_verify_prints_the_comparison(tiny_bundle, capsys):
    assert exit_code("verify", tiny_bundle) == 0
    assert "passed" in capsys.readouterr().out


def test_predict_writes_results_and_overlay(tiny_bundle, clip, tmp_path, capsys):
    results, overlay = tmp_path / "results.json", tmp_path / "overlay.mp4"
    assert exit_code("predict", tiny_bundle, clip, "--out", results, "--overlay", overlay, "--device", "cpu") == 0
    entries = json.loads(results.read_text())
    assert entries, "the network of this bundle finds objects in anything"
    assert all(len(entry["segmentations"]) == 6 for entry in entries)
    with open_source(overlay) as frames:
        assert sum(1 for _ in frames) == 6
    assert f"{len(entries)} tracks in 6 frames" in capsys.readouterr().out


def test_min_score_leaves_weak_tracks_out(tiny_bundle, clip, tmp_path):
    strong, every = tmp_path / "strong.json", tmp_path / "all.json"
    assert exit_code("predict", tiny_bundle, clip, "--out", every) == 0
    scores = sorted(entry["score"] for entry in json.loads(every.read_text()))
    limit = scores[len(scores) // 2]
    assert exit_code("predict", tiny_bundle, clip, "--out", strong, "--min-score", limit) == 0
    kept = [entry["score"] for entry in json.loads(strong.read_text())]
    assert sorted(kept) == [score for score in scores if score >= limit]


def test_overlay_draws_what_the_score_allows(tiny_bundle, clip, tmp_path):
    """All tracks go into the results; drawn are those of the asked score, or of the style's own."""
    drawn = {}
    for name, options in {
        "default": (),
        "0.25": ("--min-score", 0.25),
        "0": ("--min-score", 0),
        "1": ("--min-score", 1),
    }.items():
        overlay = tmp_path / f"{name}.mp4"
        assert exit_code("predict", tiny_bundle, clip, "--overlay", overlay, *options) == 0
        with open_source(overlay) as frames:
            drawn[name] = next(iter(frames)).image.astype(int)
    assert (drawn["default"] == drawn["0.25"]).all()
    assert abs(drawn["0"] - drawn["1"]).max() > 30


def test_evaluate_scores_a_result_file(shared, capsys):
    folder = shared / "goldens" / "eval" / "synthetic"
    assert exit_code("evaluate", folder / "predictions" / "graded.json", folder / "gt.json") == 0
    expected = json.loads((folder / "reference.json").read_text())["metrics"]["graded"]["ytvis"]["AP"]
    assert f"{expected:.4f}" in capsys.readouterr().out


def test_convert_reports_keys_and_writes_ours(tiny_checkpoint, tmp_path, capsys):
    out = tmp_path / "copy.safetensors"
    assert exit_code("convert", tiny_checkpoint, "--out", out) == 0
    printed = capsys.readouterr().out
    assert out.read_bytes()
    for kind in ("missing", "unexpected", "misshapen"):
        assert any(kind in line and "0" in line for line in printed.splitlines())


def test_export_sets_what_it_is_told(monkeypatch, tiny_bundle, tmp_path):
    asked, made = [], Bundle.open(tiny_bundle)
    monkeypatch.setattr(exporting, "export", lambda *words, **options: asked.append(options) or made)
    words = ("--set", "window=60", "--set", "pixel_mean=[1, 2.5, 3]", "--set", "score_threshold=1e-3")
    assert exit_code("export", tmp_path / "x.pth", *words) == 0
    assert asked[0]["overrides"] == {"window": 60, "pixel_mean": [1, 2.5, 3], "score_threshold": 0.001}


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (("window",), "key=value"),
        (("=60",), "key=value"),
        (("window=[1",), "'window' is not YAML"),
        (("window=1", "window=2"), "'window' is given twice"),
        (("window=60",), "unknown setting 'window'"),
        (("head_width=16",), "head_width cannot be changed at export"),
    ],
)
def test_settings_that_cannot_be(tiny_checkpoint, tmp_path, words, part, capsys):
    words = [word for text in words for word in ("--set", text)]
    assert exit_code("export", tiny_checkpoint, "--out", tmp_path / "out.vis", *words) == 1
    printed = capsys.readouterr().err
    assert printed.startswith("ConfigError: ")
    assert part in printed
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("words", "error", "part"),
    [
        (("verify", "nowhere.vis"), "BundleError", "nowhere.vis"),
        (("info", "nowhere.vis"), "BundleError", "nowhere.vis"),
        (("convert", "nowhere.pth"), "CheckpointError", "nowhere.pth"),
        (("export", "nowhere.pth"), "CheckpointError", "nowhere.pth"),
        (("export", "nowhere.pth", "--precision", "int3"), "ConfigError", "int3"),
        (("evaluate", "nowhere.json", "nothing.json"), "DataError", "nothing.json"),
        (("train", "no_such_recipe"), "ConfigError", "no_such_recipe"),
    ],
)
def test_errors_are_one_line_with_exit_code_1(words, error, part, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert exit_code(*words) == 1
    printed = capsys.readouterr().err
    assert printed.startswith(f"{error}: ")
    assert part in printed
    assert "Traceback" not in printed
    assert not list(tmp_path.iterdir()), "a failed command leaves nothing behind"


def test_missing_video_leaves_no_output(tiny_bundle, tmp_path, capsys):
    assert exit_code("predict", tiny_bundle, tmp_path / "no.mp4", "--out", tmp_path / "out.json") == 1
    # the progress bar that never came to move leaves an empty line
    assert capsys.readouterr().err.lstrip().startswith("SourceError: ")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("text", "names"), [("person,", ["person"]), ("a, b", ["a", "b"]), ("ytvis2019", "ytvis2019"), (None, None)]
)
def test_names_of_classes(text, names):
    assert models._names(text) == names


def test_names_that_are_made_up_are_said():
    assert "made up" in models._made_up(["class_0", "class_1"])
    assert not models._made_up(["class_0", "cat"])
