"""Damages to files and to JSON values, chosen by random numbers."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

Rng = np.random.Generator


def flip_bits(data: bytes, rng: Rng) -> bytes:
    """Flip 1 to 8 bits."""
    array = np.frombuffer(data, np.uint8).copy()
    for place in rng.integers(0, len(array), rng.integers(1, 9)):
        array[place] ^= 1 << int(rng.integers(8))
    return array.tobytes()


def cut(data: bytes, rng: Rng) -> bytes:
    """Cut the end off."""
    return data[: int(rng.integers(0, len(data)))]


def zero_block(data: bytes, rng: Rng) -> bytes:
    """Replace a block by zeros, as a download with holes has it."""
    start = int(rng.integers(0, len(data)))
    length = min(int(rng.integers(1, 4096)), len(data) - start)
    return data[:start] + bytes(length) + data[start + length :]


def remove_block(data: bytes, rng: Rng) -> bytes:
    """Remove some bytes."""
    start = int(rng.integers(0, len(data)))
    return data[:start] + data[start + int(rng.integers(1, 512)) :]


def insert_block(data: bytes, rng: Rng) -> bytes:
    """Insert random bytes."""
    start = int(rng.integers(0, len(data)))
    return data[:start] + rng.bytes(int(rng.integers(1, 512))) + data[start:]


def double_block(data: bytes, rng: Rng) -> bytes:
    """Repeat a block."""
    start = int(rng.integers(0, len(data)))
    return data[: start + int(rng.integers(1, 4096))] + data[start:]


def append(data: bytes, rng: Rng) -> bytes:
    """Append random bytes."""
    return data + rng.bytes(int(rng.integers(1, 4096)))


def to_text(data: bytes, rng: Rng) -> bytes:
    """Replace line feeds as a transfer in text mode does."""
    return data.replace(b"\n", b"\r\n") if rng.integers(2) else data.replace(b"\r\n", b"\n")


def web_page(data: bytes, rng: Rng) -> bytes:
    """Return the page that a server sends instead of the file."""
    page = b"<!DOCTYPE html><html><body>Quota exceeded</body></html>"
    return page if rng.integers(2) else page + data[: int(rng.integers(0, len(data)))]


def nothing(data: bytes, rng: Rng) -> bytes:
    """Leave nothing, or a few bytes."""
    return data[: int(rng.integers(0, 16))] if rng.integers(2) else b""


BYTES: tuple[Callable[[bytes, Rng], bytes], ...] = (
    flip_bits, cut, zero_block, remove_block, insert_block, double_block, append, to_text, web_page, nothing,
)  # fmt: skip


def damage_file(path: Path, number: int, rng: Rng) -> str:
    """Damage a file in place and return what was done."""
    change = BYTES[number % len(BYTES)]
    path.write_bytes(change(path.read_bytes(), rng))
    return change.__name__.replace("_", " ")


ODD_VALUES: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2.5, -0.0, 1e308, float("nan"), float("inf"), -float("inf"), 2**31, 2**53 + 1, 2**63,
    -(2**63) - 1, 10**400, "", "x", "0", "1e5", "NaN", "\u0000", "\ud83d", "../../etc/passwd", "a" * 100_000,
    "\u202e\u200bname", [], {}, [[]], [None], {"": None}, {"a": {"b": {}}}, [0] * 10_000, [float("nan")] * 4, "Ω" * 300,
)  # fmt: skip
"""JSON values of every type, at and beyond the limits of what readers expect."""


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the paths to all values inside a JSON value."""
    found: list[tuple[Any, ...]] = []
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        found += [(*path, key), *places(inner, (*path, key))]
    return found


def change_json(value: Any, rng: Rng) -> tuple[Any, str]:
    """Return a copy of a JSON value with one place changed, and what was done."""
    value = copy.deepcopy(value)
    found = places(value)
    # few places at the top, thousands of numbers below: every depth is met alike
    depths = sorted({len(place) for place in found})
    depth = depths[int(rng.integers(len(depths)))]
    place = (same := [p for p in found if len(p) == depth])[int(rng.integers(len(same)))]
    holder = value
    for key in place[:-1]:
        holder = holder[key]
    key, where = place[-1], "/".join(map(str, place))
    match int(rng.integers(8)):
        case 0:
            del holder[key]
            return value, f"without {where}"
        case 1 if isinstance(holder, list):
            holder.append(copy.deepcopy(holder[key]))
            return value, f"{where} twice"
        case 1 | 2 if isinstance(holder, dict):
            holder[f"{key}_of_another_tool"] = holder[key]
            return value, f"a copy of {where} under another name"
        case 3:
            holder[key] = [holder[key]]
            return value, f"{where} in a list"
        case 4:
            holder[key] = str(holder[key])
            return value, f"{where} as text"
        case _:
            odd = ODD_VALUES[int(rng.integers(len(ODD_VALUES)))]
            holder[key] = odd
            return value, f"{where} = {str(odd)[:30]!r}"


def deep_json(rng: Rng) -> str:
    """Return JSON text that is nested deeper than parsers recurse."""
    depth = int(rng.integers(500, 200_000))
    return ("[" * depth + "]" * depth) if rng.integers(2) else '{"a":' * depth + "1" + "}" * depth


def write_json(path: Path, value: Any, rng: Rng) -> str:
    """Write JSON in one of the ways in which tools write it, and say which."""
    text = json.dumps(value, allow_nan=True, ensure_ascii=bool(rng.integers(2)))
    match int(rng.integers(4)):
        case 0:
            path.write_bytes(b"\xef\xbb\xbf" + text.encode(errors="surrogatepass"))
            return "with a byte order mark"
        case 1:
            path.write_bytes(text.encode("utf-16", errors="surrogatepass"))
            return "as UTF-16"
        case _:
            path.write_bytes(text.encode(errors="surrogatepass"))
            return "as UTF-8"
