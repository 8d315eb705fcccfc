"""Schema and function body of the ONNX op `visdeploy::DeformConv`: the standard op, with the bias always present."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import onnx
import onnx.parser

from visdeploy_plugins.errors import OpError
from visdeploy_plugins.onnx_functions.op import DOMAIN, FLOATS, VERSION, OnnxOp

OP_TYPE = "DeformConv"
INPUTS = ("X", "W", "offset", "B", "mask")
FIRST_OPSET_WITH_DEFORM_CONV = 19
_DEFAULTS: dict[str, int | list[int]] = {
    "strides": [1, 1],
    "pads": [0, 0, 0, 0],
    "dilations": [1, 1],
    "group": 1,
    "offset_group": 1,
}


def deform_conv_schema() -> onnx.defs.OpSchema:
    """Return the schema of the op, required by exporters and checkers."""
    parameter = onnx.defs.OpSchema.FormalParameter
    attribute = onnx.defs.OpSchema.Attribute
    optional = onnx.defs.OpSchema.FormalParameterOption.Optional
    return onnx.defs.OpSchema(
        OP_TYPE,
        DOMAIN,
        VERSION,
        doc="Deformable convolution v1 (without mask) and v2; see plugins/deform_conv/README.md.",
        inputs=[
            *(parameter(name, "T") for name in INPUTS[:4]),
            parameter(INPUTS[4], "T", param_option=optional),
        ],
        outputs=[parameter("Y", "T")],
        type_constraints=[("T", list(FLOATS), "")],
        attributes=[
            *(attribute(name, onnx.helper.make_attribute(name, value)) for name, value in _DEFAULTS.items()),
            attribute("kernel_shape", onnx.defs.OpSchema.AttrType.INTS, required=False),
        ],
    )


def deform_conv_function(*, opset: int = 20, overload: str = "") -> onnx.FunctionProto:
    """Return the op as a model-local function: the standard `DeformConv`.

    Args:
        opset: Version of the standard operators, as in the model; at least 19, and 22 for bfloat16.
        overload: Overload name, which distinguishes bodies within a model.

    Returns:
        The function, ready for `ModelProto.functions`.

    Raises:
        OpError: The opset has no DeformConv.
    """
    if opset < FIRST_OPSET_WITH_DEFORM_CONV:
        raise OpError(f"{OP_TYPE}: no function body", seen=f"opset {opset}", expected="at least opset 19")
    # kernel_shape is omitted: it follows from the weights, and an optional attribute would need a default value here.
    types = {name: "int" if isinstance(value, int) else "ints" for name, value in _DEFAULTS.items()}
    declared = ", ".join(f"{name}: {types[name]} = {value}" for name, value in _DEFAULTS.items())
    passed = ", ".join(f"{name}: {types[name]} = @{name}" for name in _DEFAULTS)
    header = f'<domain: "{DOMAIN}", opset_import: ["" : {opset}]>\n{OP_TYPE} <{declared}> ({", ".join(INPUTS)}) => (Y)'
    function = onnx.parser.parse_function(f"{header}\n{{ Y = DeformConv <{passed}> ({', '.join(INPUTS)}) }}")
    function.overload = overload
    return function


def _translation(opset: Any) -> Callable[..., Any]:
    import onnxscript

    standard: Any = onnxscript.opset18

    def deform_conv(
        input: Any,
        offset: Any,
        weight: Any,
        mask: Any = None,
        bias: Any = None,
        *,
        stride: Sequence[int],
        padding: Sequence[int],
        dilation: Sequence[int],
        groups: int,
        offset_groups: int,
    ) -> Any:
        if bias is None:
            outputs = standard.Shape(weight, start=0, end=1)
            bias = standard.Expand(standard.CastLike(standard.Constant(value_float=0.0), weight), outputs)
        tensors = (input, weight, offset, bias) if mask is None else (input, weight, offset, bias, mask)
        return opset.DeformConv(
            *tensors,
            strides=list(stride),
            pads=list(padding) * (4 // len(padding)),
            dilations=list(dilation),
            group=groups,
            offset_group=offset_groups,
        )

    return deform_conv


OP = OnnxOp(
    op_type=OP_TYPE,
    torch_name="deform_conv",
    schema=deform_conv_schema,
    variant=lambda node, shapes: "",
    function=lambda node, shapes, opset, overload: deform_conv_function(opset=opset, overload=overload),
    translation=_translation,
)
