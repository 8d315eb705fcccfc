"""Parquet: a table with one row per instance and frame, for pandas, DuckDB, Spark and the like.

Columns: `video`, `frame`, `timestamp` (seconds), `track_id`, `label`, `category`, `score`, `height`, `width`, `counts`
(COCO's compressed run lengths), `x1`, `y1`, `x2`, `y2` (pixels, right and bottom exclusive). The file metadata
`visdeploy` holds the metadata of videos and tracks, so that reading the file restores the complete results.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from visdeploy.atomic import replacing_file
from visdeploy.errors import DataError
from visdeploy.formats.common import (
    TABLE_COLUMNS,
    dump_json,
    read_head,
    read_track,
    sorted_tracks,
    table_rows,
    track_head,
    video_head,
)
from visdeploy.json_fields import Entry, read_regular
from visdeploy.optional import require
from visdeploy.outputs import Output
from visdeploy.results import Track, VideoResult

_KEY = b"visdeploy"
_ALWAYS, _RATIO = 1 << 28, 100
"""Bytes that the columns may take: so many in any case, or a multiple of the size of the file."""
_NEEDED = ("video", "frame", "track_id", "label", "score", "height", "width", "counts")


def _pyarrow() -> Any:
    require("pyarrow.parquet", extra="formats", purpose="Parquet")
    import pyarrow

    return pyarrow


def outputs(names: Sequence[str], path: Path) -> list[Output]:
    """Return the file that `save` writes, if the package for it is installed."""
    _pyarrow()
    return [Output(path)]


def save(results: Sequence[VideoResult], path: Path) -> None:
    """Write a table with the rows of all videos."""
    arrow = _pyarrow()
    heads = [
        {**video_head(r), "classes": list(r.classes), "tracks": [track_head(t) for t in r.tracks]} for r in results
    ]
    schema = arrow.schema([(name, getattr(arrow, kind)()) for name, kind in TABLE_COLUMNS.items()])
    schema = schema.with_metadata({_KEY: dump_json(heads, str(path)).encode()})
    with replacing_file(path) as temporary, arrow.parquet.ParquetWriter(str(temporary), schema) as writer:
        for result in results:
            rows = list(table_rows(result))
            writer.write_table(arrow.Table.from_pylist(rows, schema=schema))


def load(path: Path) -> list[VideoResult]:
    """Read a table. In tables of other tools, only the columns for times, names and boxes may be missing."""
    arrow = _pyarrow()
    try:
        content = arrow.BufferReader(read_regular(path))
        _check_size(arrow.parquet.read_metadata(content), content.size())
        table = arrow.parquet.read_table(content)
    except (OSError, ValueError, arrow.ArrowException) as error:
        raise DataError(f"{path} is not a readable Parquet file", seen=str(error)[:120]) from error
    missing = [c for c in _NEEDED if c not in table.column_names]
    if missing:
        raise DataError(f"{path}: column {missing[0]!r} is missing", seen=", ".join(table.column_names))
    rows = [Entry(f"{path}: row {i}", row) for i, row in enumerate(table.select(list(_NEEDED)).to_pylist())]
    heads = (table.schema.metadata or {}).get(_KEY)
    videos = _foreign(rows) if heads is None else _heads(heads, path)
    tracks = {name: {t.track_id: t for t in video.tracks} for name, video in videos.items()}
    for row in rows:
        _add_row(row, videos, tracks)
    for video in videos.values():
        video.tracks = sorted_tracks(video.tracks)
    return list(videos.values())


def _check_size(metadata: Any, size: int) -> None:
    """Raise a `ValueError` for a table that takes far more memory than its file, because equal values are stored once.

    Each mask takes a byte at least, and no two are equal for long.
    """
    groups = (metadata.row_group(i) for i in range(metadata.num_row_groups))
    expanded = sum(group.total_byte_size for group in groups)
    if metadata.num_rows > size or expanded > max(_ALWAYS, _RATIO * size):
        raise ValueError(f"{metadata.num_rows} rows, {expanded} B of columns in a file of {size} B")


def _heads(text: bytes, path: Path) -> dict[str, VideoResult]:
    try:
        content = json.loads(text)
    except ValueError as error:
        raise DataError(f"{path}: metadata {_KEY.decode()!r} is not JSON", seen=str(error)[:120]) from error
    if not isinstance(content, list):
        raise DataError(f"{path}: metadata {_KEY.decode()!r}", seen=type(content).__name__, expected="a list")
    videos = {}
    for i, value in enumerate(content):
        entry = Entry.of(f"{path}: metadata {_KEY.decode()!r}[{i}]", value)
        classes = entry.list_of("classes", str)
        video = read_head(entry, classes, (read_track(t, classes) for t in entry.entries("tracks")))
        videos[video.name] = video
    return videos


def _foreign(rows: Sequence[Entry]) -> dict[str, VideoResult]:
    """Return videos and tracks inferred from the rows: a video ends with its last mask, classes are numbered."""
    videos: dict[str, VideoResult] = {}
    seen: set[tuple[str, int]] = set()
    most = max((row.integer("label", maximum=10_000) for row in rows), default=-1)
    for row in rows:
        name, track_id = row.text("video"), row.integer("track_id")
        video = videos.setdefault(name, VideoResult(
            name, row.integer("height", minimum=1), row.integer("width", minimum=1), 0,
            tuple(f"class {i}" for i in range(most + 1))))  # fmt: skip
        video.num_frames = max(video.num_frames, row.integer("frame", maximum=10**8) + 1)
        if (name, track_id) not in seen:
            seen.add((name, track_id))
            video.tracks.append(Track(track_id, row.integer("label"), row.number("score")))
    return videos


def _add_row(row: Entry, videos: dict[str, VideoResult], tracks: dict[str, dict[int, Track]]) -> None:
    name = row.text("video")
    if name not in videos:
        raise row.fail("video", seen=name, expected="a video of the file's metadata")
    video = videos[name]
    track = tracks[name].get(row.integer("track_id"))
    if track is None:
        raise row.fail("track_id", seen=row.integer("track_id"), expected="a track of the file's metadata")
    index = row.integer("frame", maximum=video.num_frames - 1)
    if index in track.masks:
        raise row.fail(
            "track_id", seen=f"{track.track_id} again in frame {index}", expected="each track once per frame"
        )
    rle = {"size": [row.integer("height"), row.integer("width")], "counts": row.data.get("counts")}
    track.masks[index] = row.mask("counts", rle, video.height, video.width)
