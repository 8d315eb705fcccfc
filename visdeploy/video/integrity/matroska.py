"""Elements of Matroska and WebM files (RFC 8794, RFC 9559)."""

from __future__ import annotations

import re
from collections import Counter
from typing import Any, BinaryIO

from visdeploy.video.integrity.structure import Ending, Structure, missing, unreadable

_EBML, _SEGMENT, _SEEK_HEAD, _TRACKS, _CLUSTER = 0x1A45DFA3, 0x18538067, 0x114D9B74, 0x1654AE6B, 0x1F43B675
_SIMPLE_BLOCK, _BLOCK_GROUP, _BLOCK, _TRACK_ENTRY, _TRACK_NUMBER = 0xA3, 0xA0, 0xA1, 0xAE, 0xD7
_VOID, _CRC = 0xEC, 0xBF
_LONGEST_HEAD = 12  # bytes of an id and a length
_TOP = {_SEEK_HEAD, 0x1549A966, _TRACKS, 0x1C53BB6B, _CLUSTER, 0x1254C367, 0x1941A469, 0x1043A770, _VOID, _CRC}
_IN_CLUSTER = {0xE7, 0xA7, 0xAB, _SIMPLE_BLOCK, _BLOCK_GROUP, 0xAF, 0x5854, _VOID, _CRC}
_CUES_POSITION = re.compile(rb"\x53\xab\x84\x1c\x53\xbb\x6b\x53\xac[\x81-\x88]")


def examine(file: BinaryIO, size: int, *, index: int, **_: Any) -> Structure:
    """Examine the clusters, and count the blocks of the track with this index."""
    head = _element(file, 0)
    segment = _element(file, head[1] + (head[2] or 0)) if head and head[0] == _EBML else None
    if segment is None or segment[0] != _SEGMENT:
        return Structure(Ending.OPEN)
    return _Segment(file, size, segment[1], segment[2], index).examine()


class _Segment:
    """Segment of a file: its position and length, and what was found in it so far."""

    def __init__(self, file: BinaryIO, size: int, start: int, length: int | None, index: int) -> None:
        self._file, self._size, self._start, self._index = file, size, start, index
        self._end = None if length is None else start + length
        self._blocks: Counter[int] = Counter()
        self._tracks: list[int] = []
        self._cues: int | None = None

    def examine(self) -> Structure:
        position = self._start
        while position < min(self._size, self._end or self._size):
            element = _element(self._file, position)
            if element is None:
                return self._without_head(position)
            kind, data, length = element
            if kind not in _TOP:
                if kind == _EBML and self._end is None:  # a second file behind a live recording
                    break
                return self._found(Ending.BROKEN, unreadable(position, "element"))
            if kind == _CLUSTER:
                stop, fault = self._read_cluster(data, length)
                if fault is not None:
                    return fault
            else:
                stop = data + (length or 0)
                self._read_head(kind, data, length or 0)
            if stop > self._size:
                return self._cut(position, stop - self._size)
            position = stop
        if self._end is None:
            return self._found(Ending.OPEN)
        return self._found(Ending.STATED) if self._size >= self._end else self._cut(position, self._end - self._size)

    def _read_head(self, kind: int, data: int, length: int) -> None:
        self._file.seek(data)
        if kind == _SEEK_HEAD and (found := _CUES_POSITION.search(content := self._file.read(length))):
            count = content[found.end() - 1] & 0x0F
            self._cues = self._start + int.from_bytes(content[found.end() : found.end() + count], "big")
        elif kind == _TRACKS:
            self._tracks = _track_numbers(self._file, data, length)

    def _read_cluster(self, position: int, length: int | None) -> tuple[int, Structure | None]:
        """Count the blocks of a cluster; return its end, and the fault if one was found."""
        end = None if length is None else position + length
        while position < min(self._size, end or self._size):
            element = _element(self._file, position)
            if element is None:
                return position, self._without_head(position)
            kind, data, size = element
            if end is None and (kind in _TOP - _IN_CLUSTER or kind == _EBML):
                return position, None
            if kind not in _IN_CLUSTER or size is None or (end is not None and data + size > end):
                return position, self._found(Ending.BROKEN, unreadable(position, "block"))
            if data + size > self._size:
                return position, self._cut(position, data + size - self._size)
            self._count(kind, data)
            position = data + size
        return position if end is None else end, None

    def _count(self, kind: int, data: int) -> None:
        if kind == _BLOCK_GROUP and (inner := _element(self._file, data)) is not None:
            kind, data = inner[:2]
        if kind in (_SIMPLE_BLOCK, _BLOCK):
            self._file.seek(data)
            track, _ = _number(self._file)
            if track is not None:
                self._blocks[track] += 1

    def _without_head(self, position: int) -> Structure:
        """Return the verdict on a file without a readable id and length of an element at `position`."""
        if self._size - position >= _LONGEST_HEAD:
            return self._found(Ending.BROKEN, unreadable(position, "element"))
        return self._cut(position, 1)

    def _cut(self, position: int, lost: int) -> Structure:
        """Return the verdict on a file that ends in or before the element at `position`; cues follow all clusters."""
        behind = self._cues is not None and position >= self._cues and bool(self._blocks)
        return self._found(Ending.STATED) if behind else self._found(Ending.CUT, missing(lost, "an element"))

    def _found(self, ending: Ending, seen: str = "") -> Structure:
        track = self._tracks[self._index] if self._index < len(self._tracks) else None
        return Structure(ending, seen, None if track is None else self._blocks[track])


def _track_numbers(file: BinaryIO, position: int, length: int) -> list[int]:
    found, end = [], position + length
    while position < end and (entry := _element(file, position)) is not None:
        kind, data, size = entry
        position = data + (size or 0)
        if kind != _TRACK_ENTRY:
            continue
        while data < position and (field := _element(file, data)) is not None:
            if field[0] == _TRACK_NUMBER:
                file.seek(field[1])
                found.append(int.from_bytes(file.read(field[2] or 0), "big"))
            data = field[1] + (field[2] or 0)
    return found


def _element(file: BinaryIO, position: int) -> tuple[int, int, int | None] | None:
    """Return the id of an element, the position of its data and their length, None if unknown; None at the end."""
    file.seek(position)
    first = file.read(1)
    if not first:
        return None
    if first[0] < 0x10:
        return 0, position, None
    count = 8 - first[0].bit_length()
    kind = int.from_bytes(first + file.read(count), "big")
    length, bits = _number(file)
    if bits == 0:
        return None
    return kind, file.tell(), None if length == (1 << bits) - 1 else length


def _number(file: BinaryIO) -> tuple[int | None, int]:
    """Read a number of variable length; return it with its bits, or None and 0 at the end of the file."""
    first = file.read(1)
    if not first or first[0] == 0:
        return None, 0
    count = 8 - first[0].bit_length()
    rest = file.read(count)
    if len(rest) < count:
        return None, 0
    return (first[0] & (0x7F >> count)) << 8 * count | int.from_bytes(rest, "big"), 7 * (count + 1)
