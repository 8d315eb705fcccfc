"""MOTS text: one line `frame object class height width rle` per mask.

Object numbers follow MOTSChallenge and KITTI MOTS: class * 1000 + instance. Class 10 (object 10000) marks regions that
do not count, any number of them in a frame. The option `numbering` is `kitti` (frames from 0, class = label + 1) or
`motschallenge` (frames from 1; class 2 for persons and pedestrians, 1 for cars). A pixel belongs to one track only:
where masks overlap, it goes to the higher score, and the number of reassigned pixels is logged and stored. A file
`NAME.tracks.json` next to the text holds the remaining metadata (names, scores, timestamps, first frame).
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

from visdeploy.arguments import as_tuple, check_flag, check_integer, check_names
from visdeploy.atomic import replacing_files
from visdeploy.brief import shorten
from visdeploy.errors import ConfigError, DataError
from visdeploy.formats.common import sorted_tracks
from visdeploy.formats.mots_numbering import (
    CHALLENGE_CLASSES,
    DEFAULT,
    IGNORE_CLASS,
    NUMBERINGS,
    Numbering,
    announce_start,
    numbering_of,
    renumbered,
)
from visdeploy.formats.overlaps import without_overlaps
from visdeploy.formats.sidecar import paths_by_name, read_sidecar, sidecar_text
from visdeploy.json_fields import Entry, read_regular
from visdeploy.masks.combining import union
from visdeploy.outputs import Output
from visdeploy.results import Track, VideoResult
from visdeploy.tracking.filtering import filtered

_PER_CLASS = 1000
_FIELDS = ("frame", "object", "class", "height", "width", "rle")


def check_options(*, filter_tracks: bool = False, numbering: str = DEFAULT) -> None:
    """Check the values of the options of `save`.

    Raises:
        ConfigError: A value is invalid.
    """
    if not isinstance(filter_tracks, bool):
        raise ConfigError("filter_tracks has a wrong value", seen=repr(filter_tracks)[:100], expected="true or false")
    numbering_of(numbering)


def save(results: Sequence[VideoResult], path: Path, *, filter_tracks: bool = False, numbering: str = DEFAULT) -> None:
    """Write a `.txt` file or, for several videos, a folder with one file per video.

    Args:
        results: Results of one model.
        path: File or folder.
        filter_tracks: Remove masks and tracks that are probably wrong, see `visdeploy.tracking.filtering`. The classes
            must be `car` and `pedestrian`.
        numbering: `kitti` or `motschallenge`. The latter leaves out tracks of classes that MOTSChallenge does not have,
            with a warning.
    """
    check_options(filter_tracks=filter_tracks, numbering=numbering)
    chosen = numbering_of(numbering)
    results = [renumbered(each, chosen) for each in results]
    if check_flag(filter_tracks, "filter_tracks"):
        results = [filtered(each) for each in results]
    files = _files([r.name for r in results], path)
    numbers = [_object_numbers(r) for r in results]
    for result, file, objects in zip(results, files, numbers, strict=True):
        _write(result, file, objects, chosen.first_frame)


def outputs(names: Sequence[str], path: Path) -> list[Output]:
    """Return the files that `save` writes for videos of these names.

    Raises:
        ConfigError: `path` is a file, and there are several videos.
        DataError: Two videos would share a file.
    """
    return [Output(each) for file in _files(names, path) for each in (file, _sidecar(file))]


def _files(names: Sequence[str], path: Path) -> list[Path]:
    if path.suffix != ".txt":
        return paths_by_name(names, path, suffix=".txt")
    if len(names) > 1:
        raise ConfigError(f"cannot write {len(names)} videos to {path}", expected="a folder for several videos")
    return [path]


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


def _write(result: VideoResult, file: Path, objects: dict[int, int], first_frame: int) -> None:
    lines = []
    moved = 0
    for frame in result.frames():
        found, lost = without_overlaps(frame)
        moved += lost
        for instance, mask in found:
            number, counts = objects[instance.track_id], mask.counts.decode("ascii")
            time = frame.index + first_frame
            lines.append(f"{time} {number} {number // _PER_CLASS} {mask.height} {mask.width} {counts}\n")
    sidecar = sidecar_text(result, objects, len(lines), moved, digest=_digest(lines), first_frame=first_frame)
    with replacing_files([file, _sidecar(file)]) as (text, metadata):
        text.write_text("".join(lines), encoding="ascii")
        metadata.write_text(sidecar, encoding="utf-8")


def _digest(lines: Sequence[str]) -> str:
    """Return a checksum of lines, without regard to empty ones and line ends."""
    return sha256("\n".join(stripped for line in lines if (stripped := line.strip())).encode()).hexdigest()


def _sidecar(file: Path) -> Path:
    return file.with_name(f"{file.stem}.tracks.json")


def load(
    path: Path,
    *,
    classes: Sequence[str] | None = None,
    videos: Mapping[str, tuple[int, int, int]] | None = None,
    numbering: str | None = None,
) -> list[VideoResult]:
    """Read one file, or every `.txt` of a folder in order of their names.

    Args:
        path: File or folder.
        classes: Class names from class 1 on, for files of other tools, which have no `NAME.tracks.json`. Their tracks
            get score 1, and the video ends with the last mask. Class 10 (ignore regions) is left out unless it has a
            name here.
        videos: Map from the name of a video to its number of frames, height and width, for empty files of other tools.
        numbering: `kitti` or `motschallenge`, for files of other tools; default: `kitti`, with a warning where the
            frames seem to start at 1. Ours state their numbering.
    """
    chosen = None if numbering is None else numbering_of(numbering)
    if chosen is not None and chosen.classes and classes is None:
        classes = CHALLENGE_CLASSES
    classes = None if classes is None else check_names(classes, "classes of MOTS")
    sizes = _check_videos(videos)
    files = text_files(path) if path.is_dir() else [path]
    if not files:
        raise DataError(f"{path} contains no MOTS results", expected=".txt files")
    starts: list[int] = []
    found = [_read(file, classes, sizes, chosen or NUMBERINGS[DEFAULT], starts) for file in files]
    if chosen is None:
        announce_start(str(path), starts)
    return found


def text_files(folder: Path) -> list[Path]:
    """Return the text files in a folder in order of their names, without hidden ones such as macOS's `._0002.txt`."""
    return sorted(p for p in folder.glob("*.txt") if not p.name.startswith(".") and p.is_file())


def is_text(file: Path) -> bool:
    """Return whether a file starts like MOTS text."""
    with file.open("rb") as content:
        return re.match(rb"(\xef\xbb\xbf)?\s*(\d+\s+){5}\S", content.read(256)) is not None


def _check_videos(videos: Any) -> dict[str, tuple[int, int, int]]:
    """Return a map from the name of a video to its number of frames, height and width."""
    given = {} if videos is None else videos
    sizes = {name: as_tuple(size) for name, size in given.items()} if isinstance(given, Mapping) else {None: ()}
    if not all(isinstance(name, str) and size is not None and len(size) == 3 for name, size in sizes.items()):
        expected = "a map from name to (frames, height, width)"
        raise ConfigError("videos of MOTS", seen=shorten(videos), expected=expected)
    checked: dict[str, Any] = {}
    for name, size in sizes.items():
        checked[str(name)] = tuple(check_integer(value, "videos of MOTS", minimum=1) for value in size or ())
    return checked


def _read(
    file: Path,
    classes: Sequence[str] | None,
    videos: Mapping[str, tuple[int, int, int]],
    numbering: Numbering,
    starts: list[int],
) -> VideoResult:
    """Read a file, and append its smallest number of a frame to `starts` if it states no numbering."""
    text = _read_text(file)
    lines = _parse_lines(file, text)
    first = numbering.first_frame
    if _sidecar(file).is_file():
        sidecar = read_sidecar(_sidecar(file))
        result, first = sidecar.result, sidecar.first_frame
        if len(lines) != sidecar.masks:
            raise DataError(f"{file} is incomplete", seen=f"{len(lines)} lines",
                            expected=f"{sidecar.masks} according to {_sidecar(file).name}",
                            hint="Copy both files again.")  # fmt: skip
        _add_masks(result, sidecar.objects, lines, first)
        if sidecar.digest not in (None, _digest(text)):
            raise DataError(
                f"{file} and {_sidecar(file).name} do not belong together",
                seen="other masks than those for which the metadata were written",
                hint="Copy both files again, or delete the metadata to read the masks without them.",
            )
    elif not lines and file.stem in videos:
        length, height, width = videos[file.stem]
        result = VideoResult(file.stem, height, width, length, tuple(classes or ()))
    else:
        result = _foreign(file, lines, classes, first)
        starts.extend([min(line.integer("frame") for line in lines)] if lines else [])
    result.tracks = sorted_tracks(result.tracks)
    return result


def _read_text(file: Path) -> list[str]:
    try:
        return read_regular(file).removeprefix(codecs.BOM_UTF8).decode("ascii").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{file} is not a MOTS text file", seen=str(error)[:120], expected="ASCII lines") from error


def _parse_lines(file: Path, text: Sequence[str]) -> list[Entry]:
    entries = []
    for number, line in enumerate(text, start=1):
        parts = line.split()
        if not parts:
            continue
        if len(parts) != len(_FIELDS):
            raise DataError(f"{file}: line {number}", seen=f"{len(parts)} fields", expected=" ".join(_FIELDS))
        # longer numbers are out of range whatever they are, and Python refuses to convert the longest
        values = {f: int(v) if v.isdecimal() and len(v) < 20 else v for f, v in zip(_FIELDS[:5], parts, strict=False)}
        entries.append(Entry(f"{file}: line {number}", {**values, "rle": parts[5]}))
    return entries


def _add_masks(
    result: VideoResult, objects: dict[int, int], lines: Sequence[Entry], first: int, *, repeated: int | None = None
) -> None:
    """Add the masks of all lines to their tracks; only the object `repeated` may have several in a frame."""
    for line in lines:
        number = line.integer("object")
        index = line.integer("frame", minimum=first, maximum=result.num_frames - 1 + first) - first
        if number not in objects:
            raise line.fail("object", seen=number, expected="an object of the .tracks.json file")
        track = result.tracks[objects[number]]
        if index in track.masks and number != repeated:
            seen = f"{number} again in frame {index + first}"
            raise line.fail("object", seen=seen, expected="each object once per frame")
        size = line.integer("height"), line.integer("width")
        rle = {"size": list(size), "counts": line.text("rle")}
        mask = line.mask("rle", rle, result.height, result.width)
        both = union((track.masks.get(index), mask))
        track.masks[index] = mask if both is None else both


def _foreign(file: Path, lines: Sequence[Entry], classes: Sequence[str] | None, start: int) -> VideoResult:
    if not lines:
        raise DataError(f"{file} is empty, and there is no {_sidecar(file).name} that states the size of the video")
    length = max(line.integer("frame", minimum=start, maximum=10**8) for line in lines) + 1 - start
    first = lines[0]
    height, width = first.integer("height", minimum=1), first.integer("width", minimum=1)
    kinds = [line.integer("class", minimum=1, maximum=10_000) for line in lines]
    if len(classes or ()) < IGNORE_CLASS:
        lines = [line for line, kind in zip(lines, kinds, strict=True) if kind != IGNORE_CLASS]
        kinds = [kind for kind in kinds if kind != IGNORE_CLASS]
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
        elif (label := result.tracks[objects[number]].label) != kind - 1:
            raise line.fail("class", seen=f"{kind} of object {number}", expected=f"{label + 1}, as in earlier lines")
    _add_masks(result, objects, lines, start, repeated=IGNORE_CLASS * _PER_CLASS)
    return result
