"""Execution of an ONNX graph in parts, which gives access to every intermediate value in bounded memory."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper

Array = npt.NDArray[Any]


class Session(Protocol):
    """Interface of `onnxruntime.InferenceSession` that is used here."""

    def run(self, output_names: list[str], input_feed: dict[str, Array]) -> list[Array]:
        """Return the values of the outputs."""


class StartSession(Protocol):
    """Function that starts the engine under test on an ONNX file."""

    def __call__(self, path: Path, /) -> Session:
        """Return a session with the options and operators of the engine under test."""


@dataclass
class _Part:
    """Nodes that are run together."""

    nodes: list[onnx.NodeProto] = field(default_factory=list)
    wanted: list[str] = field(default_factory=list)
    size: int = 0


def run_parts(
    model: onnx.ModelProto, inputs: Mapping[str, Array], sizes: Mapping[str, int], limit: int, start: StartSession
) -> Iterator[dict[str, Array]]:
    """Run a graph in parts, and yield the requested values of each part in topological order.

    Each node runs once, and values that later parts read are kept. The engine cannot fuse two nodes if the value
    between them is requested.

    Args:
        model: Graph with its weights.
        inputs: Values of its inputs.
        sizes: Name of each requested value → its expected size in bytes.
        limit: Maximum size of the requested values of a part, in bytes; a larger single value is a part of its own.
        start: Function that starts the engine.
    """
    last_use = {name: i for i, node in enumerate(model.graph.node) for name in _reads(node)}
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    live, done = dict(inputs), 0
    for part in _cut(model, sizes, limit):
        done += len(part.nodes)
        made = {name for node in part.nodes for name in node.output if name}
        kept = [name for name in made if last_use.get(name, -1) >= done]
        outputs = sorted({*part.wanted, *kept})
        if outputs:
            values = _run(model, part.nodes, weights, live, outputs, start)
            live |= {name: values[name] for name in kept}
            yield {name: values[name] for name in part.wanted}
        live = {name: value for name, value in live.items() if last_use.get(name, -1) >= done}


def _cut(model: onnx.ModelProto, sizes: Mapping[str, int], limit: int) -> Iterator[_Part]:
    part = _Part()
    for node in model.graph.node:
        wanted = [name for name in node.output if name in sizes]
        size = sum(sizes[name] for name in wanted)
        if part.size and part.size + size > limit:
            yield part
            part = _Part()
        part.nodes.append(node)
        part.wanted += wanted
        part.size += size
    yield part


def _run(
    model: onnx.ModelProto,
    nodes: Sequence[onnx.NodeProto],
    weights: Mapping[str, onnx.TensorProto],
    live: Mapping[str, Array],
    outputs: list[str],
    start: StartSession,
) -> dict[str, Array]:
    reads = dict.fromkeys(name for node in nodes for name in _reads(node))
    feeds = {name: live[name] for name in reads if name in live}
    graph = helper.make_graph(
        nodes,
        "part",
        [_describe(name, value) for name, value in feeds.items()],
        [onnx.ValueInfoProto(name=name) for name in outputs],
        initializer=[weights[name] for name in reads if name in weights],
    )
    part = helper.make_model(
        graph, opset_imports=model.opset_import, functions=model.functions, ir_version=model.ir_version
    )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "part.onnx"
        onnx.save_model(part, str(path))
        session = start(path)
    return dict(zip(outputs, session.run(outputs, feeds), strict=True))


def _describe(name: str, value: Array) -> onnx.ValueInfoProto:
    kind = helper.np_dtype_to_tensor_dtype(np.asarray(value).dtype)
    return helper.make_tensor_value_info(name, kind, value.shape)


def _reads(node: onnx.NodeProto) -> set[str]:
    """Return the values that a node reads, including those of graphs in its attributes (branches of an `If`)."""
    names = {name for name in node.input if name}
    for attribute in node.attribute:
        for graph in (attribute.g, *attribute.graphs):
            names.update(*(_reads(inner) for inner in graph.node))
    return names
