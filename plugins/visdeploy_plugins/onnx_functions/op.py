"""Description of an operator for ONNX files."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import onnx

DOMAIN = "visdeploy"
VERSION = 1
FLOATS = ("tensor(float)", "tensor(double)", "tensor(float16)", "tensor(bfloat16)")

Shapes = Mapping[str, list[int]]
"""Map from the name of a tensor of a graph to its shape; -1 denotes a symbolic dimension."""


@dataclass(frozen=True)
class OnnxOp:
    """One op of the domain `visdeploy`.

    Attributes:
        op_type: Name of the op in ONNX files.
        torch_name: Name of the op under `torch.ops.visdeploy`.
        schema: Returns the schema.
        variant: Returns the properties, other than the opset, that determine the body of a node, as a short word such
            as "levels_4"; empty if all nodes have the same body. Raises OpError if they are not known from the graph.
        function: Returns the body of a node for an opset, with the given overload name.
        translation: Returns, for the onnxscript opset of the domain, the function that writes a call of the PyTorch
            operator as a node.
    """

    op_type: str
    torch_name: str
    schema: Callable[[], onnx.defs.OpSchema]
    variant: Callable[[onnx.NodeProto, Shapes], str]
    function: Callable[[onnx.NodeProto, Shapes, int, str], onnx.FunctionProto]
    translation: Callable[[Any], Callable[..., Any]]
