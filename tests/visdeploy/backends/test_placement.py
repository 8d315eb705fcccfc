"""Nodes of a CUDA session on the CPU: shape arithmetic is intended, all other nodes are reported by a warning."""

import logging
from types import SimpleNamespace

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from visdeploy.backends.onnxruntime.installation import CPU, CUDA
from visdeploy.backends.onnxruntime.onnx_file import read_onnx
from visdeploy.backends.onnxruntime.placement import report_placement, shape_arithmetic
from visdeploy.errors import BundleError
from visdeploy_plugins.onnx_functions import add_function_bodies

# An image and a memory are scaled by half the image's height; a range of as many numbers is added up. `five` and the
# scalars are nodes, as exporters also write constants.
GRAPH = """
<ir_version: 10, opset_import: ["" : 20]>
halves (float[1, 3, height, width] image, int64[2] size, float[1, 3, 200] memory) => (float[c, r, w] out, int64[2] kept)
<int64[1] two = {2}, int64[1] zero = {0}, int64[1] one = {1}, int64[1] minus = {-1}, float half = {0.5}>
{
  five = Constant <value = int64[1] {5}> ()
  zero_scalar = Constant <value = int64 {0}> ()
  one_scalar = Constant <value = int64 {1}> ()
  shape = Shape (image)
  height_width = Slice (shape, two, five)
  kept = Min (height_width, size)
  rows = Gather (height_width, zero)
  half_rows = Div (rows, two)
  rows_scalar = Squeeze (half_rows)
  rows_real = Cast <to = 1> (half_rows)
  scale = Mul (rows_real, half)
  target = Concat <axis = 0> (one, half_rows, minus)
  grid = Range (zero_scalar, rows_scalar, one_scalar)
  grid_real = Cast <to = 1> (grid)
  grid_sum = ReduceSum <keepdims = 0> (grid_real)
  scaled = Mul (image, scale)
  remembered = Mul (memory, scale)
  total = ReduceSum <keepdims = 0> (remembered)
  pooled = Relu (scaled)
  both = Add (pooled, total)
  more = Add (both, grid_sum)
  out = Reshape (more, target)
}
"""
SIZES = {"height_width", "kept", "rows", "half_rows", "rows_real", "scale", "target", "rows_scalar", "shape"}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = tmp_path_factory.mktemp("placement") / "model.onnx"
    parsed = onnx.parser.parse_model(GRAPH)
    for each in parsed.graph.node:
        each.name = each.output[0]
    onnx.checker.check_model(parsed)
    onnx.save(parsed, path)
    return path


def node(name, op_type, domain=""):
    return SimpleNamespace(name=name, op_type=op_type, domain=domain)


def session(*on_cpu, on_cuda=()):
    """Return an object with the interface of a session that reports one part of the graph for each node."""
    parts = [(CPU, each) for each in on_cpu] + [(CUDA, each) for each in on_cuda]
    answer = [SimpleNamespace(ep_name=ep, get_nodes=lambda each=each: [each]) for ep, each in parts]
    return SimpleNamespace(get_provider_graph_assignment_info=lambda: answer)


def recorded(path, fallen):
    """Return ONNX Runtime's nodes of a file, assigned to the CPU if `fallen` selects them, otherwise to CUDA."""
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    real = onnxruntime.InferenceSession(str(path), options, providers=[CPU])
    nodes = [each for part in real.get_provider_graph_assignment_info() for each in part.get_nodes()]
    on_cpu = [each for each in nodes if fallen(each)]
    assert on_cpu
    return session(*on_cpu, on_cuda=[each for each in nodes if not fallen(each)])


def test_what_is_computed_from_sizes_alone(model):
    """A large tensor made of sizes, and products of an image or a memory with a size, are data."""
    assert shape_arithmetic(read_onnx(model)) == SIZES


def test_shape_arithmetic_is_no_warning(model, caplog):
    with caplog.at_level(logging.INFO):
        report_placement(recorded(model, lambda each: each.name in SIZES), model)
    (record,) = caplog.records
    assert (record.levelno, "nodes of shape arithmetic run on the CPU" in record.getMessage()) == (logging.INFO, True)


def test_other_nodes_are_named_with_their_number(model, caplog):
    report_placement(recorded(model, lambda each: True), model)
    (record,) = [r for r in caplog.records if r.levelno == logging.WARNING]
    text = record.getMessage()
    assert "run on the CPU instead of the GPU: " in text
    assert "2x Mul" in text
    assert "1x Range" in text
    assert "Concat" not in text


@pytest.mark.parametrize(
    ("fallen", "warned"),
    [
        (node("conv", "Conv"), True),
        (node("scaled", "Mul"), True),
        (node("scale", "Mul"), False),
        (node("", "Add"), True),
        (node("", "Shape"), False),
        (node("unknown", "Gather"), True),
        (node("Gather", "Gather"), False),
        (node("Gather_token_12", "Gather"), False),
        (node("node/MatMulAddFusion", "Gemm"), True),
        (node("attention", "MSDeformAttnFused", "visdeploy"), True),
        (node("Shape", "Shape", "visdeploy"), True),
    ],
    ids=lambda value: f"{value.name} {value.op_type}" if isinstance(value, SimpleNamespace) else str(value),
)
def test_one_node(model, caplog, fallen, warned):
    report_placement(session(fallen), model)
    assert [r.levelno for r in caplog.records if r.levelno >= logging.WARNING] == [logging.WARNING] * warned


def test_nothing_on_the_cpu_reads_no_file(tmp_path, caplog):
    report_placement(session(on_cuda=[node("conv", "Conv")]), tmp_path / "nothing.onnx")
    assert not caplog.records


def test_an_engine_that_cannot_tell(model, caplog):
    report_placement(SimpleNamespace(), model)
    assert "does not report which nodes run on the CPU" in caplog.text


def attention(calls):
    """Return a graph whose level sizes come from a shape in the first calls, and from the data in the last one."""
    levels, batch = 2, 1
    inputs = [("value", ["n", "s", 2, 4]), ("points", ["n", "q", levels, 2]), ("offsets", ["n", "q", 2, levels, 3, 2])]
    inputs += [("logits", ["n", "q", 2, levels, 3]), ("image", [batch, 3, "h", "w"])]
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in inputs]
    values.append(helper.make_tensor_value_info("given", TensorProto.INT64, [levels, 2]))
    nodes = [
        helper.make_node("Shape", ["image"], ["sizes"], "sizes", start=2),
        helper.make_node("Unsqueeze", ["sizes", "zero"], ["row"], "row"),
        helper.make_node("Concat", ["row", "row"], ["level_sizes"], "level_sizes", axis=0),
        helper.make_node("Add", ["given", "given"], ["twice"], "twice"),
    ]
    for number in range(calls):
        shapes = "level_sizes" if number + 1 < calls or calls == 1 else "twice"
        tensors = ["value", shapes, "starts", "points", "offsets", "logits"]
        nodes.append(helper.make_node("MSDeformAttnFused", tensors, [f"out{number}"], f"a{number}", domain="visdeploy"))
    outputs = [helper.make_tensor_value_info(f"out{i}", TensorProto.FLOAT, ["n", "q", 8]) for i in range(calls)]
    constants = {"starts": np.array([0, 15], np.int64), "zero": np.array([0], np.int64)}
    tensors = [onnx.numpy_helper.from_array(array, name) for name, array in constants.items()]
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("visdeploy", 1)]
    graph = helper.make_graph(nodes, "g", values, outputs, tensors)
    return add_function_bodies(helper.make_model(graph, opset_imports=opsets, ir_version=10))


def test_nodes_of_function_bodies(tmp_path, caplog):
    """ONNX Runtime inlines the bodies; what they compute with level sizes is told from what they do with values."""
    path = tmp_path / "model.onnx"
    onnx.save(attention(2), path)
    names = shape_arithmetic(read_onnx(path))
    inlined = {name for name in names if name.startswith("_inlfunc_MSDeformAttnFused_")}
    assert inlined
    report_placement(recorded(path, lambda each: "_inlfunc" in each.name and each.op_type in ("Shape", "Concat")), path)
    assert "Concat" not in caplog.text
    report_placement(recorded(path, lambda each: each.op_type in ("GridSample", "Shape")), path)
    assert "4 nodes run on the CPU instead of the GPU: 4x GridSample" in caplog.text


def test_a_body_counts_only_if_every_call_does(tmp_path):
    found = {}
    for calls in (1, 2):
        path = tmp_path / f"{calls}.onnx"
        onnx.save(attention(calls), path)
        found[calls] = {name for name in shape_arithmetic(read_onnx(path)) if name.startswith("_inlfunc")}
    assert found[2] <= found[1]


def test_subgraphs_are_followed(tmp_path):
    branch = helper.make_graph(
        [
            helper.make_node("Mul", ["size", "size"], ["square"], "square"),
            helper.make_node("Cast", ["square"], ["real"], "real", to=TensorProto.FLOAT),
            helper.make_node("Mul", ["image", "real"], ["result"], "product"),
        ],
        "branch",
        [],
        [helper.make_tensor_value_info("result", TensorProto.FLOAT, None)],
    )
    nodes = [
        helper.make_node("Size", ["image"], ["size"], "size"),
        helper.make_node("If", ["yes"], ["out"], "if", then_branch=branch, else_branch=branch),
    ]
    inputs = [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n"])]
    inputs.append(helper.make_tensor_value_info("yes", TensorProto.BOOL, []))
    outputs = [helper.make_tensor_value_info("out", TensorProto.FLOAT, None)]
    model = helper.make_model(helper.make_graph(nodes, "g", inputs, outputs), ir_version=10)
    onnx.save(model, tmp_path / "model.onnx")
    assert shape_arithmetic(read_onnx(tmp_path / "model.onnx")) == {"size", "square", "real"}


def test_the_file_is_read_as_onnx_reads_it(tmp_path):
    """Names, operators, edges and sizes, whatever way the dimensions and weights are stored."""
    model = attention(2)
    weights = helper.make_tensor("weights", TensorProto.FLOAT, [3, 50], np.ones(150), raw=False)
    model.graph.initializer.append(weights)
    onnx.save(model, tmp_path / "model.onnx")
    found = read_onnx(tmp_path / "model.onnx")
    for seen, expected in zip(found.graph.nodes, model.graph.node, strict=True):
        assert (seen.name, seen.op_type, seen.domain) == (expected.name, expected.op_type, expected.domain)
        assert (list(seen.inputs), list(seen.outputs)) == (list(expected.input), list(expected.output))
    assert found.graph.initializers == {"starts": 2, "zero": 1, "weights": 150}
    assert found.graph.inputs["given"] == 4
    assert found.graph.inputs["image"] is None
    (function,) = model.functions
    body = found.functions["visdeploy", "MSDeformAttnFused", ""]
    assert [each.name for each in body.nodes] == [each.name for each in function.node]
    assert list(body.inputs) == list(function.input)
    assert len({each.name for each in body.nodes}) == len(body.nodes)


@pytest.mark.parametrize("damage", [lambda b: b"", lambda b: b[:200], lambda b: b"\xff" * 40, lambda b: b"\x0b\x0c"])
def test_a_damaged_file_is_an_error(model, tmp_path, damage):
    path = tmp_path / "model.onnx"
    path.write_bytes(damage(model.read_bytes()))
    with pytest.raises(BundleError, match="cannot be read as ONNX"):
        read_onnx(path)
