"""Detection of truncated video files, from the length that the container states.

FFmpeg reports the end of a truncated file as the end of the video. MP4 and MOV (ISO/IEC 14496-12, 4.2), Matroska and
WebM (RFC 9559, 4.5) and AVI (RIFF) state their lengths, so that truncation can be detected.
"""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

_BOXES = frozenset(b"ftyp moov mdat moof mfra sidx styp free skip wide uuid meta pdin emsg prft ssix udta pnot".split())
"""Types of top-level boxes; what else follows a box is no part of the video."""
_EBML, _SEGMENT = b"\x1a\x45\xdf\xa3", b"\x18\x53\x80\x67"


def missing_bytes(path: Path) -> int:
    """Return the number of bytes missing from a file; 0 if it is complete or its container states no length."""
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(12)
        if head[:4] == b"RIFF" and len(head) == 12:
            declared = 8 + int.from_bytes(head[4:8], "little")
        elif head[:4] == _EBML:
            declared = _matroska_end(file)
        elif head[4:8] in (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip"):
            declared = _boxes_end(file, size)
        else:
            return 0
    return max(0, declared - size)


def _boxes_end(file: BinaryIO, size: int) -> int:
    """Return the end of the last top-level MP4 box, which lies beyond the end of a truncated file."""
    position = 0
    while position < size:
        file.seek(position)
        head = file.read(16)
        if len(head) < 8:
            return position + 8 if _begins_box(head) else size
        if head[4:8] not in _BOXES:
            return size
        length = int.from_bytes(head[:4], "big")
        if length == 1:
            if len(head) < 16:
                return position + 16
            length = int.from_bytes(head[8:16], "big")
        if length == 0:  # to the end of the file
            return size
        if length < 8:  # not a box: data after the last box are not checked
            return size
        position += length
    return position


def _begins_box(head: bytes) -> bool:
    """Return whether less than 8 bytes are the beginning of a box: its length, mostly below 2^24, and its type."""
    return head[0] == 0 and any(box.startswith(head[4:]) for box in _BOXES)


def _matroska_end(file: BinaryIO) -> int:
    """Return the end of the Matroska segment; 0 if its length is unknown, as in live recordings."""
    file.seek(4)
    header = _variable_length(file)
    if header is None:
        return 0
    file.seek(header, 1)
    if file.read(4) != _SEGMENT:
        return 0
    length = _variable_length(file)
    return 0 if length is None else file.tell() + length


def _variable_length(file: BinaryIO) -> int | None:
    """Read an EBML length; return None if it is unknown (all ones) or unreadable."""
    first = file.read(1)
    if not first or first[0] == 0:
        return None
    count = 8 - first[0].bit_length()
    rest = file.read(count)
    value = (first[0] & (0x7F >> count)) << 8 * count | int.from_bytes(rest, "big")
    return None if len(rest) < count or value == (1 << 7 * (count + 1)) - 1 else value
