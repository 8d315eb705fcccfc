"""TensorRT for RTX parses our ONNX files and builds engines with our plugins, on a machine without a GPU."""

import onnx
import pytest
from onnx import TensorProto, helper

from tests.visdeploy_plugins.tensorrt_child import run
from tests.visdeploy_plugins.tensorrt_models import DTYPES, SPECS

TENSORRT_TYPES = {"float32": "FLOAT", "float16": "HALF", "bfloat16": "BF16"}


def build(tmp_path, model, profile, **options):
    path = tmp_path / "model.onnx"
    onnx.save(model, path)
    return run("build", model=str(path), profile=profile, **options)


def errors(found):
    return [line for line in found["log"] if line.startswith("ERROR")]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", SPECS)
def test_dynamic_engine_is_built_with_the_plugin(tensorrt_plugins, tmp_path, name, dtype):
    spec = SPECS[name]
    found = build(tmp_path, spec.model(dtype), spec.profile())
    assert found["parsed"], found["parser_errors"]
    assert found["layers"] == ["PLUGIN_V3"]
    assert found["outputs"] == {"output": [spec.output, TENSORRT_TYPES[dtype]]}
    assert any(line.endswith(f"Successfully created plugin: {spec.op_type}") for line in found["log"])
    assert any("metadata: [ONNX Layer: the_node]" in line for line in found["log"])
    assert found["plan"] > 0
    assert found["serialised"]
    assert errors(found) == []


def test_without_the_override_the_body_is_expanded(tensorrt_plugins, tmp_path):
    spec = SPECS["masked_conv"]
    found = build(tmp_path, spec.model("float32"), spec.profile(), override=False)
    assert found["parsed"], found["parser_errors"]
    assert "PLUGIN_V3" not in found["layers"]
    assert "CONVOLUTION" in found["layers"]


@pytest.mark.parametrize("name", ["deform_conv", "masked_conv"])
def test_shape_of_known_sizes(tensorrt_plugins, tmp_path, name):
    spec = SPECS[name]
    model = spec.model("float32")
    for value in model.graph.input:
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param:
                dim.dim_value = spec.sizes[dim.dim_param][1]
    found = build(tmp_path, model, {})
    # (17 + 2 - 3) / 2 + 1 and (12 + 4 - 5) / 1 + 1
    assert found["outputs"] == {"output": [[2, 6, 9, 12], "FLOAT"]}
    assert found["plan"] > 0


def test_plugin_between_other_layers(tensorrt_plugins, tmp_path):
    spec = SPECS["ms_deform_attn"]
    model = spec.model("float16")
    node, output = model.graph.node[0], model.graph.output[0]
    node.output[0] = "attended"
    shape = onnx.helper.make_tensor("weight", TensorProto.FLOAT16, [32, 16], bytes(32 * 16 * 2), raw=True)
    model.graph.initializer.append(shape)
    model.graph.node.append(helper.make_node("MatMul", ["attended", "weight"], ["projected"]))
    model.graph.node.append(helper.make_node("Relu", ["projected"], [output.name]))
    found = build(tmp_path, model, spec.profile())
    assert found["layers"].count("PLUGIN_V3") == 1
    assert len(found["layers"]) > 2
    assert found["outputs"]["output"] == [[-1, -1, 16], "HALF"]
    assert found["plan"] > 0
    assert errors(found) == []


BAD_NODES = [
    ("deform_conv", {"strides": [0, 1]}, "attribute strides is out of range (seen: [0, 1]; expected: from 1 to "),
    ("deform_conv", {"pads": [1, 1]}, "attribute pads has the wrong length (seen: 2; expected: 4 value(s))"),
    ("deform_conv", {"group": [1, 2]}, "attribute group has the wrong length (seen: 2; expected: 1 value(s))"),
    (
        "deform_conv",
        {"dilations": [1.5, 1.0]},
        "attribute dilations has the wrong type (seen: float32; ",
    ),
    ("masked_conv", {"pads": [0, 1, 1, 1]}, "attribute pads (seen: [0, 1, 1, 1]; expected: the same at the beginning"),
    ("multi_level_roi_align", {"spatial_scales": [0.25]}, "number of features (seen: 2; expected: 1, one per scale"),
    ("multi_level_roi_align", {"output_height": 0}, "attribute output_height is out of range (seen: [0]; expected: "),
    ("multi_level_roi_align", {"finest_scale": float("nan")}, "attribute finest_scale is out of range (seen: [nan]; "),
    ("multi_level_roi_align", {"spatial_scales": [0.1] * 9}, "attribute spatial_scales (seen: 9 scales; expected: at "),
]


@pytest.mark.parametrize(("name", "changes", "message"), BAD_NODES)
def test_bad_node_is_refused_with_a_message(tensorrt_plugins, tmp_path, name, changes, message):
    spec = SPECS[name]
    model = spec.model("float32", **changes)
    found = build(tmp_path, model, spec.profile())
    assert found["plan"] == 0
    assert any(f"ERROR: {spec.op_type}: {message}" in line for line in found["log"]), errors(found)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_references_in_half_precision_are_refused(tensorrt_plugins, tmp_path, dtype):
    """Half a unit in the last place near 1 is a tenth of a pixel or more: no engine is built that would be wrong."""
    spec = SPECS["ms_deform_attn_fused"]
    model = spec.model(dtype)
    (references,) = [value for value in model.graph.input if value.name == "reference_points"]
    references.type.tensor_type.elem_type = DTYPES[dtype]
    found = build(tmp_path, model, spec.profile())
    assert found["plan"] == 0
    message = f"MSDeformAttnFused: tensor reference_points has the wrong type (seen: {dtype}; expected: float32)"
    assert any(message in line for line in errors(found)), errors(found)


def test_wrong_rank_is_refused_with_a_message(tensorrt_plugins, tmp_path):
    spec = SPECS["ms_deform_attn"]
    model = spec.model("float32")
    del model.graph.input[0].type.tensor_type.shape.dim[-1]
    del model.functions[:]
    profile = {**spec.profile(), "value": [[1, 20, 4], [2, 20, 4]]}
    found = build(tmp_path, model, profile)
    assert found["plan"] == 0
    message = "MSDeformAttn: tensor value has the wrong number of dimensions (seen: 3; expected: 4)"
    assert any(message in line for line in found["log"]), errors(found)
