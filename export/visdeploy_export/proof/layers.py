"""Comparison of the activations of one step in PyTorch and in ONNX Runtime, layer by layer.

The criterion is the own difference of a layer: PyTorch computes the layer from the values of the engine for its inputs,
and the result is compared. Errors of earlier layers therefore do not count, even if later layers amplify them. The
fault is in the first layer whose own difference exceeds rounding errors.

Neither engine keeps all activations: both go through the graph together. Held at a time are the values that later nodes
read, of the engine and of two runs in PyTorch, at most `PART` bytes of the engine's other values (one value, where it
is larger), and a few copies of the one that is compared.
"""

from __future__ import annotations

import operator
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import torch
from torch import Tensor
from torch.export import ExportedProgram
from torch.fx import Node

from visdeploy_export.proof.layer_report import BOUND, ROUNDING, Difference, LayerReport, LayerRow
from visdeploy_export.proof.onnx_parts import StartSession, run_parts
from visdeploy_export.proof.traced import TorchRun, align, computed, folded, layer_of, operation, value_shapes

Array = npt.NDArray[Any]
PART = 1 << 28
"""Bytes of the values of the engine that are compared together."""


def compare_layers(
    program: ExportedProgram,
    model: onnx.ModelProto,
    inputs: Mapping[str, Array],
    start: StartSession,
    *,
    limit: int = PART,
) -> LayerReport:
    """Compare the activations of one step.

    Args:
        program: Program that torch traced.
        model: ONNX graph that was exported from it, with its weights.
        inputs: Graph input → array, including the state.
        start: Function that starts the engine under test.
        limit: Bytes of the values of the engine to compare together.
    """
    tensors = [torch.from_numpy(np.array(inputs[value.name])) for value in model.graph.input]
    shapes = value_shapes(program, tensors)
    names = {node: value for node, value in align(program, model).items() if node in shapes}
    sizes = {value: shapes[node].nbytes for node, value in names.items()}
    engine = _Values(run_parts(model, inputs, sizes, limit, start))
    free, forced = TorchRun(program, tensors), TorchRun(program, tensors)
    rows: list[LayerRow] = []
    for node in computed(program):
        reference = free.advance(node)
        try:
            own = forced.advance(node)
        except (RuntimeError, IndexError, ValueError, AssertionError) as error:
            why = f"PyTorch cannot compute {node.name} from the engine's values: {str(error).splitlines()[0]}"
            return LayerReport(tuple(rows), stopped=why)
        if node.name in names:
            found = engine.take(names[node.name])
            parts = folded(node, names)
            rows.append(_row(len(rows), node, parts, (reference, own, found), _bound(node, parts, shapes)))
            if own.shape != found.shape:
                why = f"{node.name} has another shape in the engine, and so has what is computed from it"
                return LayerReport(tuple(rows), stopped=why)
            forced.replace(node, torch.from_numpy(found).to(own.dtype))
        free.forget(node)
        forced.forget(node)
    return LayerReport(tuple(rows), _without_row(program, names))


class _Values:
    """Values of the engine, in any order."""

    def __init__(self, parts: Iterator[dict[str, Array]]) -> None:
        self._parts = parts
        self._held: dict[str, Array] = {}

    def take(self, name: str) -> Array:
        """Return a value. Each value can be taken once."""
        while name not in self._held:
            self._held |= next(self._parts)
        return self._held.pop(name)


def _bound(node: Node, parts: Sequence[Node], shapes: Mapping[str, Tensor]) -> float:
    """Return the limit of rounding errors of a layer: `BOUND`, or one rounding for each term of its sums."""
    if not shapes[node.name].is_floating_point():
        return 0.0
    reads = {each.name for part in (*parts, node) for each in part.all_input_nodes}
    most = max((shapes[name].numel() for name in reads if name in shapes), default=0)
    return max(BOUND, ROUNDING * most / max(1, shapes[node.name].numel()))


def _row(order: int, node: Node, parts: Sequence[Node], values: tuple[Tensor, Tensor, Array], bound: float) -> LayerRow:
    reference, computed_alone, engine = values
    own, layer = difference(computed_alone, engine), layer_of(node)
    wrong = own.share > bound
    if wrong and not own.note and _is_position(node):
        own, wrong = Difference(own.error, own.share, "equal values may be sorted in any order"), False
    else:
        wrong |= bool(own.note)
    return LayerRow(
        order=order,
        name=node.name,
        layer=layer,
        op=" + ".join(operation(each) for each in (*parts, node) if each.target is not operator.getitem),
        includes=tuple(dict.fromkeys(path for each in parts if (path := layer_of(each)) not in ("", layer))),
        shape=tuple(reference.shape),
        dtype=str(reference.dtype).removeprefix("torch."),
        total=difference(reference, engine),
        own=own,
        differs=wrong,
    )


def _is_position(node: Node) -> bool:
    """Return whether a node returns the positions of sorted values; the values themselves are compared separately."""
    source = node.args[0] if node.target is operator.getitem else None
    return isinstance(source, Node) and node.args[1:] == (1,) and operation(source) in ("topk", "sort")


def difference(reference: Tensor, engine: Array) -> Difference:
    """Compare two values of one activation; equal infinities and NaN on both sides are equal."""
    left, right = reference.detach().numpy(), np.asarray(engine)  # a view of a weight still requires a gradient
    if left.shape != right.shape:
        return Difference(np.inf, np.inf, f"shape {list(left.shape)} in PyTorch, {list(right.shape)} in the engine")
    note = "" if left.dtype == right.dtype else f"{left.dtype} in PyTorch, {right.dtype} in the engine"
    if not left.size:
        return Difference(0.0, 0.0, note)
    with np.errstate(invalid="ignore", over="ignore"):
        wide = np.float64 if left.dtype.kind != "f" or left.dtype.itemsize > 4 else np.float32
        errors = np.abs(left.astype(wide) - right.astype(wide))
    errors = np.where((left == right) | (np.isnan(left) & np.isnan(right)), 0, errors)
    if left.dtype.kind != "f":
        return Difference(float(errors.max()), float(np.count_nonzero(errors) / errors.size), note)
    if count := int(np.count_nonzero(~np.isfinite(errors))):
        return Difference(np.inf, np.inf, note or f"{count} of {left.size} values are finite on one side only")
    error, largest = float(errors.max()), float(np.abs(np.where(np.isfinite(left), left, 0)).max())
    return Difference(error, error / largest if largest else float(error > 0), note)


def _without_row(program: ExportedProgram, names: Mapping[str, str]) -> tuple[str, ...]:
    """Return the nodes whose result is a tensor that other nodes read, and that are part of no row."""
    nodes = [node for node in computed(program) if node.op == "call_function"]
    covered = {each.name for node in nodes if node.name in names for each in (node, *folded(node, names))}
    return tuple(n.name for n in nodes if n.name not in covered and n.users and isinstance(n.meta.get("val"), Tensor))
