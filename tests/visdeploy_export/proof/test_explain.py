"""Explanation of a failure: the step that is examined, the report that is shown, and the path of its page."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
from torch import nn

from visdeploy.streaming.windows import Step
from visdeploy_export.proof import explain
from visdeploy_export.proof.explain import StepWatch, Suspect, explain_failure, free_page
from visdeploy_export.proof.layer_report import Difference, LayerReport, LayerRow
from visdeploy_export.proof.layers_page import MARK


class Reference:
    """An engine whose state is the number of the step."""

    def bind_inputs(self, inputs: dict[str, np.ndarray]) -> dict[str, int]:
        return {"height": inputs["frame"].shape[0]}

    def initial_state(self, sizes: dict[str, int]) -> dict[str, int]:
        return {"memory": -sizes["height"]}

    def state_to_host(self, state: dict[str, int]) -> dict[str, np.ndarray]:
        return {name: np.array(value) for name, value in state.items()}


@pytest.mark.parametrize(
    ("failed", "expected"),
    [([False, False, True, True, True], [2, 1]), ([True, True], [0]), ([False, False, False], [2, 1]), ([False], [0])],
)
def test_the_first_step_that_fails_and_the_one_before_it_are_looked_at(failed: list[bool], expected: list[int]):
    watch = StepWatch()
    for index, each in enumerate(failed):
        step = Step({"frame": np.full(5, index, np.float32)}, index, (0.0,), 1)
        watch.see(step, {"memory": index} if index else None, failed=each)
    reference: Any = Reference()
    suspects = watch.suspects(reference)
    assert [suspect.first for suspect in suspects] == expected
    for suspect in suspects:
        assert suspect.inputs["frame"][0] == suspect.first
        assert suspect.inputs["memory"] == (suspect.first or -5), "the state before the step; the initial one at first"


def row(name: str, *, differs: bool) -> LayerRow:
    difference = Difference(1.0, 0.5 if differs else 0.0)
    return LayerRow(0, name, f"model.{name}", "conv2d", (), (1, 2), "float32", difference, difference, differs)


GOOD, BAD = LayerReport((row("good", differs=False),)), LayerReport((row("bad", differs=True),))


@pytest.mark.parametrize(
    ("reports", "untraced", "frame", "text"),
    [
        ([BAD], [], 7, "the first layer that differs is model.bad (conv2d, node bad, float32 [1, 2]): error 1, 0.5 of"),
        ([GOOD, BAD], [[]], 6, "the first layer that differs is model.bad"),
        ([GOOD, GOOD], [[], []], 7, "no layer differs by more than rounding (own errors to 0.0e+00"),
        ([GOOD], [["output 'x' differs by 3"]], 7, "what torch traced is not the network: output 'x' differs by 3"),
        ([GOOD, GOOD], [[], ["output 'y' differs by 4"]], 6, "not the network: output 'y' differs by 4"),
    ],
)
def test_the_page_is_about_the_step_with_the_fault(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    reports: list[LayerReport],
    untraced: list[list[str]],
    frame: int,
    text: str,
):
    onnx.save(onnx.ModelProto(), tmp_path / "model.onnx")
    ahead, differing = iter(reports), iter(untraced)
    monkeypatch.setattr(explain, "compare_layers", lambda *arguments: next(ahead))
    monkeypatch.setattr(explain, "_untraced", lambda *arguments: tuple(next(differing)))
    manifest = SimpleNamespace(method="visolo", variant="tiny")
    bundle: Any = SimpleNamespace(manifest=manifest, model_path=tmp_path / "model.onnx")
    program: Any = None
    page = tmp_path / "new" / "x.parity.html"
    said = explain_failure(nn.Identity(), program, bundle, [Suspect(7, {}), Suspect(6, {})], page)
    assert text in said
    assert said.startswith(f"In the step from frame {frame}, ")
    assert said.endswith(f"All layers: {page}.")
    assert f"visolo tiny, step from frame {frame}" in page.read_text()
    assert not list(ahead), "no more steps are looked at than needed"


@pytest.mark.parametrize(
    ("target", "present", "expected"),
    [
        ("a.vis", {}, "a.parity.html"),
        ("a.v2.vis", {}, "a.v2.parity.html"),
        ("folder.name", {}, "folder.name.parity.html"),
        ("a.vis", {"a.parity.html": MARK + "<p>old"}, "a.parity.html"),
        ("a.vis", {"a.parity.html": ""}, "a.parity-2.html"),
        ("a.vis", {"a.parity.html": "mine", "a.parity-2.html": "mine too"}, "a.parity-3.html"),
        ("a.vis", {"a.parity.html": "mine", "a.parity-2.html": MARK}, "a.parity-2.html"),
    ],
)
def test_a_page_replaces_pages_only(tmp_path: Path, target: str, present: dict[str, str], expected: str):
    for name, text in present.items():
        (tmp_path / name).write_text(text)
    assert free_page(tmp_path / target) == tmp_path / expected


def test_a_folder_or_a_link_of_that_name_stays(tmp_path: Path):
    (tmp_path / "a.parity.html").mkdir()
    (tmp_path / "page").write_text(MARK)
    (tmp_path / "a.parity-2.html").symlink_to(tmp_path / "page")
    (tmp_path / "a.parity-3.html").symlink_to(tmp_path / "nowhere")
    assert free_page(tmp_path / "a.vis") == tmp_path / "a.parity-4.html"
