"""Program that torch traced: execution node by node, and matching with the values of the ONNX graph by name."""

from __future__ import annotations

import operator
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import onnx
import torch
from torch import Tensor
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind
from torch.fx import Interpreter, Node

from visdeploy.errors import ExportError


class TorchRun(Interpreter):
    """Run of a program in PyTorch, one node at a time. Values are deleted after their last use.

    Args:
        program: Program with its weights and constants.
        inputs: Values of its other inputs, in order.
    """

    def __init__(self, program: ExportedProgram, inputs: Sequence[Tensor]) -> None:
        super().__init__(program.graph_module)
        self.args_iter = iter(_arguments(program, inputs))

    def advance(self, node: Node) -> Any:
        """Compute the next node, in the order of the graph."""
        with torch.inference_mode():
            self.env[node] = self.run_node(node)
        return self.env[node]

    def replace(self, node: Node, value: Tensor) -> None:
        """Replace the value of a node for the nodes that follow."""
        self.env[node] = value

    def forget(self, node: Node) -> None:
        """Delete the values that no node after this one reads."""
        for last in self.user_to_last_uses.get(node, ()):
            self.env.pop(last, None)


def computed(program: ExportedProgram) -> Iterator[Node]:
    """Iterate over all nodes in order, except the output."""
    return (node for node in program.graph_module.graph.nodes if node.op != "output")


def run_program(program: ExportedProgram, inputs: Sequence[Tensor]) -> Sequence[Tensor]:
    """Run a program with its weights and constants, and return its outputs."""
    outputs: Sequence[Tensor] = Interpreter(program.graph_module).run(*_arguments(program, inputs))
    return outputs


def value_shapes(program: ExportedProgram, inputs: Sequence[Tensor]) -> dict[str, Tensor]:
    """Run a program, and return a tensor without data for each of its values, by the name of its node."""
    run, found = TorchRun(program, inputs), {}
    for node in computed(program):
        value = run.advance(node)
        if isinstance(value, Tensor):
            found[node.name] = torch.empty_like(value, device="meta")
        run.forget(node)
    return found


def align(program: ExportedProgram, model: onnx.ModelProto) -> dict[str, str]:
    """Find the ONNX value of every node that has one.

    The exporter gives a value the name of its node, even if its optimiser fuses or replaces the operators that compute
    it. Values that the optimiser removed have no counterpart.

    Returns:
        Name of the node → name of the ONNX value, each value once.
    """
    values = {name for node in model.graph.node for name in node.output}
    results = program.graph_signature.output_specs
    outputs = {spec.arg.name: value.name for spec, value in zip(results, model.graph.output, strict=True)}
    found = {}
    for node in computed(program):
        if node.op != "call_function":
            continue
        names = [outputs.get(node.name, node.name), node.name]
        if node.target is operator.getitem and isinstance(node.args[0], Node):
            source, index = node.args[0].name, node.args[1]
            names += [f"{source}__{index}", f"{source}_split_{index}"]
        if there := [name for name in names if name in values]:
            found[node.name] = there[0]
            values.remove(there[0])
    return found


def folded(node: Node, aligned: Collection[str]) -> list[Node]:
    """Return the operations between a node and the nearest aligned values before it, in the order of the graph.

    Only operations on tensors are returned; arithmetic with sizes belongs to no layer.
    """
    found: dict[Node, None] = {}
    ahead = list(node.all_input_nodes)
    while ahead:
        each = ahead.pop()
        is_tensor = not isinstance(each.meta.get("val"), torch.SymInt | torch.SymBool | torch.SymFloat | int | bool)
        if each.op == "call_function" and each.name not in aligned and is_tensor and each not in found:
            found[each] = None
            ahead += each.all_input_nodes
    return sorted(found)


def layer_of(node: Node) -> str:
    """Return the path of the module that a node belongs to; empty for the step function."""
    stack: Mapping[str, tuple[str, Any]] = node.meta.get("nn_module_stack") or {}
    return next((path for path, _ in reversed(list(stack.values())) if path), "")


def operation(node: Node) -> str:
    """Return the name of the operator of a node, without namespace and overload."""
    target = node.target
    return target.__name__.split(".")[0] if callable(target) and hasattr(target, "__name__") else str(target)


def _arguments(program: ExportedProgram, inputs: Sequence[Tensor]) -> list[Any]:
    """Return all arguments of the traced graph, in order.

    Raises:
        ExportError: An argument is neither a tensor of the network nor an input.
    """
    own, found = iter(inputs), []
    for spec in program.graph_signature.input_specs:
        if spec.kind is InputKind.USER_INPUT:
            found.append(next(own))
        elif spec.target in program.state_dict:
            found.append(program.state_dict[spec.target])
        elif spec.target in program.constants:
            found.append(program.constants[spec.target])
        else:
            raise ExportError("the traced graph takes an input of an unknown kind", seen=f"{spec.kind} {spec.target}")
    return found
