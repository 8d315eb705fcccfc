"""The ONNX op: one file runs on the stock runtime and with our library, and says what is wrong with bad tensors."""

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import helper, numpy_helper

from tests.visdeploy_plugins.deform_conv_support import DCN, SHAPES, random_case
from tests.visdeploy_plugins.support import error, golden, tolerances
from tests.visdeploy_plugins.test_deform_conv_torch import Layer
from visdeploy_plugins import OpError
from visdeploy_plugins.onnx_functions import add_function_bodies, deform_conv_function, translation_table

NAMES = {"X": "input", "W": "weight", "offset": "offset", "B": "bias", "mask": "mask"}


def feed_of(case):
    """Return the arrays by input name; the bias is always there."""
    feed = {name: case[key] for name, key in NAMES.items() if key in case}
    return {"B": np.zeros(len(case["weight"]), case["input"].dtype)} | feed


def attributes_of(case):
    padding = [int(each) for each in case["padding"]]
    return {
        "strides": [int(each) for each in case["stride"]],
        "pads": padding * (4 // len(padding)),
        "dilations": [int(each) for each in case["dilation"]],
        "group": int(case["groups"]),
        "offset_group": int(case["deform_groups"]),
    }


def model_of(case, *, opset=20, constant_weight=True, domain="visdeploy", **attributes):
    feed = feed_of(case)
    dtype = helper.np_dtype_to_tensor_dtype(feed["X"].dtype)
    names = [name for name in NAMES if name in feed]
    node = helper.make_node("DeformConv", names, ["Y"], name="convolution", domain=domain, **attributes)
    constants = ["W", "B"] if constant_weight else []
    inputs = [
        helper.make_tensor_value_info(name, dtype, [f"{name}{axis}" for axis in range(feed[name].ndim)])
        for name in names
        if name not in constants
    ]
    output = helper.make_tensor_value_info("Y", dtype, ["Y0", "Y1", "Y2", "Y3"])
    initializers = [numpy_helper.from_array(feed[name], name) for name in constants]
    graph = helper.make_graph([node], "g", inputs, [output], initializers)
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
    session, feed = session_of(model, library, threads), feed_of(case)
    return session.run(None, {each.name: feed[each.name] for each in session.get_inputs()})[0]


@pytest.mark.parametrize("name", DCN)
def test_golden_on_stock_runtime_and_with_library(shared, custom_ops, name):
    case = golden(shared, name)
    model = add_function_bodies(model_of(case, **attributes_of(case)))
    onnx.checker.check_model(model)
    ours = run(model, case, custom_ops)
    assert error(ours, case["output"]) <= tolerances(shared)["output"]
    if case["input"].size:  # the runtime's own kernel refuses an empty batch
        assert error(ours, run(model, case)) <= 1e-5


@pytest.mark.parametrize("constant_weight", [True, False])
@pytest.mark.parametrize("shape", SHAPES)
def test_every_shape_on_both(custom_ops, shape, constant_weight):
    case = random_case(np.random.default_rng(61), **SHAPES[shape])
    model = add_function_bodies(model_of(case, constant_weight=constant_weight, **attributes_of(case)))
    stock = run(model, case)
    for threads in (1, 3):
        assert error(run(model, case, custom_ops, threads), stock) <= 1e-5


def test_missing_attributes_have_the_standard_values(custom_ops):
    case = random_case(np.random.default_rng(62), padding=(0, 0, 0, 0))
    model = add_function_bodies(model_of(case))
    assert error(run(model, case, custom_ops), run(model, case)) <= 1e-5


@pytest.mark.parametrize("opset", [19, 20, 22])
def test_body_in_every_opset(custom_ops, opset):
    case = random_case(np.random.default_rng(63), mask=False)
    model = add_function_bodies(model_of(case, opset=opset, **attributes_of(case)))
    assert error(run(model, case, custom_ops), run(model, case)) <= 1e-5


def test_older_opsets_have_no_body():
    with pytest.raises(OpError, match=r"DeformConv: no function body \(seen: opset 18; expected: at least opset 19"):
        deform_conv_function(opset=18)


@pytest.mark.parametrize(("dtype", "limit"), [("float16", 2e-3), ("float64", 1e-12)])
def test_other_dtypes(custom_ops, dtype, limit):
    case = random_case(np.random.default_rng(64), channels=7, dtype=np.dtype(dtype))
    ours = run(model_of(case, **attributes_of(case)), case, custom_ops)
    wide = {name: each.astype(np.float64) if each.dtype.kind == "f" else each for name, each in case.items()}
    exact = run(model_of(wide, domain="", **attributes_of(case)), wide)
    assert ours.dtype == np.dtype(dtype)
    assert error(ours, exact) <= limit


def test_mask_may_be_an_empty_name(custom_ops):
    case = random_case(np.random.default_rng(65), mask=False)
    model = model_of(case, **attributes_of(case))
    model.graph.node[0].input.append("")
    model = add_function_bodies(model)
    assert error(run(model, case, custom_ops), run(model, case)) <= 1e-5


def test_output_shape_is_inferred(custom_ops):
    case = random_case(np.random.default_rng(66))
    model = model_of(case, **attributes_of(case))
    model.graph.output[0].type.tensor_type.ClearField("shape")
    session = session_of(model, custom_ops)
    assert session.get_outputs()[0].shape == ["X0", 4, "offset2", "offset3"]


@pytest.mark.parametrize(
    ("name", "spoil", "message"),
    [
        (
            "offset",
            lambda a: a[:, 1:],
            r"offset has the wrong shape \(seen: \[1, 17, 5, 6\]; expected: \[1, 18, 5, 6\]",
        ),
        ("mask", lambda a: a[..., 1:], r"mask has the wrong shape"),
        ("input", lambda a: a[:, 1:], r"weight has the wrong shape \(seen: \[4, 4, 3, 3\]; expected: \[4, 3, 3, 3\]"),
    ],
)
def test_kernel_names_bad_tensors(custom_ops, name, spoil, message):
    case = random_case(np.random.default_rng(67))
    model = model_of(case, **attributes_of(case))
    case[name] = np.ascontiguousarray(spoil(case[name]))
    with pytest.raises(Exception, match=f"deform_conv: tensor .*{message}"):
        run(model, case, custom_ops)


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ({"group": 3}, r"parameter groups \(seen: 3"),
        ({"group": -1}, r"parameter groups \(seen: -1"),
        ({"strides": [0, 1]}, r"parameter stride \(seen: \[0, 1\]"),
        ({"pads": [1, 1, -1, 1]}, r"parameter padding \(seen: \[1, 1, -1, 1\]"),
        ({"pads": [1, 1]}, r"attribute pads \(seen: 2 numbers; expected: 4\)"),
        ({"offset_group": 0}, r"parameter offset_groups \(seen: 0"),
    ],
)
def test_kernel_names_bad_attributes(custom_ops, attributes, message):
    case = random_case(np.random.default_rng(68))
    model = model_of(case, **attributes_of(case) | attributes)
    with pytest.raises(Exception, match=f"deform_conv: {message}"):
        run(model, case, custom_ops)


@pytest.mark.parametrize("bias", [True, False])
def test_export_from_torch_runs_everywhere_at_other_sizes(custom_ops, bias):
    layer = Layer(bias=bias).eval()
    program = torch.onnx.export(
        layer,
        (torch.randn(2, 6, 8, 9),),
        dynamo=True,
        opset_version=20,
        dynamic_shapes=({0: "batch", 2: "height", 3: "width"},),
        custom_translation_table=translation_table(),
        input_names=["image"],
        verbose=False,
    )
    model = add_function_bodies(program.model_proto)
    (node,) = [each for each in model.graph.node if each.op_type == "DeformConv"]
    assert node.domain == "visdeploy"
    assert len(node.input) == 5
    assert all(node.input)
    image = torch.randn(3, 6, 5, 12)
    expected = layer(image).detach().numpy()
    for library in (None, custom_ops):
        output = session_of(model, library).run(None, {"image": image.numpy()})[0]
        assert error(output, expected) <= 1e-5
