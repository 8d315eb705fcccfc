"""Functions shared by the formats: JSON text, metadata of videos and tracks, class names."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, cast, get_args

from visdeploy.errors import DataError
from visdeploy.json_fields import MAX_SIDE, Entry
from visdeploy.results import Track, VideoResult, class_name
from visdeploy.video.verdict import Verdict


def dump_json(value: Any, what: str) -> str:
    """Return compact JSON text; raise a `DataError` for numbers that JSON cannot represent (NaN, infinity)."""
    try:
        return json.dumps(value, separators=(",", ":"), allow_nan=False, ensure_ascii=False)
    except ValueError as error:
        raise DataError(f"cannot write {what}", seen="a NaN or infinite number", expected="finite scores") from error


def video_head(result: VideoResult) -> dict[str, Any]:
    """Return the metadata of a video, without its tracks, as JSON values."""
    head = {
        "name": result.name,
        "height": int(result.height),
        "width": int(result.width),
        "num_frames": int(result.num_frames),
        "fps": float(result.fps),
        "expected_frames": result.expected_frames,
        "timestamps": [float(t) for t in result.timestamps],
        "source": result.source,
        "verdict": result.verdict,
    }
    return head | ({"positions": [int(p) for p in result.positions]} if result.positions else {})


def track_head(track: Track) -> dict[str, Any]:
    """Return the metadata of a track, without its masks, as JSON values."""
    return {
        "track_id": int(track.track_id),
        "label": int(track.label),
        "score": float(track.score),
        "scores": [float(s) for s in track.scores],
    }


def read_head(
    entry: Entry,
    classes: Sequence[str],
    tracks: Iterable[Track] = (),
    *,
    name: str | None = None,
    num_frames: int | None = None,
) -> VideoResult:
    """Return the video of an entry written by `video_head`; pass `name` and `num_frames` if the entry lacks them."""
    result = VideoResult(
        name=entry.text("name") if name is None else name,
        height=entry.integer("height", minimum=1, maximum=MAX_SIDE),
        width=entry.integer("width", minimum=1, maximum=MAX_SIDE),
        num_frames=entry.integer("num_frames") if num_frames is None else num_frames,
        classes=tuple(classes),
        tracks=list(tracks),
        fps=entry.number("fps", 0.0),
        expected_frames=entry.integer("expected_frames", default=None),
        timestamps=entry.list_of("timestamps", float),
        source=entry.text("source", None),
        positions=tuple(map(int, entry.list_of("positions", int))),
        verdict=_verdict(entry.text("verdict", "unknown")),
    )
    result.check_positions()
    return result


def _verdict(text: str) -> Verdict:
    return cast(Verdict, text) if text in get_args(Verdict) else "unknown"


def read_track(entry: Entry, classes: Sequence[str]) -> Track:
    """Return the track of an entry written by `track_head`, without masks."""
    return Track(
        entry.integer("track_id"),
        entry.integer("label", maximum=len(classes) - 1 if classes else 2**31),
        entry.number("score"),
        {},
        entry.list_of("scores", float),
    )


def sorted_tracks(tracks: Iterable[Track]) -> list[Track]:
    """Return the tracks in ascending order of id, each with its masks in ascending order of frame."""
    found = sorted(tracks, key=lambda t: t.track_id)
    for track in found:
        track.masks = dict(sorted(track.masks.items()))
    return found


def table_rows(result: VideoResult) -> Iterator[dict[str, Any]]:
    """Yield one row per instance and frame, in the order of frames, for tables; see `visdeploy.formats.parquet`."""
    for frame in result.frames():
        for instance in frame:
            x1, y1, x2, y2 = instance.box
            yield {
                "video": result.name,
                "frame": frame.index,
                "timestamp": float(frame.timestamp),
                "track_id": int(instance.track_id),
                "label": int(instance.label),
                "category": class_name(result.classes, instance.label),
                "score": float(instance.score),
                "height": result.height,
                "width": result.width,
                "counts": instance.mask.counts,
                "x1": x1, "y1": y1, "x2": x2, "y2": y2,
            }  # fmt: skip


TABLE_COLUMNS = {
    "video": "string", "frame": "int64", "timestamp": "float64", "track_id": "int64", "label": "int32",
    "category": "string", "score": "float64", "height": "int32", "width": "int32", "counts": "binary",
    "x1": "float64", "y1": "float64", "x2": "float64", "y2": "float64",
}  # fmt: skip
"""Map from the columns of `table_rows` to their types."""


def shared_classes(results: Sequence[VideoResult]) -> tuple[str, ...]:
    """Return the classes of the results, which must all have the same ones."""
    for result in results:
        if tuple(result.classes) != tuple(results[0].classes):
            raise DataError(
                f"videos {results[0].name!r} and {result.name!r} have different classes",
                expected="results of one model in one file",
                hint="Save them to separate files.",
            )
    return tuple(results[0].classes)
