"""MOTS text: one line `frame object class height width rle` per mask.

Object numbers follow MOTSChallenge and KITTI MOTS: class * 1000 + instance, class = label + 1, frames from 0. Class 10
(object 10000) marks regions that do not count, any number of them in a frame. A pixel
belongs to one track only: where masks overlap, it goes to the higher score, and the number of reassigned pixels is
logged and stored. A file `NAME.tracks.json` next to the text holds the remaining metadata (names, scores, timestamps).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from visdeploy.atomic import write_text
from visdeploy.errors import ConfigError, DataError
from visdeploy.formats.common import sorted_tracks
from visdeploy.formats.overlaps import without_overlaps
from visdeploy.formats.sidecar import paths_by_name, read_sidecar, write_sidecar
from visdeploy.json_fields import Entry
from visdeploy.masks.combining import union
from visdeploy.results import Track, VideoResult
from visdeploy.tracking.filtering import filtered

_PER_CLASS = 1000
_IGNORE = 10
"""Class of regions that do not count."""
_FIELDS = ("frame", "object", "class", "height", "width", "rle")


def save(results: Sequence[VideoResult], path: Path, *, filter_tracks: bool = False) -> None:
    """Write a `.txt` file or, for several videos, a folder with one file per video.

    Args:
        results: Results of one model.
        path: File or folder.
        filter_tracks: Remove masks and tracks that are probably wrong, see `visdeploy.tracking.filtering`. The classes
            must be `car` and `pedestrian`.
    """
    if filter_tracks:
        results = [filtered(each) for each in results]
    if path.suffix == ".txt":
        if len(results) > 1:
            raise ConfigError(f"cannot write {len(results)} videos to {path}", expected="a folder for several videos")
        files = [path]
    else:
        files = paths_by_name(results, path, suffix=".txt")
    numbers = [_object_numbers(r) for r in results]
    for result, file, objects in zip(results, files, numbers, strict=True):
        _write(result, file, objects)


def _object_numbers(result: VideoResult) -> dict[int, int]:
    """Return a map from track id to object number: class * 1000 + running number within the class."""
    counts: dict[int, int] = {}
    objects = {}
    for track in result.tracks:
        running = counts[track.label] = counts.get(track.label, -1) + 1
        if running >= _PER_CLASS:
            raise DataError(
                f"video {result.name!r} has too many tracks of one class for MOTS",
                seen=f"more than {_PER_CLASS} of class {track.label}",
                expected=f"up to {_PER_CLASS}: object number = class * {_PER_CLASS} + instance",
                hint="Save it as ytvis, coco or parquet.",
            )
        objects[track.track_id] = (track.label + 1) * _PER_CLASS + running
    return objects


def _write(result: VideoResult, file: Path, objects: dict[int, int]) -> None:
    lines = []
    moved = 0
    for frame in result.frames():
        found, lost = without_overlaps(frame)
        moved += lost
        for instance, mask in found:
            number, counts = objects[instance.track_id], mask.counts.decode("ascii")
            lines.append(f"{frame.index} {number} {number // _PER_CLASS} {mask.height} {mask.width} {counts}\n")
    write_sidecar(_sidecar(file), result, objects, len(lines), moved)
    write_text(file, "".join(lines))


def _sidecar(file: Path) -> Path:
    return file.with_name(f"{file.stem}.tracks.json")


def load(
    path: Path, *, classes: Sequence[str] | None = None, videos: Mapping[str, tuple[int, int, int]] | None = None
) -> list[VideoResult]:
    """Read one file, or every `.txt` of a folder in order of their names.

    Args:
        path: File or folder.
        classes: Class names from class 1 on, for files of other tools, which have no `NAME.tracks.json`. Their tracks
            get score 1, and the video ends with the last mask. Class 10 (ignore regions) is left out unless it has a
            name here.
        videos: Map from the name of a video to its number of frames, height and width, for empty files of other tools.
    """
    videos = videos or {}
    if not path.is_dir():
        return [_read(path, classes, videos)]
    files = sorted(path.glob("*.txt"))
    if not files:
        raise DataError(f"{path} contains no MOTS results", expected=".txt files")
    return [_read(file, classes, videos) for file in files]


def _read(file: Path, classes: Sequence[str] | None, videos: Mapping[str, tuple[int, int, int]]) -> VideoResult:
    lines = _read_lines(file)
    if _sidecar(file).is_file():
        result, objects, masks = read_sidecar(_sidecar(file))
        if len(lines) != masks:
            raise DataError(f"{file} is incomplete", seen=f"{len(lines)} lines",
                            expected=f"{masks} according to {_sidecar(file).name}",
                            hint="Copy both files again.")  # fmt: skip
        _add_masks(result, objects, lines)
    elif not lines and file.stem in videos:
        length, height, width = videos[file.stem]
        result = VideoResult(file.stem, height, width, length, tuple(classes or ()))
    else:
        result = _foreign(file, lines, classes)
    result.tracks = sorted_tracks(result.tracks)
    return result


def _read_lines(file: Path) -> list[Entry]:
    try:
        text = file.read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{file} is not a MOTS text file", seen=str(error)[:120], expected="ASCII lines") from error
    entries = []
    for number, line in enumerate(text.splitlines(), start=1):
        parts = line.split()
        if not parts:
            continue
        if len(parts) != len(_FIELDS):
            raise DataError(f"{file}: line {number}", seen=f"{len(parts)} fields", expected=" ".join(_FIELDS))
        values = {f: int(v) if v.isdecimal() else v for f, v in zip(_FIELDS[:5], parts, strict=False)}
        entries.append(Entry(f"{file}: line {number}", {**values, "rle": parts[5]}))
    return entries


def _add_masks(
    result: VideoResult, objects: dict[int, int], lines: Sequence[Entry], *, repeated: int | None = None
) -> None:
    """Add the masks of all lines to their tracks; only the object `repeated` may have several in a frame."""
    for line in lines:
        number, index = line.integer("object"), line.integer("frame", maximum=result.num_frames - 1)
        if number not in objects:
            raise line.fail("object", seen=number, expected="an object of the .tracks.json file")
        track = result.tracks[objects[number]]
        if index in track.masks and number != repeated:
            raise line.fail("object", seen=f"{number} again in frame {index}", expected="each object once per frame")
        size = line.integer("height"), line.integer("width")
        rle = {"size": list(size), "counts": line.text("rle")}
        mask = line.mask("rle", rle, result.height, result.width)
        both = union((track.masks.get(index), mask))
        track.masks[index] = mask if both is None else both


def _foreign(file: Path, lines: Sequence[Entry], classes: Sequence[str] | None) -> VideoResult:
    if not lines:
        raise DataError(f"{file} is empty, and there is no {_sidecar(file).name} that states the size of the video")
    length = max(line.integer("frame", maximum=10**8) for line in lines) + 1
    first = lines[0]
    height, width = first.integer("height", minimum=1), first.integer("width", minimum=1)
    kinds = [line.integer("class", minimum=1, maximum=10_000) for line in lines]
    if len(classes or ()) < _IGNORE:
        lines = [line for line, kind in zip(lines, kinds, strict=True) if kind != _IGNORE]
        kinds = [kind for kind in kinds if kind != _IGNORE]
    most = max(kinds, default=0)
    names = tuple(classes or (f"class {i}" for i in range(most)))
    if most > len(names):
        raise DataError(f"{file} uses class {most}", expected=f"1..{len(names)}, as many as the given classes")
    result = VideoResult(file.stem, height, width, length, names)
    objects: dict[int, int] = {}
    for line, kind in zip(lines, kinds, strict=True):
        number = line.integer("object")
        if number not in objects:
            objects[number] = len(result.tracks)
            result.tracks.append(Track(number, kind - 1, 1.0))
    _add_masks(result, objects, lines, repeated=_IGNORE * _PER_CLASS)
    return result
