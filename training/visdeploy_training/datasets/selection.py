"""Selection of objects and frames for a training, as in STEm-Seg (Athar et al., ECCV 2020)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal, TypeAlias

from visdeploy.errors import DataError
from visdeploy_training.datasets.ignoring import hide
from visdeploy_training.datasets.records import ClipRecord, InstanceRecord

EmptyFrames: TypeAlias = Literal["keep", "drop", "cut"]
LONGEST_GAP = 5
"""Largest number of successive frames without objects inside a piece of a video that was cut."""


def select(
    records: Sequence[ClipRecord],
    *,
    min_area: int = 0,
    max_objects: int | None = None,
    empty_frames: EmptyFrames = "keep",
    source: str = "data set",
) -> list[ClipRecord]:
    """Select objects, then frames.

    Args:
        records: Videos and images.
        min_area: Minimum area of an object in its largest frame, in pixels; smaller objects are dropped.
        max_objects: Maximum number of objects of a record. The largest ones are kept; others are ignored pixels.
        empty_frames: `keep`: keep all frames. `drop`: drop frames without objects. `cut`: split videos where at least
            six successive frames have no object; a piece starts and ends with a frame that has one. With `drop` and
            `cut`, images without objects are dropped, too, and videos of which one frame at most remains.
        source: Name of the data set, for messages.

    Raises:
        DataError: No record remains.
    """
    chosen = [_with_objects(record, min_area, max_objects) for record in records]
    if empty_frames != "keep":
        chosen = [piece for record in chosen for piece in _pieces(record, cut=empty_frames == "cut")]
    if not chosen:
        raise DataError(
            f"{source}: no video or image with objects remains",
            seen=f"{len(records)} without",
            expected="at least 1",
            hint="Check class_map, min_area and empty_frames.",
        )
    return chosen


def _area(instance: InstanceRecord) -> int:
    """Return the area of an object in its largest frame."""
    return max((mask.area for mask in instance.masks if mask is not None), default=0)


def _with_objects(record: ClipRecord, min_area: int, max_objects: int | None) -> ClipRecord:
    kept = tuple(i for i in record.instances if _area(i) >= min_area)
    record = record if len(kept) == len(record.instances) else replace(record, instances=kept)
    if max_objects is None or len(kept) <= max_objects:
        return record
    return hide(record, sorted(kept, key=_area, reverse=True)[max_objects:])


def frames_with_objects(record: ClipRecord) -> list[int]:
    """Return the frames that contain at least one object."""
    masks = zip(*(instance.masks for instance in record.instances), strict=True)
    return [t for t, of_frame in enumerate(masks) if any(mask is not None and mask.area > 0 for mask in of_frame)]


def _pieces(record: ClipRecord, *, cut: bool) -> list[ClipRecord]:
    """Return the record without frames without objects, or cut at long gaps."""
    shown = frames_with_objects(record)
    if len(record) == 1:
        return [record] if shown else []
    if not cut:
        return [take_frames(record, shown)] if len(shown) > 1 else []
    starts = [t for i, t in enumerate(shown) if i == 0 or t - shown[i - 1] > LONGEST_GAP + 1]
    ends = [t for i, t in enumerate(shown) if i == len(shown) - 1 or shown[i + 1] - t > LONGEST_GAP + 1]
    spans = [range(first, last + 1) for first, last in zip(starts, ends, strict=True) if last > first]
    pieces = [take_frames(record, span) for span in spans]
    return pieces if len(pieces) == 1 else [replace(p, name=f"{p.name}.{n}") for n, p in enumerate(pieces)]


def take_frames(record: ClipRecord, frames: Sequence[int]) -> ClipRecord:
    """Return a record of some frames of a video, with the objects that they contain."""
    if len(frames) == len(record):
        return record
    tracks = [replace(i, masks=tuple(i.masks[t] for t in frames)) for i in record.instances]
    return replace(
        record,
        files=tuple(record.files[t] for t in frames),
        instances=tuple(i for i in tracks if any(mask is not None for mask in i.masks)),
        ignore=None if record.ignore is None else tuple(record.ignore[t] for t in frames),
    )
