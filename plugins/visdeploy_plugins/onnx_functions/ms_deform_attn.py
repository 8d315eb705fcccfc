"""Schemas and function bodies of the ONNX ops `visdeploy::MSDeformAttn` and `visdeploy::MSDeformAttnFused`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import onnx
import onnx.parser

from visdeploy_plugins.errors import OpError
from visdeploy_plugins.onnx_functions.ms_deform_attn_body import body_text
from visdeploy_plugins.onnx_functions.op import DOMAIN, FLOATS, VERSION, OnnxOp, Shapes

OP_TYPE = "MSDeformAttn"
FUSED_OP_TYPE = "MSDeformAttnFused"
INPUTS = ("value", "spatial_shapes", "level_start_index", "sampling_locations", "attention_weights")
FUSED_INPUTS = (*INPUTS[:3], "reference_points", "sampling_offsets", "attention_logits")
FIRST_OPSET_WITH_GRID_SAMPLE = 16
# Points have the type of the values (T), or are float32 when the values are half precision (P). Reference points may be
# float32 even if the offsets are not (R).
_TYPES = {"spatial_shapes": "tensor(int64)", "level_start_index": "tensor(int64)", "value": "T"}


def _schema(op_type: str, inputs: tuple[str, ...]) -> onnx.defs.OpSchema:
    parameter = onnx.defs.OpSchema.FormalParameter
    types = {
        **dict.fromkeys(inputs, "P"),
        **({"reference_points": "R"} if "reference_points" in inputs else {}),
        **_TYPES,
    }
    return onnx.defs.OpSchema(
        op_type,
        DOMAIN,
        VERSION,
        doc="Multi-scale deformable attention; see plugins/ms_deform_attn/README.md.",
        inputs=[parameter(name, types[name]) for name in inputs],
        outputs=[parameter("output", "T")],
        type_constraints=[(name, list(FLOATS), "") for name in ("T", "P", "R") if name in types.values()],
    )


def ms_deform_attn_schema() -> onnx.defs.OpSchema:
    """Return the schema of the plain op, required by exporters and checkers."""
    return _schema(OP_TYPE, INPUTS)


def ms_deform_attn_fused_schema() -> onnx.defs.OpSchema:
    """Return the schema of the fused op."""
    return _schema(FUSED_OP_TYPE, FUSED_INPUTS)


def ms_deform_attn_function(levels: int, *, opset: int = 20, overload: str = "") -> onnx.FunctionProto:
    """Return the plain op as a model-local function: one GridSample per level.

    It computes in the type of sampling_locations.

    Args:
        levels: Number of pyramid levels; the body is unrolled over them.
        opset: Version of the standard operators, as in the model; at least 16.
        overload: Overload name, which distinguishes bodies with different numbers of levels within a model.

    Returns:
        The function, ready for `ModelProto.functions`.

    Raises:
        OpError: There is no level, or the opset has no GridSample.
    """
    return _function(OP_TYPE, INPUTS, levels, opset, 0, overload)


def ms_deform_attn_fused_function(
    levels: int, *, reference_size: int = 2, opset: int = 20, overload: str = ""
) -> onnx.FunctionProto:
    """Return the fused op as a model-local function.

    It computes in the type of reference_points, which should be float32 if the other tensors are half precision.

    Args:
        levels: Number of pyramid levels; the body is unrolled over them.
        reference_size: 2 for reference points (x, y), 4 for reference boxes (x, y, width, height).
        opset: Version of the standard operators, as in the model; at least 16.
        overload: Overload name, which distinguishes bodies within a model.

    Returns:
        The function, ready for `ModelProto.functions`.

    Raises:
        OpError: There is no level, the opset has no GridSample, or the reference size is not 2 or 4.
    """
    if reference_size not in (2, 4):
        raise OpError(f"{FUSED_OP_TYPE}: no function body", seen=f"references of {reference_size}", expected="2 or 4")
    return _function(FUSED_OP_TYPE, FUSED_INPUTS, levels, opset, reference_size, overload)


def _function(
    op_type: str, inputs: tuple[str, ...], levels: int, opset: int, reference_size: int, overload: str
) -> onnx.FunctionProto:
    if levels < 1 or opset < FIRST_OPSET_WITH_GRID_SAMPLE:
        seen = f"{levels} levels, opset {opset}"
        raise OpError(f"{op_type}: no function body", seen=seen, expected="at least 1 level and opset 16")
    header = f'<domain: "{DOMAIN}", opset_import: ["" : {opset}]>\n{op_type} ({", ".join(inputs)}) => (output)'
    function = onnx.parser.parse_function(f"{header}\n{{{body_text(levels, opset, reference_size)}}}")
    function.overload = overload
    return function


def _levels(node: onnx.NodeProto, shapes: Shapes) -> int:
    # any of these shapes contains it: [L, 2], [L], and [N, Q, M, L, P, 2] or [N, Q, L, 2 or 4]
    last = (node.input[3], 3) if node.op_type == OP_TYPE else (node.input[3], 2)
    for tensor, axis in ((node.input[1], 0), (node.input[2], 0), last):
        shape = shapes.get(tensor, [])
        if len(shape) > axis and shape[axis] > 0:
            return shape[axis]
    raise OpError(
        f"node {node.name} ({node.op_type}): the number of levels is not known from the graph",
        seen=f"tensor {node.input[1]} of shape {shapes.get(node.input[1], 'unknown')}",
        expected="spatial_shapes with a fixed first dimension",
    )


def _reference_size(node: onnx.NodeProto, shapes: Shapes) -> int:
    shape = shapes.get(node.input[3], [])
    if len(shape) == 4 and shape[3] in (2, 4):
        return shape[3]
    raise OpError(
        f"node {node.name} ({node.op_type}): whether references are points or boxes is not known from the graph",
        seen=f"tensor {node.input[3]} of shape {shape or 'unknown'}",
        expected="reference_points with a fixed last dimension of 2 or 4",
    )


def _translation(opset: Any) -> Callable[..., Any]:
    def ms_deform_attn(value: Any, shapes: Any, starts: Any, locations: Any, weights: Any) -> Any:
        return opset.MSDeformAttn(value, shapes, starts, locations, weights)

    return ms_deform_attn


def _fused_translation(opset: Any) -> Callable[..., Any]:
    def ms_deform_attn_fused(value: Any, shapes: Any, starts: Any, references: Any, offsets: Any, logits: Any) -> Any:
        return opset.MSDeformAttnFused(value, shapes, starts, references, offsets, logits)

    return ms_deform_attn_fused


OP = OnnxOp(
    op_type=OP_TYPE,
    torch_name="ms_deform_attn",
    schema=ms_deform_attn_schema,
    variant=lambda node, shapes: f"levels_{_levels(node, shapes)}",
    function=lambda node, shapes, opset, overload: ms_deform_attn_function(
        _levels(node, shapes), opset=opset, overload=overload
    ),
    translation=_translation,
)

FUSED_OP = OnnxOp(
    op_type=FUSED_OP_TYPE,
    torch_name="ms_deform_attn_fused",
    schema=ms_deform_attn_fused_schema,
    variant=lambda node, shapes: f"levels_{_levels(node, shapes)}_references_{_reference_size(node, shapes)}",
    function=lambda node, shapes, opset, overload: ms_deform_attn_fused_function(
        _levels(node, shapes), reference_size=_reference_size(node, shapes), opset=opset, overload=overload
    ),
    translation=_fused_translation,
)
