"""A report names the layer with a planted fault and none before it; a file without a fault has none."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import helper, numpy_helper

import visdeploy_plugins
from tests.visdeploy_export.proof.traced_step import CHANNELS, traced_step
from visdeploy.bundle import MODEL
from visdeploy_export.graph import WrittenGraph, write_onnx
from visdeploy_export.proof.layer_report import BOUND, LayerReport
from visdeploy_export.proof.layers import compare_layers, difference
from visdeploy_export.proof.layers_page import MARK, layers_page

Change = Callable[[onnx.ModelProto], None]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[WrittenGraph, Path]:
    folder = tmp_path_factory.mktemp("graph")
    return write_onnx(traced_step(), folder, metadata={}), folder / MODEL


def start(path: Path) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 3, 1
    if library := visdeploy_plugins.onnxruntime_library():
        options.register_custom_ops_library(str(library))
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def inputs(height: int = 8, width: int = 10) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    frame, memory = rng.standard_normal((1, 3, height, width)), rng.standard_normal((4, CHANNELS))
    return {"frame": frame.astype(np.float32), "memory": memory.astype(np.float32), "step": np.int64([3])}


def report(written: tuple[WrittenGraph, Path], change: Change = lambda model: None, **options: int) -> LayerReport:
    graph, path = written
    model = onnx.load(path)
    change(model)
    return compare_layers(graph.program, model, inputs(), start, **options)


def weight(name: str, add: float) -> Change:
    """Change the first element of a weight."""

    def change(model: onnx.ModelProto) -> None:
        tensor = next(t for t in model.graph.initializer if t.name == name)
        values = numpy_helper.to_array(tensor).copy()
        values.flat[0] += add
        tensor.CopyFrom(numpy_helper.from_array(values, name))

    return change


def node(output: str, *, op: str | None = None, **attributes: Any) -> Change:
    """Make another operator of the node that gives a value, or give it other attributes."""

    def change(model: onnx.ModelProto) -> None:
        found = next(n for n in model.graph.node if output in n.output)
        found.op_type = op or found.op_type
        kept = [a for a in found.attribute if a.name not in attributes] if op is None else []
        del found.attribute[:]
        found.attribute.extend([*kept, *(helper.make_attribute(k, v) for k, v in attributes.items())])

    return change


def test_an_unbroken_file_names_no_layer(written: tuple[WrittenGraph, Path]):
    found = report(written)
    assert found.first is None
    assert (found.stopped, found.unaligned) == ("", ())
    assert str(found).startswith("no layer differs by more than rounding")
    assert [row.order for row in found.rows] == list(range(len(found.rows)))
    assert max(row.own.share for row in found.rows) < BOUND / 30, "the bound is far from rounding"
    layers = [row.layer for row in found.rows if row.layer]
    assert layers == ["stem.1", "stem.2", "middle.offset", "middle", "norm", "project", "head.0", "head.1", "head.2"]
    assert (found.rows[0].includes, found.rows[0].shape) == (("stem.0",), (1, CHANNELS, 8, 10))
    assert {row.op for row in found.rows} >= {"deform_conv", "softmax", "topk", "nonzero", "split_with_sizes", "matmul"}
    assert {row.dtype for row in found.rows} == {"float32", "int64", "bool"}


FAULTS: dict[str, tuple[Change, str, str]] = {
    "a weight folded with its norm": (weight("stem.0.weight", 0.3), "stem.1", "conv2d"),
    "another activation": (node("relu", op="Abs"), "stem.2", "relu"),
    "a weight of our operator": (weight("middle.weight", 0.05), "middle", "deform_conv"),
    "offsets of our operator": (weight("middle.offset.bias", 0.01), "middle.offset", "conv2d"),
    "a small fault in a linear layer": (weight("project.weight", 0.005), "project", "linear"),
    "an attribute": (node("softmax", axis=0), "", "softmax"),
    "another activation at the end": (node("gelu", op="Relu"), "head.1", "gelu"),
    "the direction of a selection": (node("best", largest=0), "", "topk"),
    "a comparison": (node("gt", op="Less"), "", "gt"),
    "not a number": (weight("head.2.bias", float("nan")), "head.2", "linear"),
    "what only the state shows": (node("next_memory", op="Sub"), "", "add"),
    "a counter": (node("next_step", op="Sub"), "", "add"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_planted_fault_is_named_and_nothing_before_it(written: tuple[WrittenGraph, Path], name: str):
    change, layer, op = FAULTS[name]
    found = report(written, change)
    first = found.first
    assert first is not None
    assert (first.layer, first.op.split(" + ")[0]) == (layer, op)
    assert [row for row in found.rows if row.differs] == [first], "later layers do nothing wrong by themselves"
    assert not found.stopped
    assert all(row.total.share < BOUND for row in found.rows[: first.order])
    assert first.place in str(found)
    assert ("of its entries" in str(found)) == (first.dtype in ("bool", "int64"))


def test_a_fault_grows_in_the_layers_behind_it(written: tuple[WrittenGraph, Path]):
    found = report(written, FAULTS["a weight of our operator"][0])
    assert found.first is not None
    behind = found.rows[found.first.order + 1 :]
    assert max(row.total.share for row in behind) > 10 * BOUND
    assert max(row.own.share for row in behind) < BOUND


def test_another_shape_ends_the_comparison(written: tuple[WrittenGraph, Path]):
    found = report(written, node("nonzero", perm=[0, 1]))
    assert found.first is found.rows[-1]
    assert (found.first.op, found.first.own.note) == ("nonzero", "shape [80, 1] in PyTorch, [1, 80] in the engine")
    assert "another shape" in found.stopped


def test_positions_of_sorted_values_are_no_fault(written: tuple[WrittenGraph, Path]):
    """Equal values may be sorted in any order. An engine that swaps positions is not the first to differ."""

    class Swapping:
        def __init__(self, path: Path) -> None:
            self.session = start(path)

        def run(self, names: list[str], feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
            values = dict(zip(names, self.session.run(names, feeds), strict=True))
            if "places" in values:
                values["places"] = values["places"][::-1].copy()
            return list(values.values())

    graph, path = written
    found = compare_layers(graph.program, onnx.load(path), inputs(), Swapping, limit=1)
    assert found.first is None
    assert [row.own.note for row in found.rows if row.own.note] == ["equal values may be sorted in any order"]


@pytest.mark.parametrize("limit", [1, 3000])
def test_parts_of_any_size_give_the_same(written: tuple[WrittenGraph, Path], limit: int):
    """A part may be a single node: what later parts read is carried to them."""
    change = FAULTS["an attribute"][0]
    starts: list[Path] = []

    def counted(path: Path) -> onnxruntime.InferenceSession:
        starts.append(path)
        return start(path)

    graph, path = written
    model = onnx.load(path)
    change(model)
    parts = compare_layers(graph.program, model, inputs(), counted, limit=limit)
    whole = report(written, change)
    assert len(starts) > (20 if limit == 1 else 3)
    assert not any(path.exists() for path in starts)
    assert parts.first is not None
    assert parts.first.name == "softmax"
    assert [(r.name, r.differs) for r in parts.rows] == [(r.name, r.differs) for r in whole.rows]


def test_values_that_the_optimiser_removed_are_folded_or_listed(written: tuple[WrittenGraph, Path]):
    """Without the name of the offsets, the offsets are compared together with what reads them."""

    def rename(model: onnx.ModelProto) -> None:
        for each in model.graph.node:
            for names in (each.input, each.output):
                for i, name in enumerate(names):
                    if name == "conv2d_1":
                        names[i] = "hidden"

    found = report(written, rename)
    assert found.first is None
    row = next(row for row in found.rows if row.layer == "middle")
    assert (row.op, row.includes) == ("conv2d + deform_conv", ("middle.offset",))


CASES = [
    ([1.0, -4.0], np.float32([1, -4]), 0.0, 0.0, ""),
    ([1.0, -4.0], np.float32([1, -3]), 1.0, 0.25, ""),
    ([0.0, 0.0], np.float32([0, 1e-9]), 1e-9, 1.0, ""),
    ([float("nan"), float("inf")], np.float32([np.nan, np.inf]), 0.0, 0.0, ""),
    ([float("inf"), 1.0], np.float32([-np.inf, 1]), np.inf, np.inf, "1 of 2 values are finite on one side only"),
    ([float("nan"), 1.0], np.float32([2, 1]), np.inf, np.inf, "1 of 2 values are finite on one side only"),
    ([1.0, 2.0], np.float64([1, 2]), 0.0, 0.0, "float32 in PyTorch, float64 in the engine"),
    ([1.0], np.float32([1, 2]), np.inf, np.inf, "shape [1] in PyTorch, [2] in the engine"),
    ([], np.float32([]), 0.0, 0.0, ""),
    (2.0, np.float32(3), 1.0, 0.5, ""),
    ([5, 6, 7, 8], np.int64([5, 6, 7, 11]), 3.0, 0.25, ""),
    ([True, False], np.array([False, False]), 1.0, 0.5, ""),
]


@pytest.mark.parametrize(("reference", "engine", "error", "share", "note"), CASES)
def test_difference(reference: list[float], engine: np.ndarray, error: float, share: float, note: str):
    found = difference(torch.tensor(reference), engine)
    assert (found.error, found.share, found.note) == (pytest.approx(error), pytest.approx(share), note)


def test_the_page_needs_nothing_else_and_links_to_the_first_layer(written: tuple[WrittenGraph, Path]):
    found = report(written, FAULTS["another activation"][0])
    page = layers_page(found, title="a <b> & c")
    assert page.startswith(MARK)
    assert "<h1>a &lt;b&gt; &amp; c</h1>" in page
    assert page.index('href="#first"') < page.index('<tr id="first" class="differs"')
    assert page.count("<tr") == 1 + len(found.rows)
    assert page.count('class="differs"') == 1
    assert not any(word in page for word in ("http:", "https:", "src=", "@import", "url("))
    assert "6e-8" in page, "the bound is explained"
