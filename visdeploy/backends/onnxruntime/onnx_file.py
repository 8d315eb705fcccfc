"""Reader of the nodes of an ONNX file without the onnx package: names, operators and edges, but no weights.

The file is the protobuf message `ModelProto` of the ONNX standard; the field numbers below are those of the standard.
"""

from __future__ import annotations

import math
import mmap
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from visdeploy.errors import BundleError

_Buffer = memoryview
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


@dataclass(frozen=True)
class Node:
    """Node of a graph.

    Attributes:
        name: Name of the node; may be empty.
        op_type: Name of the operator.
        domain: Domain of the operator; empty for standard operators.
        overload: Overload name, which distinguishes functions of the same name.
        inputs: Names of the input tensors, empty for an omitted optional input.
        outputs: Names of the output tensors.
        elements: Number of elements of the tensors in its attributes, for example of a Constant.
        subgraphs: Graphs in its attributes (If, Loop, Scan).
    """

    name: str
    op_type: str
    domain: str
    overload: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    elements: int
    subgraphs: tuple[Graph, ...]


@dataclass(frozen=True)
class Graph:
    """Graph, or body of a function, which has no initializers.

    Attributes:
        inputs: Map from the name of an input to its number of elements; None if the file does not state it.
        outputs: Names of the outputs.
        initializers: Map from the name of an initializer to its number of elements.
        nodes: Nodes in topological order.
    """

    inputs: dict[str, int | None]
    outputs: tuple[str, ...]
    initializers: dict[str, int]
    nodes: tuple[Node, ...]


@dataclass(frozen=True)
class Model:
    """Graph of a file, and the bodies of its functions by (domain, name, overload)."""

    graph: Graph
    functions: dict[tuple[str, str, str], Graph]


def read_onnx(path: Path) -> Model:
    """Read the nodes of an ONNX file.

    Raises:
        BundleError: It cannot be read, or is not an ONNX file.
    """
    try:
        with path.open("rb") as file:
            # mapped into memory, because most of the file is weights, which are skipped
            return _model(memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)))
    except (OSError, ValueError, IndexError, RecursionError) as error:
        raise BundleError(f"{path} cannot be read as ONNX", seen=str(error), hint="Export the bundle again.") from error


def _model(view: _Buffer) -> Model:
    fields = _fields(view)
    functions = {}
    for each in fields[25]:
        function = _fields(each)
        key = (_text(function[10]), _text(function[1]), _text(function[13]))
        nodes = tuple(_node(node) for node in function[7])
        functions[key] = Graph(dict.fromkeys(_texts(function[4])), _texts(function[5]), {}, nodes)
    if not fields[7]:
        raise ValueError("it holds no graph")
    return Model(_graph(fields[7][-1]), functions)


def _graph(view: _Buffer) -> Graph:
    fields = _fields(view)
    inputs = dict(_value(each) for each in fields[11])
    outputs = tuple(_value(each)[0] for each in fields[12])
    initializers = dict(_tensor(each) for each in fields[5])
    return Graph(inputs, outputs, initializers, tuple(_node(node) for node in fields[1]))


def _node(view: _Buffer) -> Node:
    fields = _fields(view)
    attributes = [_fields(each) for each in fields[5]]
    subgraphs = tuple(_graph(graph) for each in attributes for graph in (*each[6], *each[11]))
    elements = sum(_tensor(tensor)[1] for each in attributes for tensor in each[5])
    name, op_type, domain, overload = (_text(fields[number]) for number in (3, 4, 7, 8))
    return Node(name, op_type, domain, overload, _texts(fields[1]), _texts(fields[2]), elements, subgraphs)


def _value(view: _Buffer) -> tuple[str, int | None]:
    """Return name and number of elements of an input or output of a graph; None if a dimension is symbolic."""
    fields = _fields(view)
    name, elements = _text(fields[1]), 1
    shapes = [shape for kind in fields[2] for tensor in _fields(kind)[1] for shape in _fields(tensor)[2]]
    if len(shapes) != 1:
        return name, None
    for dim in _fields(shapes[0])[1]:
        sizes = [value for number, kind, value, _ in _read(dim) if number == 1 and kind == _VARINT]
        if not sizes:
            return name, None
        elements *= sizes[-1]
    return name, elements


def _tensor(view: _Buffer) -> tuple[str, int]:
    """Return name and number of elements of a tensor; its dimensions are separate fields, or packed into one."""
    dims: list[int] = []
    name = ""
    for number, kind, value, data in _read(view):
        if number == 1 and kind == _VARINT:
            dims.append(value)
        elif number == 1 and kind == _BYTES:
            at = 0
            while at < len(data):
                size, at = _varint(data, at)
                dims.append(size)
        elif number == 8 and kind == _BYTES:
            name = str(data, "utf-8")
    return name, math.prod(dims)


def _fields(view: _Buffer) -> defaultdict[int, list[_Buffer]]:
    """Return the fields of a message that are messages or texts, by number."""
    fields: defaultdict[int, list[_Buffer]] = defaultdict(list)
    for number, kind, _, data in _read(view):
        if kind == _BYTES:
            fields[number].append(data)
    return fields


def _read(view: _Buffer) -> Iterator[tuple[int, int, int, _Buffer]]:
    """Iterate over number, kind, integer value and bytes of all fields of a message.

    Raises:
        ValueError: The message is damaged.
        IndexError: It ends within a field.
    """
    at = 0
    while at < len(view):
        tag, at = _varint(view, at)
        number, kind = tag >> 3, tag & 7
        value, size = 0, 0
        if kind == _VARINT:
            value, at = _varint(view, at)
        elif kind == _BYTES:
            size, at = _varint(view, at)
        elif kind in (_FIXED64, _FIXED32):
            size = 8 if kind == _FIXED64 else 4
        else:
            raise ValueError(f"a field of kind {kind}")
        if at + size > len(view):
            raise ValueError("it ends within a field")
        yield number, kind, value, view[at : at + size]
        at += size


def _varint(view: _Buffer, at: int) -> tuple[int, int]:
    """Return an integer, and the position after it."""
    value = 0
    for shift in range(0, 70, 7):
        byte = view[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise ValueError("an integer of more than ten bytes")


def _text(found: list[_Buffer]) -> str:
    return str(found[-1], "utf-8") if found else ""


def _texts(found: list[_Buffer]) -> tuple[str, ...]:
    return tuple(str(each, "utf-8") for each in found)
