"""Checked access to the entries of JSON files: every error names the file, the entry and the field."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from visdeploy.errors import DataError
from visdeploy.evaluation.rle import read_fast
from visdeploy.masks import Mask

MISSING: Any = object()


def read_json(path: Path) -> Any:
    """Parse a JSON file.

    Raises:
        DataError: The file is missing, unreadable or not JSON.
    """
    try:
        return json.loads(path.read_bytes())
    except OSError as error:
        raise DataError(
            f"cannot read {path}", seen=error.strerror or str(error), hint="Check the path and its permissions."
        ) from error
    except (ValueError, RecursionError) as error:
        raise DataError(
            f"{path} is not valid JSON", seen=str(error)[:120], hint="The file is damaged or of another kind."
        ) from error


@dataclass(frozen=True, slots=True)
class Entry:
    """One JSON object and the place it came from.

    Attributes:
        where: File and entry, as error messages name them, for example `valid.json: annotations[3]`.
        data: The object.
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
        """The error for one field of this entry, for the caller to raise."""
        return DataError(f"{self.where}: field {field!r} is wrong", seen=str(seen)[:100], expected=expected, hint=hint)

    def get(self, field: str, default: Any = MISSING) -> Any:
        """A field as it is; without a default the field must be there."""
        if field in self.data:
            return self.data[field]
        if default is MISSING:
            raise DataError(
                f"{self.where}: field {field!r} is missing",
                seen=f"fields {sorted(map(str, self.data))}",
                hint="The file is not in YouTube-VIS layout, or was cut while it was written.",
            )
        return default

    def integer(self, field: str, *, minimum: int, default: Any = MISSING, hint: str = "") -> int:
        """An integer field of at least `minimum`."""
        value = self.get(field, default)
        if not isinstance(value, int) or isinstance(value, bool) or value < minimum:
            raise self.fail(field, seen=repr(value), expected=f"an integer from {minimum} up", hint=hint)
        return value

    def number(self, field: str) -> float:
        """A finite number."""
        value = self.get(field)
        if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
            raise self.fail(field, seen=repr(value), expected="a finite number")
        return float(value)

    def text(self, field: str, default: Any = MISSING) -> str:
        """A string."""
        value = self.get(field, default)
        if not isinstance(value, str):
            raise self.fail(field, seen=repr(value), expected="a string")
        return value

    def sequence(self, field: str, *, length: int | None = None, hint: str = "") -> Sequence[Any]:
        """A list, of `length` items where that is given."""
        value = self.get(field)
        if not isinstance(value, list | tuple):
            raise self.fail(field, seen=type(value).__name__, expected="a list", hint=hint)
        if length is not None and len(value) != length:
            raise self.fail(field, seen=f"{len(value)} items", expected=f"{length} items", hint=hint)
        return value

    def entries(self, field: str) -> Iterator[Entry]:
        """The objects of a list, each knowing its place."""
        for index, item in enumerate(self.sequence(field)):
            yield Entry.of(f"{self.where}: {field}[{index}]", item)

    def masks(self, field: str, *, length: int, height: int, width: int) -> tuple[Mask | None, ...]:
        """Masks of one track, one item a frame, None where the object is absent.

        Args:
            field: Name of the list of run-length encodings.
            length: Frames of the video.
            height: Rows of the video's frames, in pixels.
            width: Columns of the video's frames, in pixels.
        """
        hint = "Each frame of the video needs one item; write null where the object is absent."
        items = self.sequence(field, length=length, hint=hint)
        return tuple(
            mask if mask is not None or item is None else self._mask(f"{field}[{frame}]", item, height, width)
            for frame, (item, mask) in enumerate(zip(items, read_fast(items, height, width), strict=True))
        )

    def _mask(self, field: str, item: Any, height: int, width: int) -> Mask:
        if not isinstance(item, Mapping):
            raise self.fail(field, seen=repr(item)[:60], expected="null or a run-length encoding with size and counts")
        try:
            mask = Mask.from_coco(item)
        except DataError as error:
            raise DataError(
                f"{self.where}: field {field!r} is wrong: {error.what}",
                seen=error.seen,
                expected=error.expected,
                hint=error.hint or "Encode the mask again; write null where the object is absent.",
            ) from error
        if (mask.height, mask.width) != (height, width):
            raise self.fail(
                field,
                seen=f"mask of {mask.height}x{mask.width}",
                expected=f"{height}x{width}, the size of the video",
                hint="Masks belong at the size that the ground truth states; resize them.",
            )
        return mask
