"""What the formats share: checked access to JSON, masks out of files, and the head of a video."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn, TypeVar, overload

from visdeploy.errors import DataError
from visdeploy.masks import Mask
from visdeploy.results import Track, VideoResult

MAX_SIDE = 65_535
_T = TypeVar("_T")
_ABSENT = object()


class Entry:
    """One JSON object of a file, with its place, so that every complaint names file, entry and field."""

    def __init__(self, value: Any, path: Path, place: str) -> None:
        self.path, self.place = path, place
        if not isinstance(value, Mapping):
            raise DataError(f"{path}: {place} is no JSON object", seen=type(value).__name__)
        self.value = value

    def fail(self, field: str, seen: str, expected: str, hint: str = "") -> NoReturn:
        """Raise the error of one field."""
        raise DataError(f"{self.path}: {self.place}, field {field!r}", seen=seen, expected=expected, hint=hint)

    def has(self, field: str) -> bool:
        """Whether the field is there and not null."""
        return self.value.get(field) is not None

    def _get(self, field: str, default: Any, expected: str) -> Any:
        value = self.value.get(field)
        if value is None and default is _ABSENT:
            self.fail(field, "null" if field in self.value else "no such field", expected)
        return default if value is None else value

    def integer(self, field: str, default: Any = _ABSENT, *, least: int = 0, most: int = 2**53) -> int:
        """A whole number in `least..most`."""
        value = self._get(field, default, "a whole number")
        if value is default:
            return value  # type: ignore[no-any-return]
        whole = isinstance(value, int) or (isinstance(value, float) and value.is_integer())
        if isinstance(value, bool) or not whole or not least <= value <= most:
            self.fail(field, repr(value)[:60], f"a whole number, {least}..{most}")
        return int(value)

    def number(self, field: str, default: Any = _ABSENT) -> float:
        """A finite number."""
        value = self._get(field, default, "a number")
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            self.fail(field, repr(value)[:60], "a finite number")
        return float(value)

    def text(self, field: str, default: Any = _ABSENT) -> str:
        """A string."""
        value = self._get(field, default, "a string")
        if value is not default and not isinstance(value, str):
            self.fail(field, repr(value)[:60], "a string")
        return value  # type: ignore[no-any-return]

    @overload
    def list_of(self, field: str, kind: type[float]) -> tuple[float, ...]: ...
    @overload
    def list_of(self, field: str, kind: type[_T]) -> tuple[_T, ...]: ...
    def list_of(self, field: str, kind: Any) -> tuple[Any, ...]:
        """A list with items of one type; an absent field is an empty one. Whole numbers pass as floats."""
        value = self._get(field, (), "a list")
        kinds = (int, float) if kind is float else (kind,)
        if not isinstance(value, list | tuple) or any(
            not isinstance(v, kinds) or isinstance(v, bool) or (kind is float and not math.isfinite(v)) for v in value
        ):
            self.fail(field, repr(value)[:60], f"a list of {kind.__name__}")
        return tuple(float(v) for v in value) if kind is float else tuple(value)

    def entries(self, field: str, default: Any = _ABSENT) -> list[Entry]:
        """A list of objects."""
        value = self._get(field, default, "a list")
        if not isinstance(value, list | tuple):
            self.fail(field, type(value).__name__, "a list")
        return [Entry(v, self.path, f"{field}[{i}]" if self.place == "top level" else f"{self.place}, {field}[{i}]")
                for i, v in enumerate(value)]  # fmt: skip

    def mask(self, field: str, rle: Any, height: int | None = None, width: int | None = None) -> Mask:
        """A run-length mask of the given size, fully checked."""
        try:
            mask = Mask.from_coco(rle)
        except DataError as error:
            raise DataError(f"{self.path}: {self.place}, field {field!r}: {error.what}", seen=error.seen,
                            expected=error.expected, hint=error.hint) from error  # fmt: skip
        if max(mask.height, mask.width) > MAX_SIDE:
            self.fail(field, f"size {mask.height}x{mask.width}", f"sides up to {MAX_SIDE}")
        if height and width and (mask.height, mask.width) != (height, width):
            self.fail(field, f"size {mask.height}x{mask.width}", f"{height}x{width} as the video")
        return mask


def read_json(path: Path) -> Any:
    """Parse a JSON file.

    Raises:
        DataError: It cannot be read or is no JSON.
    """
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path} is no readable JSON file", seen=str(error)[:120],
                        hint="The file is damaged or of another format; write it anew.") from error  # fmt: skip


def dump_json(value: Any, what: str) -> str:
    """Compact JSON text; numbers that JSON cannot hold (NaN, infinity) are an error."""
    try:
        return json.dumps(value, separators=(",", ":"), allow_nan=False, ensure_ascii=False)
    except ValueError as error:
        raise DataError(f"cannot write {what}", seen="a NaN or infinite number", expected="finite scores") from error


def video_head(result: VideoResult) -> dict[str, Any]:
    """Everything about a video but its tracks, as JSON values."""
    return {
        "name": result.name,
        "height": int(result.height),
        "width": int(result.width),
        "num_frames": int(result.num_frames),
        "fps": float(result.fps),
        "expected_frames": result.expected_frames,
        "timestamps": [float(t) for t in result.timestamps],
        "source": result.source,
    }


def track_head(track: Track) -> dict[str, Any]:
    """Everything about a track but its masks, as JSON values."""
    return {
        "track_id": int(track.track_id),
        "label": int(track.label),
        "score": float(track.score),
        "scores": [float(s) for s in track.scores],
    }


def read_head(entry: Entry, classes: Sequence[str], tracks: Iterable[Track]) -> VideoResult:
    """The video of a head written by `video_head`."""
    return VideoResult(
        name=entry.text("name"),
        height=entry.integer("height", least=1, most=MAX_SIDE),
        width=entry.integer("width", least=1, most=MAX_SIDE),
        num_frames=entry.integer("num_frames"),
        classes=tuple(classes),
        tracks=list(tracks),
        fps=entry.number("fps", 0.0),
        expected_frames=entry.integer("expected_frames", None),
        timestamps=entry.list_of("timestamps", float),
        source=entry.text("source", None),
    )


def read_track(entry: Entry, classes: Sequence[str]) -> Track:
    """The track of a head written by `track_head`, without masks."""
    most = len(classes) - 1 if classes else 2**31
    return Track(
        entry.integer("track_id"),
        entry.integer("label", most=most),
        entry.number("score"),
        {},
        entry.list_of("scores", float),
    )


def sorted_tracks(tracks: Iterable[Track]) -> list[Track]:
    """Tracks by rising id, masks by rising frame, as `VideoResult` has them."""
    found = sorted(tracks, key=lambda t: t.track_id)
    for track in found:
        track.masks = dict(sorted(track.masks.items()))
    return found


def class_name(classes: Sequence[str], label: int) -> str:
    """Name of a class; a number where the result carries no names."""
    return classes[label] if label < len(classes) else f"class {label}"


def shared_classes(results: Sequence[VideoResult]) -> tuple[str, ...]:
    """The classes of all results, which must be the same ones."""
    for result in results:
        if tuple(result.classes) != tuple(results[0].classes):
            raise DataError(
                f"videos {results[0].name!r} and {result.name!r} have different classes",
                expected="results of one model in one file",
                hint="Save them to separate files.",
            )
    return tuple(results[0].classes)
