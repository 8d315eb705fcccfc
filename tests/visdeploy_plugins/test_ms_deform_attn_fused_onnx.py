"""`visdeploy::MSDeformAttnFused`: one file runs on the stock runtime and with our library."""

import numpy as np
import onnx
import onnx.compose
import onnxruntime
import pytest
import torch
from onnx import helper

from tests.visdeploy_plugins.ms_deform_attn_fused_support import FUSED_INPUTS, fused_case, unfused
from tests.visdeploy_plugins.support import error, forward
from visdeploy_plugins import OpError
from visdeploy_plugins.onnx_functions import add_function_bodies, ms_deform_attn_fused_function, translation_table
from visdeploy_plugins.torch_ops import ms_deform_attn_fused

LEVELS = [(6, 5), (3, 3), (1, 2)]


def model_of(case, *, opset=20, symbolic=True):
    """Return a model of one node with the types of a case, and symbols where the operator allows them."""
    levels, size = case["reference_points"].shape[2:]
    shapes = [["N", "S", "M", "D"], [levels, 2], [levels], ["N", "Q", levels, size]]
    shapes += [["N", "Q", "M", levels, "P", 2], ["N", "Q", "M", levels, "P"]]
    if not symbolic:
        shapes = [case[name].shape for name in FUSED_INPUTS]
    types = [helper.np_dtype_to_tensor_dtype(case[name].dtype) for name in FUSED_INPUTS]
    inputs = [helper.make_tensor_value_info(*each) for each in zip(FUSED_INPUTS, types, shapes, strict=True)]
    output = helper.make_tensor_value_info("output", types[0], ["N", "Q", "W"] if symbolic else None)
    node = helper.make_node("MSDeformAttnFused", FUSED_INPUTS, ["output"], name="attention", domain="visdeploy")
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid("visdeploy", 1)]
    return helper.make_model(helper.make_graph([node], "g", inputs, [output]), opset_imports=opsets, ir_version=10)


def run(model, feed, *, library=None):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 4
    if library:
        options.register_custom_ops_library(library)
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, feed)


def run_case(model, case, **options):
    return run(model, {name: case[name] for name in FUSED_INPUTS}, **options)[0]


@pytest.mark.parametrize("reference_size", [2, 4])
@pytest.mark.parametrize("opset", [16, 18, 20, 22])
def test_body_and_kernels_agree(custom_ops, emulated_custom_ops, opset, reference_size):
    case = fused_case(np.random.default_rng(61), LEVELS, channels=5, batch=2, reference_size=reference_size)
    model = add_function_bodies(model_of(case, opset=opset))
    onnx.checker.check_model(model)
    exact = forward(unfused(case))
    for library in (None, custom_ops, emulated_custom_ops):
        assert error(run_case(model, case, library=library), exact) <= 1e-5


@pytest.mark.parametrize("sizes", [{"queries": 0}, {"queries": 900}, {"batch": 3, "points": 1}], ids=str)
def test_sizes(custom_ops, sizes):
    case = fused_case(np.random.default_rng(62), LEVELS, channels=8, **sizes)
    model = add_function_bodies(model_of(case))
    assert error(run_case(model, case), run_case(model, case, library=custom_ops)) <= 1e-5


MIXED = {
    "double": (np.float64, (), 1e-12),
    "half": (np.float16, (), 0.05),  # the body computes in half precision, the kernel does not
    "float references": (np.float16, ("reference_points",), 2e-3),
    "float points": (np.float16, FUSED_INPUTS[3:], 2e-3),
}


@pytest.mark.parametrize("symbolic", [True, False], ids=["symbolic", "fixed"])
@pytest.mark.parametrize("types", MIXED)
def test_dtypes(custom_ops, emulated_custom_ops, types, symbolic):
    dtype, wide, limit = MIXED[types]
    case = fused_case(np.random.default_rng(63), LEVELS, channels=5, dtype=dtype)
    case |= {name: case[name].astype(np.float32) for name in wide}
    model = add_function_bodies(model_of(case, symbolic=symbolic))
    exact = forward(unfused(case))
    for library in (custom_ops, emulated_custom_ops):
        output = run_case(model, case, library=library)
        assert output.dtype == dtype
        assert error(output, exact) <= min(limit, 2e-3)
    assert error(run_case(model, case), exact) <= limit


def test_points_and_boxes_in_one_model():
    cases = [fused_case(np.random.default_rng(64), LEVELS, reference_size=size) for size in (2, 4)]
    model, boxes = model_of(cases[0]), onnx.compose.add_prefix(model_of(cases[1]), "boxes_").graph
    model.graph.node.extend(boxes.node)
    model.graph.input.extend(boxes.input)
    model.graph.output.extend(boxes.output)
    model = add_function_bodies(model)
    assert [each.overload for each in model.functions] == ["", "levels_3_references_4"]
    feed = {name: cases[0][name] for name in FUSED_INPUTS}
    feed |= {f"boxes_{name}": cases[1][name] for name in FUSED_INPUTS}
    for output, case in zip(run(model, feed), cases, strict=True):
        assert error(output, forward(unfused(case))) <= 1e-5


def test_unknown_reference_size_is_named():
    model = model_of(fused_case(np.random.default_rng(65), LEVELS))
    model.graph.input[3].type.tensor_type.shape.dim[3].dim_param = "K"
    with pytest.raises(OpError, match=r"node attention .*points or boxes is not known .*reference_points of shape"):
        add_function_bodies(model)


@pytest.mark.parametrize(("levels", "size", "opset"), [(0, 2, 20), (2, 3, 20), (2, 2, 15)])
def test_impossible_bodies_are_refused(levels, size, opset):
    with pytest.raises(OpError, match="no function body"):
        ms_deform_attn_fused_function(levels, reference_size=size, opset=opset)


def test_kernel_names_bad_tensors(custom_ops):
    case = fused_case(np.random.default_rng(66), LEVELS)
    case["attention_logits"] = case["attention_logits"][:, :1]
    model = model_of(case)
    model.graph.input[5].type.tensor_type.shape.dim[1].dim_param = "K"
    with pytest.raises(Exception, match=r"ms_deform_attn_fused: tensor attention_logits has the wrong shape \(seen: "):
        run_case(model, case, library=custom_ops)


class Attention(torch.nn.Module):
    """The whole module: three projections, the op on constant pyramid shapes, a projection."""

    def __init__(self):
        super().__init__()
        self.register_buffer("shapes", torch.tensor([[4, 6], [2, 3]]))
        self.register_buffer("starts", torch.tensor([0, 24]))
        torch.manual_seed(0)
        self.value, self.output = torch.nn.Linear(8, 8), torch.nn.Linear(8, 8)
        self.offsets, self.logits = torch.nn.Linear(8, 24), torch.nn.Linear(8, 12)

    def forward(self, tokens, queries, references):
        batch, count, _ = queries.shape
        value = self.value(tokens).view(batch, tokens.shape[1], 2, 4)
        offsets = self.offsets(queries).view(batch, count, 2, 2, 3, 2)
        logits = self.logits(queries).view(batch, count, 2, 2, 3)
        return self.output(ms_deform_attn_fused(value, self.shapes, self.starts, references, offsets, logits))


def test_export_from_torch_runs_everywhere_at_other_sizes(custom_ops):
    module = Attention().eval()

    def inputs(batch, queries):
        generator = torch.Generator().manual_seed(queries)
        sizes = (batch, 30, 8), (batch, queries, 8), (batch, queries, 2, 2)
        return tuple(torch.rand(*size, generator=generator) for size in sizes)

    program = torch.onnx.export(
        module,
        inputs(2, 7),
        dynamo=True,
        opset_version=20,
        dynamic_shapes=({0: "batch"}, {0: "batch", 1: "queries"}, {0: "batch", 1: "queries"}),
        custom_translation_table=translation_table(),
        input_names=["tokens", "queries", "references"],
        verbose=False,
    )
    model = add_function_bodies(program.model_proto)
    assert [node.op_type for node in model.graph.node].count("MSDeformAttnFused") == 1
    other = inputs(3, 11)
    feed = dict(zip(("tokens", "queries", "references"), (each.numpy() for each in other), strict=True))
    for library in (None, custom_ops):
        assert error(run(model, feed, library=library)[0], module(*other).detach().numpy()) <= 1e-5
