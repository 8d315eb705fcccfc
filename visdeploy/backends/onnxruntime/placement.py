"""Report of the nodes of a CUDA session that run on the CPU: shape arithmetic, as intended, and other nodes.

Sizes of tensors are known on the host, so ONNX Runtime intentionally computes with them there; these are a few integers
per step. The tensors of any other node on the CPU are copied from the GPU and back, which is reported as a warning.
"""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from enum import IntEnum
from pathlib import Path
from typing import Any

from visdeploy.backends.onnxruntime.installation import CUDA
from visdeploy.backends.onnxruntime.onnx_file import Graph, Model, Node, read_onnx

logger = logging.getLogger(__name__)

SMALL = 100
"""Maximum number of elements of a constant with which ONNX Runtime computes on the CPU."""
_STANDARD = ("", "ai.onnx")
_SIZES = frozenset({"Shape", "Size"})
_ARITHMETIC = re.compile(
    "Abs|Add|And|Cast|CastLike|Ceil|Clip|Concat|Div|Equal|Floor|Gather|GatherElements|GatherND|Greater|GreaterOrEqual|"
    "Identity|Less|LessOrEqual|Max|Min|Mod|Mul|Neg|Not|Or|Pow|Reciprocal|ReduceMax|ReduceMin|ReduceProd|ReduceSum|"
    "Reshape|Round|ScatterElements|ScatterND|Sign|Slice|Split|Sqrt|Squeeze|Sub|Sum|Transpose|Unsqueeze|Where|Xor"
)
"""Operators whose outputs are about as small as their inputs. Others (Range, Expand, ConstantOfShape, ...) create large
tensors from a few sizes; ONNX Runtime runs them on the GPU, so one on the CPU is not intended."""
_CALL_NUMBER = re.compile(r"(?<=^_inlfunc_)(.+?)_token_\d+(?=_)")
_OF_AN_OPTIMIZER = re.compile(r"Gather(_token_\d+)?")
"""Names of nodes that ONNX Runtime itself adds to permute a shape when it moves a Transpose; no file contains them."""


class _Value(IntEnum):
    """Kind of a tensor: any data, a small constant or input, or computed from sizes and small constants."""

    DATA = 0
    SMALL = 1
    SIZES = 2


def report_placement(session: Any, model: Path) -> None:
    """Log which nodes of a CUDA session run on the CPU, as a warning for nodes other than shape arithmetic.

    Args:
        session: The `onnxruntime.InferenceSession`, which must have recorded its assignment of nodes.
        model: The ONNX file of the session.

    Raises:
        BundleError: The file cannot be read.
    """
    if not hasattr(session, "get_provider_graph_assignment_info"):
        logger.warning("this version of ONNX Runtime does not report which nodes run on the CPU")
        return
    parts = session.get_provider_graph_assignment_info()
    on_cpu = [node for part in parts if part.ep_name != CUDA for node in part.get_nodes()]
    if not on_cpu:
        return
    names = shape_arithmetic(read_onnx(model))
    fallen = [node for node in on_cpu if not _on_purpose(node, names)]
    if len(fallen) < len(on_cpu):
        logger.info("%d nodes of shape arithmetic run on the CPU, as intended", len(on_cpu) - len(fallen))
    if fallen:
        counts = Counter(node.op_type for node in fallen)
        listed = ", ".join(f"{count}x {name}" for name, count in counts.most_common())
        logger.warning("%d nodes run on the CPU instead of the GPU: %s", len(fallen), listed)


def _on_purpose(node: Any, names: frozenset[str]) -> bool:
    """Return whether a node of an assignment is shape arithmetic."""
    if node.domain in _STANDARD and (node.op_type in _SIZES or _OF_AN_OPTIMIZER.fullmatch(node.name)):
        return True
    return _CALL_NUMBER.sub(r"\1", node.name) in names


def shape_arithmetic(model: Model) -> frozenset[str]:
    """Return the names, in ONNX Runtime, of the nodes that compute only with sizes of tensors.

    ONNX Runtime names the node X of the function F `_inlfunc_F_X` in one call of F and `_inlfunc_F_token_N_X` in the
    others. The former is returned for all calls, if the node computes with sizes in every call. Nodes without a name
    are not included.
    """
    search = _Search(model)
    search.walk(model.graph, {}, "")
    return frozenset(search.with_sizes - search.with_data)


class _Search:
    """Search for values computed from sizes in a graph, with the rules by which ONNX Runtime assigns nodes."""

    def __init__(self, model: Model) -> None:
        self._functions = model.functions
        self.with_sizes: set[str] = set()
        self.with_data: set[str] = set()

    def walk(self, graph: Graph, known: Mapping[str, _Value], prefix: str) -> dict[str, _Value]:
        """Determine the kind of every value of a graph.

        Args:
            graph: The graph, a subgraph or the body of a function.
            known: Values of the enclosing graphs, or the arguments of a function.
            prefix: Prefix of the names of its nodes in ONNX Runtime.
        """
        values = {name: _constant(elements) for name, elements in (graph.inputs | graph.initializers).items()}
        values |= known
        for node in graph.nodes:
            for subgraph in node.subgraphs:
                self.walk(subgraph, values, prefix)
            body = self._functions.get((node.domain, node.op_type, node.overload))
            if body is not None:
                arguments = [values.get(name, _Value.DATA) for name in node.inputs]
                inside = self.walk(body, dict(zip(body.inputs, arguments, strict=False)), f"_inlfunc_{node.op_type}_")
                values |= {out: inside[name] for out, name in zip(node.outputs, body.outputs, strict=False)}
                continue
            result = _result(node, [values.get(name, _Value.DATA) for name in node.inputs if name])
            values |= dict.fromkeys(node.outputs, result)
            if node.name:
                (self.with_sizes if result == _Value.SIZES else self.with_data).add(prefix + node.name)
        return values


def _constant(elements: int | None) -> _Value:
    return _Value.DATA if elements is None or elements > SMALL else _Value.SMALL


def _result(node: Node, inputs: Sequence[_Value]) -> _Value:
    """Return the kind of a node's outputs."""
    if node.domain not in _STANDARD:
        return _Value.DATA
    if node.op_type in _SIZES:
        return _Value.SIZES
    if node.op_type == "Constant":
        return _constant(node.elements)
    if inputs and min(inputs) > _Value.DATA and _ARITHMETIC.fullmatch(node.op_type):
        return max(inputs)
    return _Value.DATA
