"""The ONNX op: one file runs on the stock runtime and with our library, and says what is wrong with bad tensors."""

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import helper, numpy_helper

from tests.visdeploy_plugins.masked_conv_support import GOLDENS, INPUTS, SHAPES, forward, random_case
from tests.visdeploy_plugins.support import error, golden
from visdeploy_plugins import OpError
from visdeploy_plugins.onnx_functions import (
    add_function_bodies,
    masked_conv_function,
    register_schemas,
    translation_table,
)
from visdeploy_plugins.torch_ops import masked_conv


def model_of(case, *, opset=20, constant=False, output=("n", "o", "h", "w"), **changed):
    """Return a model of one node with the attributes of the case (without those that are None)."""
    pads = [int(each) for each in case["padding"]] * 2
    attributes = {"strides": case["stride"].tolist(), "pads": pads, "dilations": case["dilation"].tolist()}
    attributes |= {"group": int(case["groups"][0])} | changed
    attributes = {name: value for name, value in attributes.items() if value is not None}
    names = [name for name in INPUTS if not (constant and name in ("weight", "bias"))]
    inputs = []
    for name in names:
        kind = helper.np_dtype_to_tensor_dtype(case[name].dtype)
        inputs.append(helper.make_tensor_value_info(name, kind, [f"{name}{axis}" for axis in range(case[name].ndim)]))
    result = helper.make_tensor_value_info("y", helper.np_dtype_to_tensor_dtype(case["x"].dtype), output)
    node = helper.make_node("MaskedConv", INPUTS, ["y"], name="conv", domain="visdeploy", **attributes)
    constants = [numpy_helper.from_array(case[name], name) for name in INPUTS if name not in names]
    graph = helper.make_graph([node], "g", inputs, [result], constants)
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid("visdeploy", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)


def session_of(model, library=None, threads=1):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = threads, 4
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if library:
        options.register_custom_ops_library(library)
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def run(model, case, library=None, threads=1):
    session = session_of(model, library, threads)
    (output,) = session.run(None, {each.name: case[each.name] for each in session.get_inputs()})
    return output


def with_bias(case):
    return {"bias": np.zeros(len(case["weight"]), case["weight"].dtype)} | case


@pytest.mark.parametrize("constant", [False, True], ids=["inputs", "constants"])
@pytest.mark.parametrize("name", GOLDENS)
def test_golden_on_stock_runtime_and_with_library(shared, custom_ops, name, constant):
    case = with_bias(golden(shared, name))
    model = add_function_bodies(model_of(case, constant=constant))
    onnx.checker.check_model(model)
    stock, ours = run(model, case), run(model, case, custom_ops)
    assert np.abs(stock - case["y"]).max() <= 1e-5
    assert np.abs(ours - case["y"]).max() <= 1e-5
    assert error(ours, stock) <= 1e-5
    assert not ours[np.broadcast_to(~(case["mask"] > 0)[:, None], ours.shape)].any()


@pytest.mark.parametrize("shape", [name for name in SHAPES if name not in ("no bias", "empty batch")])
def test_body_equals_kernel(custom_ops, shape):
    case = random_case(np.random.default_rng(21), **SHAPES[shape])
    model = add_function_bodies(model_of(case))
    assert error(run(model, case, custom_ops), run(model, case)) <= 1e-5


def test_empty_batch(custom_ops):
    case = random_case(np.random.default_rng(22), batch=0)
    assert run(model_of(case), case, custom_ops).shape == (0, 4, 5, 6)


@pytest.mark.parametrize("opset", [16, 18, 19, 20, 22])
def test_body_in_every_opset(custom_ops, opset):
    case = random_case(np.random.default_rng(23), channels=5)
    model = add_function_bodies(model_of(case, opset=opset))
    assert error(run(model, case), run(model, case, custom_ops)) <= 1e-5


@pytest.mark.parametrize("mask", ["bool", "float32", "float64"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_each_type_of_mask(custom_ops, dtype, mask):
    case = random_case(np.random.default_rng(24), channels=5, dtype=np.dtype(dtype))
    case["mask"] = case["mask"] > 0 if mask == "bool" else case["mask"].astype(mask)
    model = add_function_bodies(model_of(case))
    if mask == "float64" and dtype == "float32":
        with pytest.raises(Exception, match="no kernel def matches node inputs for Op: MaskedConv"):
            run(model, case, custom_ops)
        return
    ours = run(model, case, custom_ops)
    assert np.array_equal(ours, forward(case))
    if dtype == "float32":  # stock ONNX Runtime has no Conv in float64
        assert error(run(model, case), ours) <= 1e-5


@pytest.mark.parametrize("mask", ["bool", "float32", "float16"])
def test_float16(custom_ops, mask):
    case = random_case(np.random.default_rng(25), channels=9, dtype=np.float16)
    case["mask"] = case["mask"] > 0 if mask == "bool" else case["mask"].astype(mask)
    model = add_function_bodies(model_of(case))
    ours = run(model, case, custom_ops)
    assert ours.dtype == np.float16
    assert np.array_equal(ours, forward(case))
    assert error(run(model, case), ours) <= 2e-3


def test_defaults_of_attributes(custom_ops):
    case = random_case(np.random.default_rng(26), padding=(0, 0))
    given, bare = model_of(case), model_of(case, strides=None, pads=None, dilations=None, group=None)
    expected = run(given, case, custom_ops)
    assert np.array_equal(run(bare, case, custom_ops), expected)
    assert error(run(add_function_bodies(bare), case), expected) <= 1e-5


def test_nan_stays_out_of_inactive_places_on_both(custom_ops):
    case = random_case(np.random.default_rng(27), size=(6, 8))
    case["mask"][:] = [np.nan, 0.0, -0.0, -np.inf, -1.0, -1e-45, np.nan, 0.0]
    case["mask"][:, 1, :2] = np.inf, 1e-45
    case["x"][:, :, 3:] = np.nan
    model = add_function_bodies(model_of(case))
    stock, ours = run(model, case), run(model, case, custom_ops)
    assert np.isfinite(ours).all()
    assert error(stock, ours) <= 1e-5
    assert (ours != 0).all(1).sum() == 2


def test_one_body_serves_all_nodes():
    case = random_case(np.random.default_rng(28))
    model = model_of(case)
    model.graph.node.append(
        helper.make_node("MaskedConv", INPUTS, ["z"], domain="visdeploy", strides=[2, 2], pads=[1, 1, 1, 1])
    )
    assert [each.name for each in add_function_bodies(model).functions] == ["MaskedConv"]


def test_old_opset_is_refused():
    with pytest.raises(OpError, match=r"no function body \(seen: opset 15; expected: opset 16 or later"):
        masked_conv_function(opset=15)


BAD_ATTRIBUTES = {
    "pads differ": ({"pads": [1, 1, 0, 1]}, r"attribute pads \(seen: \[1, 1, 0, 1\]; expected: the same at"),
    "two pads": ({"pads": [1, 1]}, r"attribute pads \(seen: \[1, 1\]; expected: 4 numbers"),
    "three strides": ({"strides": [1, 1, 1]}, r"attribute strides \(seen: \[1, 1, 1\]; expected: 2 numbers"),
    "negative stride": ({"strides": [1, -1]}, r"parameter stride \(seen: \[1, -1\]"),
    "groups": ({"group": 3}, r"parameter groups \(seen: 3; expected: a divisor of the 4 input"),
    "no groups": ({"group": 0}, r"parameter groups \(seen: 0"),
}


@pytest.mark.parametrize("constant", [False, True], ids=["inputs", "constants"])
@pytest.mark.parametrize("bad", BAD_ATTRIBUTES)
def test_bad_attributes_are_named(custom_ops, bad, constant):
    changed, message = BAD_ATTRIBUTES[bad]
    case = random_case(np.random.default_rng(29))
    with pytest.raises(Exception, match=f"masked_conv: {message}"):
        run(model_of(case, constant=constant, **changed), case, custom_ops)


def test_bad_tensors_are_named(custom_ops):
    case = random_case(np.random.default_rng(30))
    case["mask"] = case["mask"][:, 1:]
    with pytest.raises(
        Exception, match=r"masked_conv: tensor mask has the wrong shape \(seen: \[1, 4, 6\]; expected: "
    ):
        run(model_of(case), case, custom_ops)


def test_output_shape_is_inferred(custom_ops):
    case = random_case(np.random.default_rng(31))
    session = session_of(model_of(case, constant=True, output=None), custom_ops)
    assert session.get_outputs()[0].shape == ["x0", 4, "mask1", "mask2"]


def test_threads_and_sessions_share_the_library(custom_ops):
    case = random_case(np.random.default_rng(32), channels=64, outputs=64, size=(40, 41))
    model = model_of(case, constant=True)
    alone = run(model, case, custom_ops)
    assert all(np.array_equal(run(model, case, custom_ops, threads=3), alone) for _ in range(2))


class Gated(torch.nn.Module):
    """The op with and without bias, as exported methods use it: the mask comes from the network."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.gate = torch.nn.Conv2d(6, 1, 3, padding=1)
        self.first = torch.nn.Conv2d(6, 8, 3, padding=1)
        self.second = torch.nn.Conv2d(8, 4, 3, padding=2, stride=2, dilation=2, groups=2, bias=False)

    def forward(self, x):
        gate = self.gate(x)[:, 0]
        h = masked_conv(x, gate, self.first.weight, self.first.bias, padding=[1, 1])
        coarse = gate[:, ::2, ::2].contiguous() > 0
        return masked_conv(h, coarse, self.second.weight, stride=[2, 2], padding=[2, 2], dilation=[2, 2], groups=2)


def test_export_from_torch_runs_everywhere_at_other_sizes(custom_ops):
    module = Gated().eval()
    generator = torch.Generator().manual_seed(1)
    program = torch.onnx.export(
        module,
        (torch.randn(2, 6, 9, 11, generator=generator),),
        dynamo=True,
        opset_version=20,
        dynamic_shapes=({0: "batch", 2: "height", 3: "width"},),
        custom_translation_table=translation_table(),
        input_names=["x"],
        verbose=False,
    )
    model = add_function_bodies(program.model_proto)
    nodes = [node for node in model.graph.node if node.op_type == "MaskedConv"]
    assert [len(node.input) for node in nodes] == [4, 4]
    constants = {each.name: numpy_helper.to_array(each) for each in model.graph.initializer}
    assert constants[nodes[1].input[3]].tolist() == [0.0] * 4
    other = torch.randn(3, 6, 7, 14, generator=generator)
    expected = module(other).detach().numpy()
    for library in (None, custom_ops):
        (seen,) = session_of(model, library).run(None, {"x": other.numpy()})
        assert error(seen, expected) <= 1e-5


def test_schema_is_registered_twice():
    register_schemas()
    register_schemas()
    assert onnx.defs.has("MaskedConv", "visdeploy")
