"""The ONNX op: one file runs on the stock runtime and with our library, and says what is wrong with bad tensors."""

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper

from tests.visdeploy_plugins.support import INPUTS, MSDA, brute_force, error, golden, random_case
from visdeploy_plugins import OpError
from visdeploy_plugins.onnx_functions import (
    add_function_bodies,
    ms_deform_attn_function,
    register_schemas,
    translation_table,
)
from visdeploy_plugins.torch_ops import ms_deform_attn

FLOAT = TensorProto.FLOAT


def model_of(*levels, opset=20, dtype=FLOAT):
    """One attention node per entry of `levels`, each with its own symbols and inputs `value0`, ..."""
    nodes, inputs, outputs = [], [], []
    for i, count in enumerate(levels):
        batch, tokens, heads, channels, queries, points, width = (f"{symbol}{i}" for symbol in "NSMDQPW")
        shapes = [[batch, tokens, heads, channels], [count, 2], [count]]
        shapes += [[batch, queries, heads, count, points, 2], [batch, queries, heads, count, points]]
        names = [f"{name}{i}" for name in INPUTS]
        types = [dtype, TensorProto.INT64, TensorProto.INT64, dtype, dtype]
        inputs += [helper.make_tensor_value_info(*each) for each in zip(names, types, shapes, strict=True)]
        outputs.append(helper.make_tensor_value_info(f"output{i}", dtype, [batch, queries, width]))
        nodes.append(helper.make_node("MSDeformAttn", names, [f"output{i}"], name=f"attention{i}", domain="visdeploy"))
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid("visdeploy", 1)]
    return helper.make_model(helper.make_graph(nodes, "g", inputs, outputs), opset_imports=opsets, ir_version=10)


def run(model, *cases, library=None):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 4
    if library:
        options.register_custom_ops_library(library)
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, {f"{name}{i}": case[name] for i, case in enumerate(cases) for name in INPUTS})


@pytest.mark.parametrize("name", MSDA)
def test_golden_on_stock_runtime_and_with_library(shared, custom_ops, name):
    case = golden(shared, name)
    model = add_function_bodies(model_of(len(case["spatial_shapes"])))
    onnx.checker.check_model(model)
    (stock,), (ours,) = run(model, case), run(model, case, library=custom_ops)
    assert error(stock, case["output"]) <= 1e-5
    assert error(ours, case["output"]) <= 1e-5
    assert error(ours, stock) <= 1e-5


@pytest.mark.parametrize("opset", [16, 18, 20, 22])
def test_body_in_every_opset(custom_ops, opset):
    case = random_case(np.random.default_rng(21), [(3, 5), (2, 2)], channels=5)
    model = add_function_bodies(model_of(2, opset=opset))
    assert error(run(model, case)[0], run(model, case, library=custom_ops)[0]) <= 1e-5


@pytest.mark.parametrize(("dtype", "limit"), [("float16", 2e-3), ("float64", 1e-12)])
def test_other_dtypes_on_both(custom_ops, dtype, limit):
    case = random_case(np.random.default_rng(22), [(3, 5), (2, 2)], channels=5, dtype=dtype)
    model = add_function_bodies(model_of(2, dtype=helper.np_dtype_to_tensor_dtype(np.dtype(dtype))))
    stock, ours = run(model, case)[0], run(model, case, library=custom_ops)[0]
    assert ours.dtype == np.dtype(dtype)
    assert error(ours, stock) <= limit


def test_pyramids_of_different_height_in_one_model(custom_ops):
    rng = np.random.default_rng(23)
    cases = [random_case(rng, [(4, 3)] * levels, queries=levels) for levels in (3, 1, 3)]
    model = add_function_bodies(model_of(3, 1, 3))
    assert [each.overload for each in model.functions] == ["", "levels_1"]
    assert [node.overload for node in model.graph.node] == ["", "levels_1", ""]
    for stock, ours in zip(run(model, *cases), run(model, *cases, library=custom_ops), strict=True):
        assert error(ours, stock) <= 1e-5


def test_library_needs_no_body_and_stock_runtime_does(custom_ops):
    case = random_case(np.random.default_rng(24), [(3, 5)])
    bare = model_of(1)
    with_body = run(add_function_bodies(bare), case)[0]
    assert error(run(bare, case, library=custom_ops)[0], with_body) <= 1e-5
    with pytest.raises(Exception, match="not a registered function/op"):
        run(bare, case)


def test_bodies_are_added_once_and_the_model_left_alone():
    model = model_of(2)
    before = model.SerializeToString()
    once = add_function_bodies(model)
    assert model.SerializeToString() == before
    assert add_function_bodies(once).SerializeToString() == once.SerializeToString()


def test_nodes_within_subgraphs_are_found(custom_ops):
    flat = model_of(1)
    branch = helper.make_graph(list(flat.graph.node), "branch", [], [helper.make_empty_tensor_value_info("output0")])
    choice = helper.make_tensor_value_info("choice", TensorProto.BOOL, [])
    node = helper.make_node("If", ["choice"], ["result"], then_branch=branch, else_branch=branch)
    result = helper.make_tensor_value_info("result", FLOAT, None)
    graph = helper.make_graph([node], "g", [choice, *flat.graph.input], [result])
    model = helper.make_model(graph, opset_imports=flat.opset_import, ir_version=10)
    assert [each.name for each in add_function_bodies(model).functions] == ["MSDeformAttn"]


def test_model_without_our_nodes_is_unchanged():
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", *_one_in_one_out())
    model = helper.make_model(graph)
    assert add_function_bodies(model).SerializeToString() == model.SerializeToString()


def _one_in_one_out():
    return [[helper.make_tensor_value_info(name, FLOAT, [1])] for name in ("x", "y")]


def test_unknown_number_of_levels_is_named():
    model = model_of("L")
    with pytest.raises(OpError, match=r"node attention0 .*number of levels is not known .*spatial_shapes0"):
        add_function_bodies(model)


def test_unknown_op_is_named():
    model = model_of(1)
    model.graph.node[0].op_type = "Mystery"
    with pytest.raises(OpError, match=r"attention0 has no function body \(seen: visdeploy::Mystery"):
        add_function_bodies(model)


@pytest.mark.parametrize(("levels", "opset"), [(0, 20), (-1, 20), (2, 15)])
def test_impossible_bodies_are_refused(levels, opset):
    with pytest.raises(OpError, match="no function body"):
        ms_deform_attn_function(levels, opset=opset)


@pytest.mark.parametrize(
    ("name", "spoil", "message"),
    [
        ("level_start_index", lambda a: a + 1, r"level_start_index, level 0 \(seen: 1; expected: 0\)"),
        ("spatial_shapes", lambda a: a * 0, r"level 0 \(seen: \[0, 0\]"),
        ("attention_weights", lambda a: a[:, :1], r"attention_weights has the wrong shape \(seen: \[1, 1, 2, 2, 2\]"),
    ],
)
def test_kernel_names_bad_tensors(custom_ops, name, spoil, message):
    case = random_case(np.random.default_rng(25), [(3, 5), (2, 2)])
    case[name] = spoil(case[name])
    with pytest.raises(Exception, match=f"ms_deform_attn: tensor .*{message}"):
        run(model_of(2), case, library=custom_ops)


def test_output_shape_is_inferred(custom_ops):
    """A graph output without a shape gets one from the library's inference."""
    model = model_of(2)
    for axis, size in ((2, 8), (3, 32)):
        model.graph.input[0].type.tensor_type.shape.dim[axis].dim_value = size
    model.graph.output[0].type.tensor_type.ClearField("shape")
    options = onnxruntime.SessionOptions()
    options.register_custom_ops_library(custom_ops)
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    assert session.get_outputs()[0].shape == ["N0", "Q0", 256]


def test_two_sessions_and_threads_share_the_library(custom_ops):
    case = random_case(np.random.default_rng(26), [(20, 20), (9, 9)], channels=32, queries=900, points=4)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.register_custom_ops_library(custom_ops)
    model = model_of(2).SerializeToString()
    sessions = [onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"]) for _ in range(2)]
    feed = {f"{name}0": case[name] for name in INPUTS}
    alone = run(model_of(2), case, library=custom_ops)[0]
    assert all(np.array_equal(session.run(None, feed)[0], alone) for session in sessions)


class Attention(torch.nn.Module):
    """A projection, the op on constant pyramid shapes, a projection: as exported methods use it."""

    def __init__(self):
        super().__init__()
        self.register_buffer("shapes", torch.tensor([[4, 6], [2, 3]]))
        self.register_buffer("starts", torch.tensor([0, 24]))
        torch.manual_seed(0)
        self.project = torch.nn.Linear(8, 8)

    def forward(self, tokens, locations, weights):
        value = self.project(tokens).view(tokens.shape[0], tokens.shape[1], 2, 4)
        sampled = ms_deform_attn(value, self.shapes, self.starts, locations, weights.softmax(-1))
        return self.project(sampled)


def test_export_from_torch_runs_everywhere_at_other_sizes(custom_ops):
    module = Attention().eval()

    def inputs(batch, queries):
        generator = torch.Generator().manual_seed(queries)
        sizes = (batch, 30, 8), (batch, queries, 2, 2, 3, 2), (batch, queries, 2, 2, 3)
        return tuple(torch.rand(*size, generator=generator) for size in sizes)

    dynamic = ({0: "batch"}, {0: "batch", 1: "queries"}, {0: "batch", 1: "queries"})
    program = torch.onnx.export(
        module,
        inputs(2, 7),
        dynamo=True,
        opset_version=20,
        dynamic_shapes=dynamic,
        custom_translation_table=translation_table(),
        input_names=["tokens", "locations", "weights"],
        verbose=False,
    )
    model = add_function_bodies(program.model_proto)
    assert [node.op_type for node in model.graph.node].count("MSDeformAttn") == 1
    other = inputs(3, 11)
    expected = module(*other).detach().numpy()
    feed = dict(zip(("tokens", "locations", "weights"), (each.numpy() for each in other), strict=True))
    for library in (None, custom_ops):
        options = onnxruntime.SessionOptions()
        if library:
            options.register_custom_ops_library(library)
        session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        assert error(session.run(None, feed)[0], expected) <= 1e-5


def test_schemas_register_twice():
    register_schemas()
    register_schemas()
    assert onnx.defs.has("MSDeformAttn", "visdeploy")


@pytest.mark.parametrize("fixed", [False, True], ids=["symbolic", "fixed"])
def test_float_points_beside_half_values(custom_ops, emulated_custom_ops, fixed):
    case = random_case(np.random.default_rng(27), [(3, 5), (2, 2)], channels=5, dtype=np.float16)
    case |= {name: case[name].astype(np.float32) for name in INPUTS[3:]}
    model = model_of(2, dtype=TensorProto.FLOAT16)
    for info, name in zip(model.graph.input, INPUTS, strict=True):
        if name in INPUTS[3:]:
            info.type.tensor_type.elem_type = FLOAT
        if fixed:
            for dim, size in zip(info.type.tensor_type.shape.dim, case[name].shape, strict=True):
                dim.dim_value = size
    if fixed:
        model.graph.output[0].type.tensor_type.ClearField("shape")
    model = add_function_bodies(model)
    stock = run(model, case)[0]
    exact = brute_force(case)
    for output in (stock, *(run(model, case, library=each)[0] for each in (custom_ops, emulated_custom_ops))):
        assert output.dtype == np.float16
        assert (np.abs(output - exact) <= 0.51 * 2**-10 * np.abs(exact) + 1e-5).all()
