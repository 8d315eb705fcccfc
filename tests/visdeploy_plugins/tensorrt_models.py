"""One small ONNX model per plugin: a node of ours with a function body, all dynamic dimensions symbolic."""

from dataclasses import dataclass, field
from typing import Any

import onnx
from onnx import TensorProto, helper

from visdeploy_plugins.onnx_functions import add_function_bodies
from visdeploy_plugins.onnx_functions.export import OPS

DTYPES = {"float32": TensorProto.FLOAT, "float16": TensorProto.FLOAT16, "bfloat16": TensorProto.BFLOAT16}
INT64, BOOL, FLOAT = TensorProto.INT64, TensorProto.BOOL, TensorProto.FLOAT


@dataclass(frozen=True)
class Input:
    """A graph input. `shape` holds sizes and symbols; `dtype` is a fixed one, or None for the model's."""

    name: str
    shape: tuple[int | str, ...]
    dtype: int | None = None


@dataclass(frozen=True)
class Spec:
    """A node, the symbols' smallest and largest sizes, and the output's shape as TensorRT should infer it."""

    op_type: str
    inputs: tuple[Input, ...]
    sizes: dict[str, tuple[int, int]]
    output: list[int]
    attributes: dict[str, Any] = field(default_factory=dict)
    domain: str = "visdeploy"

    def model(self, dtype: str, **changes: Any) -> onnx.ModelProto:
        """Return the model in a precision; `changes` replace attributes of the node."""
        kind = DTYPES[dtype]
        inputs = [helper.make_tensor_value_info(each.name, each.dtype or kind, each.shape) for each in self.inputs]
        attributes = {**self.attributes, **changes}
        node = helper.make_node(
            self.op_type, [each.name for each in self.inputs], ["output"], "the_node", domain=self.domain, **attributes
        )
        output = helper.make_tensor_value_info("output", kind, [f"o{axis}" for axis in range(len(self.output))])
        opsets = [helper.make_opsetid("", 22), helper.make_opsetid("visdeploy", 1)]
        graph = helper.make_graph([node], "graph", inputs, [output])
        model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
        return add_function_bodies(model) if self.op_type in OPS else model

    def profile(self) -> dict[str, list[list[int]]]:
        """Return the smallest and largest shape of each input that has symbols."""
        ranges = {}
        for each in self.inputs:
            low = [self.sizes[size][0] if isinstance(size, str) else size for size in each.shape]
            high = [self.sizes[size][1] if isinstance(size, str) else size for size in each.shape]
            if low != high:
                ranges[each.name] = [low, high]
        return ranges


_CONV = {"strides": [2, 1], "pads": [1, 2, 1, 2], "dilations": [1, 2], "group": 2}
_MAPS = {"n": (1, 2), "h": (9, 17), "w": (8, 12), "oh": (5, 9), "ow": (8, 12)}
_DEFORM = (
    Input("X", ("n", 8, "h", "w")),
    Input("W", (6, 4, 3, 3)),
    Input("offset", ("n", 36, "oh", "ow")),
    Input("B", (6,)),
    Input("mask", ("n", 18, "oh", "ow")),
)
_MASKED = (
    Input("x", ("n", 8, "h", "w")),
    Input("mask", ("n", "oh", "ow")),
    Input("weight", (6, 4, 3, 3)),
    Input("bias", (6,)),
)
_PYRAMID = (Input("value", ("n", "s", 4, 8)), Input("spatial_shapes", (2, 2), INT64), Input("starts", (2,), INT64))
_QUERIES = {"n": (1, 2), "s": (20, 20), "q": (1, 30)}
_MSDA = (*_PYRAMID, Input("locations", ("n", "q", 4, 2, 3, 2)), Input("weights", ("n", "q", 4, 2, 3)))

SPECS = {
    "deform_conv": Spec("DeformConv", _DEFORM, _MAPS, [-1, 6, -1, -1], {**_CONV, "offset_group": 2}),
    "deform_conv_v1": Spec("DeformConv", _DEFORM[:4], _MAPS, [-1, 6, -1, -1], {**_CONV, "offset_group": 2}),
    "standard_deform_conv": Spec(
        "DeformConv", _DEFORM, _MAPS, [-1, 6, -1, -1], {**_CONV, "offset_group": 2, "kernel_shape": [3, 3]}, ""
    ),
    "masked_conv": Spec("MaskedConv", _MASKED, _MAPS, [-1, 6, -1, -1], _CONV),
    "masked_conv_bool": Spec(
        "MaskedConv", (_MASKED[0], Input("mask", ("n", "oh", "ow"), BOOL), *_MASKED[2:]), _MAPS, [-1, 6, -1, -1], _CONV
    ),
    "ms_deform_attn": Spec("MSDeformAttn", _MSDA, _QUERIES, [-1, -1, 32]),
    "ms_deform_attn_float_points": Spec(
        "MSDeformAttn",
        (*_PYRAMID, *(Input(each.name, each.shape, FLOAT) for each in _MSDA[3:])),
        _QUERIES,
        [-1, -1, 32],
    ),
    "ms_deform_attn_fused": Spec(
        "MSDeformAttnFused",
        (
            *_PYRAMID,
            Input("reference_points", ("n", "q", 2, 4), FLOAT),
            Input("sampling_offsets", ("n", "q", 4, 2, 3, 2)),
            Input("attention_logits", ("n", "q", 4, 2, 3)),
        ),
        _QUERIES,
        [-1, -1, 32],
    ),
    "ms_deform_attn_fused_float_points": Spec(
        "MSDeformAttnFused",
        (
            *_PYRAMID,
            Input("reference_points", ("n", "q", 2, 2), FLOAT),
            Input("sampling_offsets", ("n", "q", 4, 2, 3, 2), FLOAT),
            Input("attention_logits", ("n", "q", 4, 2, 3), FLOAT),
        ),
        _QUERIES,
        [-1, -1, 32],
    ),
    "multi_level_roi_align": Spec(
        "MultiLevelRoiAlign",
        (
            Input("rois", ("r", 4), FLOAT),
            Input("indices", ("r",), INT64),
            Input("map0", ("n", 8, "h", "w")),
            Input("map1", ("n", 8, "oh", "ow")),
        ),
        {**_MAPS, "r": (1, 50)},
        [-1, 8, 7, 5],
        {
            "output_height": 7,
            "output_width": 5,
            "sampling_ratio": 2,
            "spatial_scales": [0.25, 0.125],
            "finest_scale": 56.0,
        },
    ),
}
