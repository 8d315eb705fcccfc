"""From PyTorch operators to ONNX nodes, and from nodes to files that any runtime can run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import onnx

from visdeploy_plugins.errors import OpError
from visdeploy_plugins.onnx_functions.ms_deform_attn import OP_TYPE, ms_deform_attn_function, ms_deform_attn_schema

DOMAIN = "visdeploy"
VERSION = 1
IR_VERSION_WITH_OVERLOADS = 10


def register_schemas() -> None:
    """Makes our ops known to `onnx` in this process; calling it again does nothing."""
    if not onnx.defs.has(OP_TYPE, DOMAIN):
        onnx.defs.register_schema(ms_deform_attn_schema())


def translation_table() -> dict[Callable[..., Any], Callable[..., Any]]:
    """What `torch.onnx.export(dynamo=True, custom_translation_table=...)` needs to write our ops as custom nodes.

    Imports torch and onnxscript, defines the PyTorch operators and registers the schemas.
    """
    import onnxscript
    import torch

    import visdeploy_plugins.torch_ops  # noqa: F401  defines torch.ops.visdeploy

    register_schemas()
    opset = onnxscript.values.Opset(DOMAIN, VERSION)

    def ms_deform_attn(value: Any, shapes: Any, starts: Any, locations: Any, weights: Any) -> Any:
        return opset.MSDeformAttn(value, shapes, starts, locations, weights)

    return {torch.ops.visdeploy.ms_deform_attn.default: ms_deform_attn}


def add_function_bodies(model: onnx.ModelProto) -> onnx.ModelProto:
    """Gives each of our custom nodes a function body of standard operators, within the model.

    Args:
        model: A model with nodes of the domain `visdeploy`; left as it is.

    Returns:
        A copy with the bodies in `functions`. A model without such nodes comes back unchanged.

    Raises:
        OpError: A node's number of levels is not known from the graph, or the op is not one of ours.
    """
    model = onnx.ModelProto.FromString(model.SerializeToString())
    nodes = [node for node in _nodes(model.graph) if node.domain == DOMAIN]
    if not nodes:
        return model
    opset = next(each.version for each in model.opset_import if each.domain in ("", "ai.onnx"))
    overloads: dict[int, str] = {}
    register_schemas()
    shapes = _known_shapes(model)
    del model.functions[_functions_of_others(model) :]
    for node in nodes:
        levels = _levels(node, shapes)
        if levels not in overloads:
            # The first body keeps the plain name: only a model that mixes pyramids needs overloads (IR version 10).
            overloads[levels] = f"levels_{levels}" if overloads else ""
            model.functions.append(ms_deform_attn_function(levels, opset=opset, overload=overloads[levels]))
        node.overload = overloads[levels]
    if len(overloads) > 1:
        model.ir_version = max(model.ir_version, IR_VERSION_WITH_OVERLOADS)
    if not any(each.domain == DOMAIN for each in model.opset_import):
        model.opset_import.append(onnx.helper.make_opsetid(DOMAIN, VERSION))
    return model


def _functions_of_others(model: onnx.ModelProto) -> int:
    """Moves earlier bodies of ours to the end of the model's functions; returns how many are not ours."""
    others = [each for each in model.functions if each.domain != DOMAIN]
    ours = [each for each in model.functions if each.domain == DOMAIN]
    del model.functions[:]
    model.functions.extend(others + ours)
    return len(others)


def _nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    """All nodes of a graph and of the subgraphs of If, Loop and Scan."""
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            for subgraph in [attribute.g] if attribute.HasField("g") else attribute.graphs:
                yield from _nodes(subgraph)


def _known_shapes(model: onnx.ModelProto) -> dict[str, list[int]]:
    """Shapes of tensors whose dimensions are all known; -1 stands for a symbolic one."""
    graph = onnx.shape_inference.infer_shapes(model).graph
    shapes = {each.name: list(each.dims) for each in graph.initializer}
    for info in [*graph.input, *graph.value_info, *graph.output]:
        tensor = info.type.tensor_type
        if tensor.HasField("shape"):
            dims = tensor.shape.dim
            shapes[info.name] = [each.dim_value if each.HasField("dim_value") else -1 for each in dims]
    return shapes


def _levels(node: onnx.NodeProto, shapes: dict[str, list[int]]) -> int:
    if node.op_type != OP_TYPE:
        raise OpError(f"node {node.name} has no function body", seen=f"{DOMAIN}::{node.op_type}", expected=OP_TYPE)
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
