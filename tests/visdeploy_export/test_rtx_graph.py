"""Operators that replace those which TensorRT for RTX cannot build."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from tests.visdeploy_plugins.tensorrt_child import run
from visdeploy.errors import ExportError
from visdeploy_export.rtx_graph import DOMAIN, for_rtx
from visdeploy_plugins import native

UNLIMITED = 2**63 - 1


def detections(*, limit: int = UNLIMITED, inputs: int = 4, centred: int = 0) -> onnx.ModelProto:
    """Select boxes by score, then by suppression, as detectors do."""
    constants = [
        helper.make_tensor("least", TensorProto.FLOAT, [], [0.3]),
        helper.make_tensor("threshold", TensorProto.FLOAT, [], [0.5]),
        helper.make_tensor("limit", TensorProto.INT64, [], [limit]),
        helper.make_tensor("first", TensorProto.INT64, [1], [0]),
        helper.make_tensor("both", TensorProto.INT64, [2], [0, 1]),
        helper.make_tensor("column", TensorProto.INT64, [], [2]),
    ]
    names = ["batch_boxes", "batch_scores", "limit", "threshold", "least"][:inputs]
    nodes = [
        helper.make_node("Greater", ["scores", "least"], ["high"]),
        helper.make_node("NonZero", ["high"], ["found"]),
        helper.make_node("Squeeze", ["found", "first"], ["rows"]),
        helper.make_node("Gather", ["boxes", "rows"], ["kept_boxes"], axis=0),
        helper.make_node("Gather", ["scores", "rows"], ["kept_scores"], axis=0),
        helper.make_node("Unsqueeze", ["kept_boxes", "first"], ["batch_boxes"]),
        helper.make_node("Unsqueeze", ["kept_scores", "both"], ["batch_scores"]),
        helper.make_node("NonMaxSuppression", names, ["selected"], name="nms", center_point_box=centred),
        helper.make_node("Gather", ["selected", "column"], ["result"], axis=1),
    ]
    graph = helper.make_graph(
        nodes,
        "detections",
        [
            helper.make_tensor_value_info("boxes", TensorProto.FLOAT, ["n", 4]),
            helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["n"]),
        ],
        [
            helper.make_tensor_value_info("rows", TensorProto.INT64, ["k"]),
            helper.make_tensor_value_info("result", TensorProto.INT64, ["m"]),
        ],
        constants,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def session(model: onnx.ModelProto) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


@pytest.fixture(scope="module")
def sessions() -> tuple[onnxruntime.InferenceSession, onnxruntime.InferenceSession]:
    model = detections()
    replaced = for_rtx(model)
    onnx.checker.check_model(replaced, full_check=True)
    left = {node.op_type for node in replaced.graph.node} | {node.domain for node in replaced.graph.node}
    assert not left & {"NonZero", "NonMaxSuppression", DOMAIN}
    assert [node.op_type for node in model.graph.node].count("NonZero") == 1, "the given model is not changed"
    return session(model), session(replaced)


@settings(max_examples=60)
@given(number=st.integers(0, 90), seed=st.integers(0, 2**32 - 1), spread=st.sampled_from([10.0, 60.0, 400.0]))
def test_the_same_rows_are_selected(sessions, number: int, seed: int, spread: float):
    """Sparse boxes, and crowds in which a box is kept because the box that overlaps it was suppressed."""
    random = np.random.default_rng(seed)
    corner, size = random.uniform(0, spread, (number, 2)), random.uniform(0, 60, (number, 2))
    size[random.random(number) < 0.05] = 0
    feed = {
        "boxes": np.concatenate([corner, corner + size], axis=1).astype(np.float32),
        "scores": random.permutation(np.linspace(0, 1, number)).astype(np.float32),
    }
    expected, found = (each.run(None, feed) for each in sessions)
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("wrong", [{"limit": 100}, {"inputs": 3}, {"inputs": 5}, {"centred": 1}])
def test_other_forms_are_refused(wrong: dict[str, int]):
    with pytest.raises(ExportError, match="node nms, NonMaxSuppression, cannot be rewritten"):
        for_rtx(detections(**wrong))


@pytest.mark.parametrize("shape", [["n", 4], None], ids=["two dimensions", "unknown"])
def test_positions_of_other_tensors_are_refused(shape: list[int | str] | None):
    given = helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)
    found = helper.make_tensor_value_info("y", TensorProto.INT64, None)
    graph = helper.make_graph([helper.make_node("NonZero", ["x"], ["y"], name="places")], "g", [given], [found])
    with pytest.raises(ExportError, match="node places, NonZero, cannot be rewritten"):
        for_rtx(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10))


def test_a_model_of_another_package_is_refused_for_its_opset(shared: Path):
    with pytest.raises(ExportError, match=r"a model cannot be rewritten for TensorRT for RTX \(seen: opset \d+;"):
        for_rtx(onnx.load(str(shared / "data/models/fastestdet_coco_352.onnx")))


def test_later_opsets_keep_their_version():
    model = detections()
    model.opset_import[0].version = 21
    replaced = for_rtx(model)
    onnx.checker.check_model(replaced, full_check=True)
    assert [each.version for each in replaced.opset_import if not each.domain] == [21]


@pytest.mark.skipif(native.library_path("libvisdeploy_tensorrt.so") is None, reason="needs TensorRT's plugins")
def test_an_engine_is_built_from_the_replaced_graph_alone(tmp_path: Path):
    pytest.importorskip("tensorrt_rtx")
    found = []
    for name, model in (("given", detections()), ("replaced", for_rtx(detections()))):
        onnx.save(model, str(tmp_path / f"{name}.onnx"))
        profile = {"boxes": [[1, 4], [500, 4]], "scores": [[1], [500]]}
        found.append(run("build", model=str(tmp_path / f"{name}.onnx"), profile=profile))
    assert not found[0]["parsed"], "this version can build the standard operators: the replacement is not needed"
    assert found[1]["plan"] > 0, found[1]["parser_errors"]
