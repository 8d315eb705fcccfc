"""Checked access to the entries of JSON files: every error names the file, the entry and the field."""

from __future__ import annotations

import errno
import json
import math
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias, TypeVar, overload

import numpy as np

from visdeploy.brief import shorten
from visdeploy.errors import DataError
from visdeploy.masks import Mask
from visdeploy.masks.run_length import read_fast

MAX_SIDE = 65_535
"""Maximum height or width of a frame or a mask, in pixels."""

MaskReader: TypeAlias = Callable[[str, Any], Mask | None]
"""Function that reads a mask, given the name of the field for error messages and its value."""

_MISSING: Any = object()
_Default = TypeVar("_Default")
_Item = TypeVar("_Item")


def read_json(path: Path) -> Any:
    """Parse a JSON file.

    Raises:
        DataError: The file is missing, unreadable or not JSON.
    """
    try:
        return json.loads(read_regular(path))
    except OSError as error:
        raise DataError(
            f"cannot read {path}", seen=error.strerror or str(error), hint="Check the path and its permissions."
        ) from error
    except (ValueError, RecursionError) as error:
        raise DataError(
            f"{path} is not valid JSON",
            seen=str(error)[:120],
            hint="The file is damaged or has another format; write it again.",
        ) from error


def read_regular(path: Path) -> bytes:
    """Return the content of a file. Pipes and devices are refused: reading them could block, or never end.

    Raises:
        OSError: The path is no file, or cannot be read.
    """
    mode = path.stat().st_mode
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise OSError(errno.EINVAL, "a pipe or a device")
    return path.read_bytes()


def plain(value: Any) -> Any:
    """Return NumPy numbers and arrays as Python numbers and lists, all other values unchanged."""
    return value.tolist() if isinstance(value, np.generic | np.ndarray) else value


def finite(value: Any) -> float | None:
    """Return a finite number as float; None for all other values."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        return None
    try:
        return float(value) if math.isfinite(value) else None
    except OverflowError:  # an integer of more than 308 digits
        return None


def is_absent(item: Any) -> bool:
    """Return whether an item of a list of masks marks a frame without the object: null, `[]` or `{}`."""
    return item is None or (isinstance(item, list | tuple | Mapping | np.ndarray) and len(item) == 0)


def has_no_runs(item: Any) -> bool:
    """Return whether an item is a run-length encoding without any run, which COCO reads as a mask without pixels."""
    counts = plain(item.get("counts")) if isinstance(item, Mapping) else None
    return isinstance(counts, str | bytes | bytearray | list | tuple) and not counts


@dataclass(frozen=True, slots=True)
class Entry:
    """JSON object and its location. A null field counts as missing; NumPy numbers and arrays count as JSON values.

    Attributes:
        where: File and entry for error messages, for example `valid.json: annotations[3]`.
        data: Fields of the object.
    """

    where: str
    data: Mapping[str, Any]

    @classmethod
    def of(cls, where: str, data: Any) -> Entry:
        """Wrap `data`, which must be a JSON object."""
        if not isinstance(data, Mapping):
            raise DataError(f"{where} is malformed", seen=type(data).__name__, expected="a JSON object")
        return cls(where, data)

    def fail(self, field: str, *, seen: Any, expected: str, hint: str = "") -> DataError:
        """Return an error about one field of this entry, for the caller to raise."""
        return DataError(f"{self.where}: field {field!r} is wrong", seen=str(seen)[:100], expected=expected, hint=hint)

    def has(self, field: str) -> bool:
        """Return whether the field exists and is not null."""
        return self.data.get(field) is not None

    def get(self, field: str, default: Any = _MISSING, *, expected: str = "", hint: str = "") -> Any:
        """Return a field unchecked; without a default it is required. `expected` and `hint` are for the error."""
        value = plain(self.data.get(field))
        if value is not None:
            return value
        if default is not _MISSING:
            return default
        raise DataError(
            f"{self.where}: field {field!r} is missing",
            seen="null" if field in self.data else f"fields {sorted(map(str, self.data))}",
            expected=expected,
            hint=hint or "The file has another layout, or was truncated.",
        )

    @overload
    def integer(self, field: str, *, minimum: int = 0, maximum: int = 2**53, hint: str = "") -> int: ...
    @overload
    def integer(
        self, field: str, *, minimum: int = 0, maximum: int = 2**53, default: _Default, hint: str = ""
    ) -> int | _Default: ...
    def integer(
        self, field: str, *, minimum: int = 0, maximum: int = 2**53, default: Any = _MISSING, hint: str = ""
    ) -> Any:
        """Return an integer in `minimum..maximum`; a float with an integral value such as 2.0 is accepted."""
        expected = f"a whole number from {minimum} up" if maximum == 2**53 else f"a whole number, {minimum}..{maximum}"
        value = self.get(field, default, expected=expected, hint=hint)
        if value is default:
            return value
        whole = isinstance(value, int) or (isinstance(value, float) and value.is_integer())
        if not whole or isinstance(value, bool) or not minimum <= value <= maximum:
            raise self.fail(field, seen=shorten(value), expected=expected, hint=hint)
        return int(value)

    @overload
    def number(self, field: str) -> float: ...
    @overload
    def number(self, field: str, default: _Default) -> float | _Default: ...
    def number(self, field: str, default: Any = _MISSING) -> Any:
        """Return a finite number."""
        value = self.get(field, default, expected="a finite number")
        if value is default:
            return value
        found = finite(value)
        if found is None:
            raise self.fail(field, seen=shorten(value), expected="a finite number")
        return found

    def flag(self, field: str, *, default: bool = False) -> bool:
        """Return a truth value, written as 0 or 1, false or true."""
        value = self.get(field, default)
        if not isinstance(value, int | float) or value not in (0, 1):
            raise self.fail(field, seen=shorten(value), expected="0 or 1")
        return bool(value)

    @overload
    def text(self, field: str) -> str: ...
    @overload
    def text(self, field: str, default: _Default) -> str | _Default: ...
    def text(self, field: str, default: Any = _MISSING) -> Any:
        """Return a string."""
        value = self.get(field, default, expected="a string")
        if value is not default and not isinstance(value, str):
            raise self.fail(field, seen=shorten(value), expected="a string")
        return value

    def sequence(
        self, field: str, *, length: int | None = None, default: Any = _MISSING, hint: str = ""
    ) -> Sequence[Any]:
        """Return a list, which must have `length` items if `length` is given."""
        value = self.get(field, default, expected="a list", hint=hint)
        if not isinstance(value, list | tuple):
            raise self.fail(field, seen=type(value).__name__, expected="a list", hint=hint)
        if length is not None and len(value) != length:
            raise self.fail(field, seen=f"{len(value)} items", expected=f"{length} items", hint=hint)
        return value

    @overload
    def list_of(self, field: str, kind: type[float]) -> tuple[float, ...]: ...
    @overload
    def list_of(self, field: str, kind: type[_Item]) -> tuple[_Item, ...]: ...
    def list_of(self, field: str, kind: Any) -> tuple[Any, ...]:
        """Return a list with items of one type, empty if the field is missing. Integers are accepted as floats."""
        value = [plain(v) for v in self.sequence(field, default=())]
        found = [finite(v) for v in value] if kind is float else value
        if any(not isinstance(v, kind) or isinstance(v, bool) for v in found):
            raise self.fail(field, seen=shorten(value), expected=f"a list of {kind.__name__}")
        return tuple(found)

    def entry(self, field: str) -> Entry:
        """Return the JSON object in a field."""
        return Entry.of(f"{self.where}: field {field!r}", self.get(field, expected="a JSON object"))

    def entries(self, field: str, default: Any = _MISSING) -> Iterator[Entry]:
        """Yield the JSON objects of a list, each with its location."""
        for index, item in enumerate(self.sequence(field, default=default)):
            yield Entry.of(f"{self.where}: {field}[{index}]", item)

    def mask(
        self,
        field: str,
        item: Any,
        height: int | None = None,
        width: int | None = None,
        *,
        hint: str = "Encode the mask again.",
    ) -> Mask:
        """Return a run-length encoded mask after a full check, also of its size if one is given.

        Args:
            field: Name of the field, for error messages.
            item: Run-length encoding in the field.
            height: Required rows of the mask, in pixels.
            width: Required columns of the mask, in pixels.
            hint: Advice for the error about a damaged mask.
        """
        if not isinstance(item, Mapping):
            raise self.fail(field, seen=shorten(item), expected="a run-length encoding with size and counts", hint=hint)
        try:
            mask = Mask.from_coco(item)
        except DataError as error:
            raise DataError(
                f"{self.where}: field {field!r} is wrong: {error.what}",
                seen=error.seen,
                expected=error.expected,
                hint=error.hint or hint,
            ) from error
        if max(mask.height, mask.width) > MAX_SIDE:
            raise self.fail(field, seen=f"mask of {mask.height}x{mask.width}", expected=f"sides up to {MAX_SIDE}")
        if height and width and (mask.height, mask.width) != (height, width):
            raise self.fail(
                field,
                seen=f"mask of {mask.height}x{mask.width}",
                expected=f"{height}x{width}, the size of the frame",
                hint="Masks must have the size of the frame; resize them.",
            )
        return mask

    def masks(
        self, field: str, *, length: int, height: int, width: int, read: MaskReader | None = None
    ) -> tuple[Mask | None, ...]:
        """Return the masks of a track, one item per frame, None where the object is absent: null, or an empty list.

        Args:
            field: Name of the list of run-length encodings.
            length: Frames of the video.
            height: Rows of the video's frames, in pixels.
            width: Columns of the video's frames, in pixels.
            read: Reader of items that are no well-formed run-length encoding, by default `mask`.
        """
        each = "Each frame of the video needs one item; write null where the object is absent."
        again = "Encode the mask again; write null where the object is absent."
        items = self.sequence(field, length=length, hint=each)
        read = read or partial(self.mask, height=height, width=width, hint=again)
        return tuple(
            mask if mask is not None or is_absent(item) else read(f"{field}[{i}]", item)
            for i, (item, mask) in enumerate(zip(items, read_fast(items, height, width), strict=True))
        )
