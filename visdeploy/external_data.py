"""Names of the files that contain the weights of an ONNX graph, without the onnx package.

An engine opens every file that the `external_data` of a tensor names. A bundle therefore checks these names before an
engine reads the graph. This module reads the few protobuf messages that contain tensors, and skips everything else.
"""

from __future__ import annotations

import mmap
from pathlib import Path

from visdeploy.errors import BundleError

_KEY = b"location"
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5

# message → field number → message of that field: the paths in onnx.proto from a model to its tensors
_PATHS: dict[str, dict[int, str]] = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "function": {7: "node", 11: "attribute"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "tensor": {13: "entry"},
    "entry": {1: "key", 2: "value"},
}


def external_files(model: Path) -> tuple[str, ...]:
    """Return the sorted names of the files in which the tensors of an ONNX file are stored, as the file spells them.

    Raises:
        BundleError: The file contains such names, but cannot be read completely.
    """
    if not model.stat().st_size:
        return ()
    with model.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        if data.find(_KEY) < 0:  # protobuf stores text unchanged, so without the word there is no location
            return ()
        try:
            return tuple(sorted(_locations(data)))
        except ValueError as error:
            raise BundleError(f"{model} is not a readable ONNX file", seen=str(error)) from error


def _locations(data: mmap.mmap) -> set[str]:
    found: set[str] = set()
    pending = [("model", 0, len(data))]
    while pending:
        kind, start, end = pending.pop()
        if kind == "entry":
            found |= _location(data, start, end)
        else:
            pending += [(inner, first, last) for inner, first, last in _fields(data, kind, start, end)]
    return found


def _location(data: mmap.mmap, start: int, end: int) -> set[str]:
    """Return every value of a key-value message whose key is `location`; repeated fields are all returned."""
    fields = [(inner, data[first:last]) for inner, first, last in _fields(data, "entry", start, end)]
    if ("key", _KEY) not in fields:
        return set()
    return {value.decode("utf-8") for inner, value in fields if inner == "value"}


def _fields(data: mmap.mmap, kind: str, start: int, end: int) -> list[tuple[str, int, int]]:
    """Return the fields of a message that lead to a tensor: message type, first byte, and end."""
    paths, found, place = _PATHS[kind], [], start
    while place < end:
        tag, place = _varint(data, place, end)
        number, wire = tag >> 3, tag & 7
        if wire == _VARINT:
            _, place = _varint(data, place, end)
            continue
        if wire == _BYTES:
            size, place = _varint(data, place, end)
        elif wire in (_FIXED64, _FIXED32):
            size = 8 if wire == _FIXED64 else 4
        else:
            raise ValueError(f"wire type {wire} at byte {place}")
        if place + size > end:
            raise ValueError(f"a field of {size} bytes at byte {place} passes the end of its message")
        if wire == _BYTES and number in paths:
            found.append((paths[number], place, place + size))
        place += size
    return found


def _varint(data: mmap.mmap, place: int, end: int) -> tuple[int, int]:
    """Return the number at `place`, and the position after it."""
    value = 0
    for shift in range(0, 70, 7):
        if place >= end:
            raise ValueError(f"the file ends within a number at byte {place}")
        byte = data[place]
        value |= (byte & 0x7F) << shift
        place += 1
        if byte < 0x80:
            return value, place
    raise ValueError(f"a number of more than 10 bytes at byte {place}")
