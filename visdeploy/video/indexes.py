"""Indexes of video files, as FFmpeg reads them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from visdeploy.video.decoding import Decoding
from visdeploy.video.integrity import Ending, Structure
from visdeploy.video.verdict import Evidence

if TYPE_CHECKING:
    import av

_ROUNDING = 2e-3  # seconds; times in MKV files are in milliseconds


def claimed_frames(stream: av.VideoStream) -> int | None:
    """Return the number of frames according to the container's header or index; None if neither states it.

    The index of an MP4 or AVI file takes precedence: unlike the header's count, it excludes frames hidden by an edit
    list, empty samples, and the empty chunks by which AVI says that the last frame stays.
    """
    if stream.frames <= 0:
        return None
    return _indexed(stream) or int(stream.frames)


def collect(decoding: Decoding, structure: Structure | None) -> Evidence:
    """Return what is known about a video that was read to its end.

    The index of an MP4 file counts all frames, unless the file is fragmented. The index of an AVI file is at its end;
    without it, the count of the header and the empty chunks tell whether frames are missing in a truncated file. In a
    truncated MKV file, the duration of the track tells whether only sound is missing.
    """
    stream, name = decoding.stream, decoding.stream.container.format.name
    entries, whole = _indexed(stream), decoding.packets - decoding.corrupt
    evidence = partial(Evidence, undecoded=decoding.undecoded, structure=structure)
    if decoding.intra_only and decoding.undecoded:
        return evidence(decoding.decoded, decoding.packets)
    if structure is not None and name == "avi":
        if structure.ending is Ending.STATED:
            return evidence(whole, entries or None)
        return evidence(whole, whole if 0 < stream.frames <= whole + decoding.empty else None)
    if structure is not None and "mp4" in name.split(",") and entries and not structure.fragmented:
        return evidence(whole, entries)
    if structure is not None and structure.ending is Ending.CUT and _reaches_duration(decoding):
        return evidence(decoding.packets, decoding.packets)
    announced = max(entries, (structure and structure.frames) or 0)
    return evidence(decoding.packets, announced=announced, corrupt=decoding.corrupt)


def _reaches_duration(decoding: Decoding) -> bool:
    """Return whether the last frame ends with its track, whose duration FFmpeg stores at the front of MKV files."""
    stated = re.fullmatch(r"(\d+):(\d+):(\d+\.\d+)", decoding.stream.metadata.get("DURATION", ""))
    if stated is None or decoding.end is None:
        return False
    hours, minutes, seconds = (float(part) for part in stated.groups())
    late = float(decoding.end * decoding.stream.time_base) + _ROUNDING > 3600 * hours + 60 * minutes + seconds
    return late and not _has_gap(decoding.recent)


def _has_gap(times: Iterable[int]) -> bool:
    """Return whether a frame is missing between the last ones: B-frames are stored behind later frames."""
    steps = sorted(b - a for a, b in pairwise(sorted(times)))
    return bool(steps) and steps[-1] > 1.5 * steps[len(steps) // 2]


def _indexed(stream: av.VideoStream) -> int:
    """Return the number of frames with data that the index contains so far; 0 without an index."""
    return sum(1 for entry in _index(stream) if not entry.is_discard and entry.size > 0)


def _index(stream: av.VideoStream) -> Sequence[Any]:
    """Return the index of an MP4 or AVI file; empty for others, and without an index."""
    entries = getattr(stream, "index_entries", None)  # PyAV >= 17
    indexed = {"mp4", "avi"} & set(stream.container.format.name.split(","))
    return entries if indexed and entries is not None else ()


def late_start(stream: av.VideoStream) -> float | None:
    """Return the time in seconds of the first frame of an AVI file that starts late; None for others.

    FFmpeg writes the empty chunks of the time before the first frame directly behind it.
    """
    if stream.container.format.name != "avi" or not stream.time_base:
        return None
    times = [entry.timestamp for entry in _index(stream)]
    if len(times) < 3:
        return None
    period = min(b - a for a, b in pairwise(times[1:]))
    return float((times[1] - period) * stream.time_base) if times[1] - times[0] > period else None
