"""Schema and function body of the ONNX op `visdeploy::MSDeformAttn`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import onnx
import onnx.parser

from visdeploy_plugins.errors import OpError
from visdeploy_plugins.onnx_functions.op import DOMAIN, FLOATS, VERSION, OnnxOp, Shapes

OP_TYPE = "MSDeformAttn"
INPUTS = ("value", "spatial_shapes", "level_start_index", "sampling_locations", "attention_weights")
FIRST_OPSET_WITH_GRID_SAMPLE = 16

_HEAD = """
    one = Constant <value = int64[1] {1}> ()
    two = Constant <value = int64[1] {2}> ()
    three = Constant <value = int64[1] {3}> ()
    value_shape = Shape (value)
    location_shape = Shape (sampling_locations)
    axis_batch = Constant <value = int64[1] {0}> ()
    batch = Gather (value_shape, axis_batch)
    heads = Gather (value_shape, two)
    channels = Gather (value_shape, three)
    queries = Gather (location_shape, one)
    axis_points = Constant <value = int64[1] {4}> ()
    points = Gather (location_shape, axis_points)
    maps = Mul (batch, heads)
    shape_grid = Concat <axis = 0> (maps, queries, points, two)
    shape_share = Concat <axis = 0> (maps, one, queries, points)
    real_two = CastLike (two, value)
    real_one = CastLike (one, value)
    doubled = Mul (sampling_locations, real_two)
    grids = Sub (doubled, real_one)
    by_channel = Transpose <perm = [0, 2, 3, 1]> (value)
"""

_LEVEL = """
    level_{l} = Constant <value = int64 {{{l}}}> ()
    size_{l} = Gather (spatial_shapes, level_{l})
    area_{l} = ReduceProd <keepdims = 1> (size_{l})
    level_1d_{l} = Constant <value = int64[1] {{{l}}}> ()
    start_{l} = Gather (level_start_index, level_1d_{l})
    end_{l} = Add (start_{l}, area_{l})
    slice_{l} = Slice (by_channel, start_{l}, end_{l}, three)
    shape_{l} = Concat <axis = 0> (maps, channels, size_{l})
    map_{l} = Reshape <allowzero = 1> (slice_{l}, shape_{l})
    grid_5d_{l} = Gather <axis = 3> (grids, level_{l})
    grid_swapped_{l} = Transpose <perm = [0, 2, 1, 3, 4]> (grid_5d_{l})
    grid_{l} = Reshape <allowzero = 1> (grid_swapped_{l}, shape_grid)
    share_4d_{l} = Gather <axis = 3> (attention_weights, level_{l})
    share_swapped_{l} = Transpose <perm = [0, 2, 1, 3]> (share_4d_{l})
    share_{l} = Reshape <allowzero = 1> (share_swapped_{l}, shape_share)
    sampled_{l} = GridSample <mode = "{mode}", padding_mode = "zeros", align_corners = 0> (map_{l}, grid_{l})
    weighted_{l} = Mul (sampled_{l}, share_{l})
    axis_last_{l} = Constant <value = int64[1] {{-1}}> ()
    part_{l} = ReduceSum <keepdims = 0> (weighted_{l}, axis_last_{l})
"""

_TAIL = """
    width = Mul (heads, channels)
    shape_output = Concat <axis = 0> (batch, width, queries)
    flat = Reshape <allowzero = 1> (parts, shape_output)
    output = Transpose <perm = [0, 2, 1]> (flat)
"""


def ms_deform_attn_schema() -> onnx.defs.OpSchema:
    """The op's schema, which exporters and checkers ask for."""
    parameter = onnx.defs.OpSchema.FormalParameter
    types = ["int64" if name in INPUTS[1:3] else "T" for name in INPUTS]
    return onnx.defs.OpSchema(
        OP_TYPE,
        DOMAIN,
        VERSION,
        doc="Multi-scale deformable attention; see plugins/ms_deform_attn/README.md.",
        inputs=[
            parameter(name, "tensor(int64)" if kind == "int64" else kind)
            for name, kind in zip(INPUTS, types, strict=True)
        ],
        outputs=[parameter("output", "T")],
        type_constraints=[("T", list(FLOATS), "")],
    )


def ms_deform_attn_function(levels: int, *, opset: int = 20, overload: str = "") -> onnx.FunctionProto:
    """The op as a model-local function: one GridSample per level.

    Args:
        levels: Number of pyramid levels; the body is unrolled over them.
        opset: Version of the standard operators, that of the model; at least 16.
        overload: Tells bodies of different numbers of levels apart within one model.

    Returns:
        The function, ready for `ModelProto.functions`.

    Raises:
        OpError: Fewer than one level, or an opset without GridSample.
    """
    if levels < 1 or opset < FIRST_OPSET_WITH_GRID_SAMPLE:
        seen = f"{levels} levels, opset {opset}"
        raise OpError(f"{OP_TYPE}: no function body", seen=seen, expected="at least 1 level and opset 16")
    # Opset 20 renamed the mode; ReduceProd takes its axes as an attribute before 18 and is used without axes here.
    mode = "linear" if opset >= 20 else "bilinear"
    body = _HEAD + "".join(_LEVEL.format(l=level, mode=mode) for level in range(levels))
    parts = ", ".join(f"part_{level}" for level in range(levels))
    body += f"\n    parts = Sum ({parts})\n" + _TAIL
    header = f'<domain: "{DOMAIN}", opset_import: ["" : {opset}]>\n{OP_TYPE} ({", ".join(INPUTS)}) => (output)'
    function = onnx.parser.parse_function(f"{header}\n{{{body}}}")
    function.overload = overload
    return function


def _levels(node: onnx.NodeProto, shapes: Shapes) -> int:
    # Any of the three says it: [L, 2], [L], [N, Q, M, L, P, 2].
    for tensor, axis in ((node.input[1], 0), (node.input[2], 0), (node.input[3], 3)):
        shape = shapes.get(tensor, [])
        if len(shape) > axis and shape[axis] > 0:
            return shape[axis]
    raise OpError(
        f"node {node.name} ({OP_TYPE}): the number of levels is not known from the graph",
        seen=f"tensor {node.input[1]} of shape {shapes.get(node.input[1], 'unknown')}",
        expected="spatial_shapes with a fixed first dimension",
    )


def _translation(opset: Any) -> Callable[..., Any]:
    def ms_deform_attn(value: Any, shapes: Any, starts: Any, locations: Any, weights: Any) -> Any:
        return opset.MSDeformAttn(value, shapes, starts, locations, weights)

    return ms_deform_attn


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
