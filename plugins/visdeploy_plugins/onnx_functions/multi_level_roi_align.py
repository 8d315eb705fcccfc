"""Schema and function body of the ONNX op `visdeploy::MultiLevelRoiAlign`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import onnx
import onnx.parser

from visdeploy_plugins.errors import OpError
from visdeploy_plugins.onnx_functions.op import DOMAIN, FLOATS, VERSION, OnnxOp, Shapes

OP_TYPE = "MultiLevelRoiAlign"
ATTRIBUTES = ("output_height", "output_width", "sampling_ratio", "spatial_scales", "finest_scale")
FIRST_OPSET_WITH_HALF_PIXEL = 16
MOST_LEVELS = 8

# Boxes whose result is zero are moved outside of their map, because RoiAlign of ONNX Runtime reads out of bounds for
# NaN.
_HEAD = """
    zero = Constant <value = int64[1] {0}> ()
    one = Constant <value = int64[1] {1}> ()
    far = Constant <value = float {1e12}> ()
    far_like = CastLike (far, rois)
    distance = Abs (rois)
    near_each = LessOrEqual (distance, far_like)
    far_each = Not (near_each)
    far_real = Cast <to = 1> (far_each)
    far_count = ReduceSum <keepdims = 1> (far_real, one)
    half = Constant <value = float {0.5}> ()
    near = Less (far_count, half)
    corner_1 = Constant <value = int64[2] {0, 1}> ()
    corner_2 = Constant <value = int64[2] {2, 3}> ()
    single = Cast <to = 1> (rois)
    from_single = Gather <axis = 1> (single, corner_1)
    to_single = Gather <axis = 1> (single, corner_2)
    sides = Sub (to_single, from_single)
"""

# With adaptive sampling, RoiAlign of ONNX Runtime computes a negative number of samples for a box with a negative side.
_TURNED = """
    zero_side = Constant <value = float {0}> ()
    turned_each = Less (sides, zero_side)
    turned_real = Cast <to = 1> (turned_each)
    turned_count = ReduceSum <keepdims = 1> (turned_real, one)
    upright = Less (turned_count, half)
    usable = And (near, upright)
"""

_ROUTE = """
    outside = Constant <value = float {-10}> ()
    outside_like = CastLike (outside, rois)
    at_x = Constant <value = int64 {0}> ()
    at_y = Constant <value = int64 {1}> ()
    width = Gather <axis = 1> (sides, at_x)
    height = Gather <axis = 1> (sides, at_y)
    area = Mul (width, height)
    side = Sqrt (area)
    finest = Constant <value_float : float = @finest_scale> ()
    ratio = Div (side, finest)
    guard = Constant <value = float {1e-6}> ()
    size = Add (ratio, guard)
    scales = Constant <value_floats : floats = @spatial_scales> ()
    scales_like = CastLike (scales, rois)
"""

_MEMBERS = """
    threshold_{l} = Constant <value = float {{{threshold}}}> ()
    reached_{l} = GreaterOrEqual (size, threshold_{l})
    below_{l} = Not (reached_{l})
"""

# The attribute spatial_scale must be a constant, so boxes are scaled to the cells of the level before RoiAlign.
_LEVEL = """
    {member}
    index_2d_{l} = NonZero (member_{l})
    index_{l} = Squeeze (index_2d_{l}, zero)
    rois_{l} = Gather (rois, index_{l})
    usable_{l} = Gather (usable, index_{l})
    batch_{l} = Gather (batch_indices, index_{l})
    level_{l} = Constant <value = int64 {{{l}}}> ()
    scale_{l} = Gather (scales_like, level_{l})
    scaled_{l} = Mul (rois_{l}, scale_{l})
    boxes_{l} = Where (usable_{l}, scaled_{l}, outside_like)
    map_{l} = CastLike (feature_{l}, rois)
    part_{l} = RoiAlign <mode = "avg", coordinate_transformation_mode = "half_pixel", spatial_scale = 1.0,
        output_height : int = @output_height, output_width : int = @output_width,
        sampling_ratio : int = @sampling_ratio> (map_{l}, boxes_{l}, batch_{l})
"""

_TAIL = """
    parts = Concat <axis = 0> ({parts})
    order = Concat <axis = 0> ({indices})
    count = Size (batch_indices)
    step = Constant <value = int64 {{1}}> ()
    numbers = Range (at_x, count, step)
    position = ScatterElements <axis = 0> (order, order, numbers)
    ordered = Gather (parts, position)
    output = CastLike (ordered, feature_0)
"""


def multi_level_roi_align_schema() -> onnx.defs.OpSchema:
    """Return the schema of the op, required by exporters and checkers."""
    parameter, attribute = onnx.defs.OpSchema.FormalParameter, onnx.defs.OpSchema.Attribute
    kinds = {"spatial_scales": onnx.defs.OpSchema.AttrType.FLOATS, "finest_scale": onnx.defs.OpSchema.AttrType.FLOAT}
    # Not variadic: onnxscript writes the inputs before a variadic one twice.
    optional = onnx.defs.OpSchema.FormalParameterOption.Optional
    return onnx.defs.OpSchema(
        OP_TYPE,
        DOMAIN,
        VERSION,
        doc="RoI align of each box on its pyramid level; see plugins/multi_level_roi_align/README.md.",
        inputs=[
            parameter("rois", "B"),
            parameter("batch_indices", "tensor(int64)"),
            parameter("feature_0", "T"),
            *(parameter(f"feature_{level}", "T", param_option=optional) for level in range(1, MOST_LEVELS)),
        ],
        outputs=[parameter("output", "T")],
        type_constraints=[("T", list(FLOATS), ""), ("B", ["tensor(float)", "tensor(double)"], "")],
        attributes=[
            attribute(name, kinds.get(name, onnx.defs.OpSchema.AttrType.INT), "", required=True) for name in ATTRIBUTES
        ],
    )


def multi_level_roi_align_function(
    levels: int, *, adaptive: bool = False, opset: int = 20, overload: str = ""
) -> onnx.FunctionProto:
    """Return the op as a model-local function: one RoiAlign per level, on the boxes of that level.

    Args:
        levels: Number of features; the body is unrolled over them.
        adaptive: Whether the sampling ratio is 0; if so, boxes with a negative side are not passed to RoiAlign.
        opset: Version of the standard operators, as in the model; at least 16.
        overload: Overload name, which distinguishes bodies within a model.

    Returns:
        The function, ready for `ModelProto.functions`.

    Raises:
        OpError: The number of levels is not from 1 to 8, or the opset has no RoiAlign with half-pixel coordinates.
    """
    if not 1 <= levels <= MOST_LEVELS or opset < FIRST_OPSET_WITH_HALF_PIXEL:
        seen = f"{levels} levels, opset {opset}"
        raise OpError(f"{OP_TYPE}: no function body", seen=seen, expected=f"1 to {MOST_LEVELS} levels and opset 16")
    features = [f"feature_{level}" for level in range(levels)]
    body = _HEAD + (_TURNED if adaptive else "\n    usable = Identity (near)\n") + _ROUTE
    body += "".join(_MEMBERS.format(l=level, threshold=2.0**level) for level in range(1, levels))
    body += "".join(_LEVEL.format(l=level, member=_member(level, levels)) for level in range(levels))
    parts, indices = (", ".join(f"{name}_{level}" for level in range(levels)) for name in ("part", "index"))
    body += _TAIL.format(parts=parts, indices=indices)
    header = f'<domain: "{DOMAIN}", opset_import: ["" : {opset}]>\n{OP_TYPE} <{", ".join(ATTRIBUTES)}>'
    inputs = ", ".join(["rois", "batch_indices", *features])
    function = onnx.parser.parse_function(f"{header} ({inputs}) => (output)\n{{{body}}}")
    function.overload = overload
    return function


def _member(level: int, levels: int) -> str:
    """Return the node that computes which boxes belong to a level; NaN exceeds no threshold, so it is in level 0."""
    if levels == 1:
        return "member_0 = Equal (batch_indices, batch_indices)"
    if level == 0:
        return "member_0 = Identity (below_1)"
    if level == levels - 1:
        return f"member_{level} = Identity (reached_{level})"
    return f"member_{level} = And (reached_{level}, below_{level + 1})"


def _body(node: onnx.NodeProto) -> tuple[int, bool]:
    """Return the properties that determine the body of a node: number of levels, and whether sampling is adaptive."""
    ratio = next((each.i for each in node.attribute if each.name == "sampling_ratio"), None)
    if ratio is None:
        raise OpError(f"node {node.name} ({OP_TYPE})", seen="no attribute sampling_ratio", expected="one")
    return len(node.input) - 2, ratio == 0


def _variant(node: onnx.NodeProto, _: Shapes) -> str:
    levels, adaptive = _body(node)
    return f"levels_{levels}" + ("_adaptive" if adaptive else "")


def _function(node: onnx.NodeProto, _: Shapes, opset: int, overload: str) -> onnx.FunctionProto:
    levels, adaptive = _body(node)
    return multi_level_roi_align_function(levels, adaptive=adaptive, opset=opset, overload=overload)


def _translation(opset: Any) -> Callable[..., Any]:
    def multi_level_roi_align(
        features: Any,
        rois: Any,
        batch_indices: Any,
        *,
        output_size: Any,
        spatial_scales: Any,
        sampling_ratio: int = 2,
        finest_scale: float = 56.0,
    ) -> Any:
        return opset.MultiLevelRoiAlign(
            rois,
            batch_indices,
            *features,
            output_height=output_size[0],
            output_width=output_size[1],
            sampling_ratio=sampling_ratio,
            spatial_scales=list(spatial_scales),
            finest_scale=finest_scale,
        )

    return multi_level_roi_align


OP = OnnxOp(
    op_type=OP_TYPE,
    torch_name="multi_level_roi_align",
    schema=multi_level_roi_align_schema,
    variant=_variant,
    function=_function,
    translation=_translation,
)
