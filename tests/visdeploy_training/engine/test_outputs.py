"""Training does not replace the results of another run, or a file that it reads."""

from pathlib import Path

import pytest

from tests.support import exit_code


@pytest.fixture
def tiny_recipe(tmp_path: Path) -> Path:
    """Return a recipe with valid fields; its data do not exist."""
    path = tmp_path / "own.yaml"
    data = "{annotations: a.json, images: frames, layout: ytvis}"
    path.write_text(
        f"method: visolo\nvariant: tiny\nclasses: [cat]\ndata_root: {tmp_path}\ntrain: [{data}]\niterations: 1\n"
        f"clip_length: 2\nbatch_size: 1\noutput: {tmp_path / 'none'}\n"
    )
    return path


def test_training_replaces_no_earlier_run_and_no_input(tiny_recipe: Path, capsys) -> None:
    run = tiny_recipe.parent / "out"
    run.mkdir()
    (run / "model.safetensors").write_text("an earlier result")
    words = ("train", tiny_recipe, f"output={run}")
    for extra, part in (
        ((), "exists already. Pass --overwrite to replace it, resume=true"),
        ((f"init={run / 'model.safetensors'}", "--overwrite"), "would replace the input"),
        ((f"init={run / 'model.safetensors'}", "resume=true"), "would replace the input"),
    ):
        assert exit_code(*words, *extra) == 1
        assert part in capsys.readouterr().err
    own = run / "recipe.yaml"
    own.write_bytes(tiny_recipe.read_bytes())
    assert exit_code("train", own, f"output={run}", "--overwrite") == 1
    assert "would replace the input" in capsys.readouterr().err
    assert own.read_bytes() == tiny_recipe.read_bytes()
