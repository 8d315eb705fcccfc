"""What every op says of itself for ONNX files."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import onnx

DOMAIN = "visdeploy"
VERSION = 1
FLOATS = ("tensor(float)", "tensor(double)", "tensor(float16)", "tensor(bfloat16)")

Shapes = Mapping[str, list[int]]
"""Shapes of a graph's tensors by name; -1 stands for a symbolic dimension."""


@dataclass(frozen=True)
class OnnxOp:
    """One op of the domain `visdeploy`.

    Attributes:
        op_type: Its name in ONNX files.
        torch_name: Its name under `torch.ops.visdeploy`.
        schema: Gives its schema.
        variant: What a node's body depends on beside the opset, as a short word such as "levels_4"; empty when all
            nodes share one body. Raises OpError when the graph does not tell.
        function: Gives the body of a node for an opset, with the overload name that it is to carry.
        translation: Given the onnxscript opset of the domain, what writes a call of the PyTorch operator as a node.
    """

    op_type: str
    torch_name: str
    schema: Callable[[], onnx.defs.OpSchema]
    variant: Callable[[onnx.NodeProto, Shapes], str]
    function: Callable[[onnx.NodeProto, Shapes, int, str], onnx.FunctionProto]
    translation: Callable[[Any], Callable[..., Any]]
