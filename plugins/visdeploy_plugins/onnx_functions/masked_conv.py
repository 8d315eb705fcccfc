"""Schema and function body of the ONNX op `visdeploy::MaskedConv`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import onnx
import onnx.parser

from visdeploy_plugins.errors import OpError
from visdeploy_plugins.onnx_functions.op import DOMAIN, FLOATS, VERSION, OnnxOp

OP_TYPE = "MaskedConv"
FIRST_OPSET_WITH_EVERY_PART = 16  # Where and Greater in bfloat16

# Where selects the zero. A product with the mask would propagate NaN and infinity at inactive positions. float64 masks
# are compared in float32, so positive values below its smallest number count as 0.
_BODY = """
    dense = Conv <strides: ints = @strides, pads: ints = @pads, dilations: ints = @dilations, group: int = @group>
        (x, weight, bias)
    values = Cast <to = 1> (mask)
    nothing = Constant <value = float {0}> ()
    active = Greater (values, nothing)
    axis = Constant <value = int64[1] {1}> ()
    inside = Unsqueeze (active, axis)
    zero = CastLike (nothing, x)
    output = Where (inside, dense, zero)
"""


def masked_conv_schema() -> onnx.defs.OpSchema:
    """Return the schema of the op, required by exporters and checkers."""
    parameter = onnx.defs.OpSchema.FormalParameter
    attributes = {
        "strides": onnx.helper.make_attribute("strides", [1, 1]),
        "pads": onnx.helper.make_attribute("pads", [0, 0, 0, 0]),
        "dilations": onnx.helper.make_attribute("dilations", [1, 1]),
        "group": onnx.helper.make_attribute("group", 1),
    }
    return onnx.defs.OpSchema(
        OP_TYPE,
        DOMAIN,
        VERSION,
        doc="Convolution where a mask is positive, 0 elsewhere; see plugins/masked_conv/README.md.",
        inputs=[parameter("x", "T"), parameter("mask", "M"), parameter("weight", "T"), parameter("bias", "T")],
        outputs=[parameter("output", "T")],
        type_constraints=[("T", list(FLOATS), ""), ("M", [*FLOATS, "tensor(bool)"], "")],
        attributes=[onnx.defs.OpSchema.Attribute(name, default, "") for name, default in attributes.items()],
    )


def masked_conv_function(*, opset: int = 20, overload: str = "") -> onnx.FunctionProto:
    """Return the op as a model-local function: Conv, then Where.

    Args:
        opset: Version of the standard operators, as in the model; at least 16.
        overload: Overload name, which distinguishes bodies within a model; this op needs only one body.

    Returns:
        The function, ready for `ModelProto.functions`.

    Raises:
        OpError: The opset is too old.
    """
    if opset < FIRST_OPSET_WITH_EVERY_PART:
        expected = f"opset {FIRST_OPSET_WITH_EVERY_PART} or later"
        raise OpError(f"{OP_TYPE}: no function body", seen=f"opset {opset}", expected=expected)
    attributes = "strides: ints = [1, 1], pads: ints = [0, 0, 0, 0], dilations: ints = [1, 1], group: int = 1"
    header = f'<domain: "{DOMAIN}", opset_import: ["" : {opset}]>'
    signature = f"{OP_TYPE} <{attributes}> (x, mask, weight, bias) => (output)"
    function = onnx.parser.parse_function(f"{header}\n{signature}\n{{{_BODY}}}")
    function.overload = overload
    return function


def _translation(opset: Any) -> Callable[..., Any]:
    import onnxscript

    standard: Any = onnxscript.opset18

    def masked_conv(
        x: Any,
        mask: Any,
        weight: Any,
        bias: Any = None,
        stride: Sequence[int] = (1, 1),
        padding: Sequence[int] = (0, 0),
        dilation: Sequence[int] = (1, 1),
        groups: int = 1,
    ) -> Any:
        if bias is None:  # always present: TensorRT does not accept plugins with absent inputs
            bias = _zeros(standard, weight)
        return opset.MaskedConv(
            x,
            mask,
            weight,
            bias,
            strides=_pair(stride),
            pads=_pair(padding) * 2,
            dilations=_pair(dilation),
            group=groups,
        )

    return masked_conv


def _zeros(standard: Any, weight: Any) -> Any:
    """Return one zero per output channel: a constant if their number is known, as for parameters."""
    outputs = weight.shape[0] if weight.shape is not None else None
    if isinstance(outputs, int):
        return standard.CastLike(standard.Constant(value_floats=[0.0] * outputs), weight)
    return standard.CastLike(standard.ConstantOfShape(standard.Shape(weight, start=0, end=1)), weight)


def _pair(values: Sequence[int]) -> list[int]:
    return list(values) * (2 // len(values))


OP = OnnxOp(
    op_type=OP_TYPE,
    torch_name="masked_conv",
    schema=masked_conv_schema,
    variant=lambda node, shapes: "",
    function=lambda node, shapes, opset, overload: masked_conv_function(opset=opset, overload=overload),
    translation=_translation,
)
