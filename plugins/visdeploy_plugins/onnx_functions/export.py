"""From PyTorch operators to ONNX nodes, and from nodes to files that any runtime can run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import onnx

from visdeploy_plugins.errors import OpError
from visdeploy_plugins.onnx_functions import deform_conv, masked_conv, ms_deform_attn, multi_level_roi_align
from visdeploy_plugins.onnx_functions.op import DOMAIN, VERSION, OnnxOp

# One line per op.
OPS: dict[str, OnnxOp] = {
    op.op_type: op
    for op in (
        deform_conv.OP,
        masked_conv.OP,
        ms_deform_attn.OP,
        ms_deform_attn.FUSED_OP,
        multi_level_roi_align.OP,
    )
}
IR_VERSION_WITH_OVERLOADS = 10


def register_schemas() -> None:
    """Makes our ops known to `onnx` in this process; calling it again does nothing."""
    # Refuses to be imported once two domains know an op of one name, as DeformConv.
    import onnx.reference

    for op in OPS.values():
        if not onnx.defs.has(op.op_type, DOMAIN):
            onnx.defs.register_schema(op.schema())


def translation_table() -> dict[Callable[..., Any], Callable[..., Any]]:
    """What `torch.onnx.export(dynamo=True, custom_translation_table=...)` needs to write our ops as custom nodes.

    Imports torch and onnxscript, defines the PyTorch operators and registers the schemas.
    """
    import onnxscript
    import torch

    import visdeploy_plugins.torch_ops  # noqa: F401  defines torch.ops.visdeploy

    register_schemas()
    opset = onnxscript.values.Opset(DOMAIN, VERSION)

    return {getattr(torch.ops.visdeploy, op.torch_name).default: op.translation(opset) for op in OPS.values()}


def add_function_bodies(model: onnx.ModelProto) -> onnx.ModelProto:
    """Gives each of our custom nodes a function body of standard operators, within the model.

    Args:
        model: A model with nodes of the domain `visdeploy`; left as it is.

    Returns:
        A copy with the bodies in `functions`. A model without such nodes comes back unchanged.

    Raises:
        OpError: The graph does not tell what a node's body depends on, or the op is not one of ours.
    """
    model = onnx.ModelProto.FromString(model.SerializeToString())
    nodes = [node for node in _nodes(model.graph) if node.domain == DOMAIN]
    if not nodes:
        return model
    opset = next(each.version for each in model.opset_import if each.domain in ("", "ai.onnx"))
    overloads: dict[tuple[str, str], str] = {}
    register_schemas()
    shapes = _known_shapes(model)
    del model.functions[_functions_of_others(model) :]
    for node in nodes:
        op = _op_of(node)
        variant = op.variant(node, shapes)
        key = (op.op_type, variant)
        if key not in overloads:
            # The first body keeps the plain name: only a model that mixes bodies of one op needs overloads.
            overloads[key] = variant if any(op.op_type == known for known, _ in overloads) else ""
            model.functions.append(_with_names(op.function(node, shapes, opset, overloads[key])))
        node.overload = overloads[key]
    if any(overloads.values()):
        model.ir_version = max(model.ir_version, IR_VERSION_WITH_OVERLOADS)
    if not any(each.domain == DOMAIN for each in model.opset_import):
        model.opset_import.append(onnx.helper.make_opsetid(DOMAIN, VERSION))
    return model


def _with_names(function: onnx.FunctionProto) -> onnx.FunctionProto:
    """Names the nodes of a body, so that engines that inline it can be asked where each of them went."""
    body = f"{function.name}.{function.overload}" if function.overload else function.name
    for number, node in enumerate(function.node):
        node.name = f"{body}/{node.op_type}_{number}"
    return function


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


def _op_of(node: onnx.NodeProto) -> OnnxOp:
    if node.op_type not in OPS:
        seen, expected = f"{DOMAIN}::{node.op_type}", " or ".join(OPS)
        raise OpError(f"node {node.name} has no function body", seen=seen, expected=expected)
    return OPS[node.op_type]
