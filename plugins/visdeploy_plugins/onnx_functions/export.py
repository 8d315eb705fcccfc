"""Export of PyTorch operators to ONNX nodes, with function bodies so that any runtime can run the files."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import onnx

from visdeploy_plugins.errors import OpError
from visdeploy_plugins.onnx_functions import deform_conv, masked_conv, ms_deform_attn, multi_level_roi_align
from visdeploy_plugins.onnx_functions.op import DOMAIN, VERSION, OnnxOp

# all operators, one line each
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
    """Register the schemas of the operators with `onnx` in this process; further calls have no effect."""
    # must be imported first: the import fails once two domains have an op of the same name, such as DeformConv
    import onnx.reference

    for op in OPS.values():
        if not onnx.defs.has(op.op_type, DOMAIN):
            onnx.defs.register_schema(op.schema())


def translation_table() -> dict[Callable[..., Any], Callable[..., Any]]:
    """Return the `custom_translation_table` with which `torch.onnx.export` writes the operators as custom nodes.

    It applies to `dynamo=True`. This function imports torch and onnxscript, defines the PyTorch operators and registers
    the schemas.
    """
    import onnxscript
    import torch

    import visdeploy_plugins.torch_ops  # noqa: F401  defines torch.ops.visdeploy

    register_schemas()
    opset = onnxscript.values.Opset(DOMAIN, VERSION)

    return {getattr(torch.ops.visdeploy, op.torch_name).default: op.translation(opset) for op in OPS.values()}


def add_function_bodies(model: onnx.ModelProto) -> onnx.ModelProto:
    """Add a function body of standard operators to a model for each node of the domain `visdeploy`.

    Args:
        model: A model with nodes of the domain `visdeploy`; it is not modified.

    Returns:
        A copy with the bodies in `functions`. For a model without such nodes the copy has no changes.

    Raises:
        OpError: A property that determines the body of a node is not known from the graph, or the op is unknown.
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
            # The first body has no overload name: only a model with several bodies of one op needs overloads.
            overloads[key] = variant if any(op.op_type == known for known, _ in overloads) else ""
            model.functions.append(_with_names(op.function(node, shapes, opset, overloads[key])))
        node.overload = overloads[key]
    if any(overloads.values()):
        model.ir_version = max(model.ir_version, IR_VERSION_WITH_OVERLOADS)
    if not any(each.domain == DOMAIN for each in model.opset_import):
        model.opset_import.append(onnx.helper.make_opsetid(DOMAIN, VERSION))
    return model


def _with_names(function: onnx.FunctionProto) -> onnx.FunctionProto:
    """Name the nodes of a body, so that they can be found in engines that inline it."""
    body = f"{function.name}.{function.overload}" if function.overload else function.name
    for number, node in enumerate(function.node):
        node.name = f"{body}/{node.op_type}_{number}"
    return function


def _functions_of_others(model: onnx.ModelProto) -> int:
    """Move the functions of the domain `visdeploy` to the end, and return the number of other functions."""
    others = [each for each in model.functions if each.domain != DOMAIN]
    ours = [each for each in model.functions if each.domain == DOMAIN]
    del model.functions[:]
    model.functions.extend(others + ours)
    return len(others)


def _nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    """Iterate over all nodes of a graph and of its subgraphs in If, Loop and Scan."""
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            for subgraph in [attribute.g] if attribute.HasField("g") else attribute.graphs:
                yield from _nodes(subgraph)


def _known_shapes(model: onnx.ModelProto) -> dict[str, list[int]]:
    """Return the shapes of tensors whose rank is known; -1 denotes a symbolic dimension."""
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
