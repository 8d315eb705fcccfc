"""Top-level boxes of MP4 and MOV files (ISO/IEC 14496-12, 4.2)."""

from __future__ import annotations

from typing import Any, BinaryIO

from visdeploy.video.integrity.structure import Ending, Structure, missing

_BOXES = frozenset(b"ftyp moov mdat moof mfra sidx styp free skip wide uuid meta pdin emsg prft ssix udta pnot".split())
"""Types of top-level boxes; what else follows a box is no part of the video."""
_NEEDED = (b"moov", b"moof", b"mdat", b"ftyp", b"styp", b"sidx")
"""Boxes that hold pictures, or that pictures follow."""


def examine(file: BinaryIO, size: int, **_: Any) -> Structure:
    """Examine the lengths of the boxes; the last of a truncated file ends beyond the file."""
    position, seen = 0, set()
    while position < size:
        file.seek(position)
        head = file.read(16)
        kind, length = head[4:8], _length(head, size - position)
        if length is None or kind not in _BOXES:
            if len(head) < 8 and _begins_box(head) and b"mfra" not in seen:
                return Structure(Ending.CUT, missing(8 - len(head), "a box"), fragmented=b"moof" in seen)
            break
        if position + length > size and kind in _NEEDED:
            lost = missing(position + length - size, f"box {kind.decode()}")
            return Structure(Ending.CUT, lost, fragmented=b"moof" in seen)
        seen.add(kind)
        position += length
    fragmented = b"moof" in seen
    return Structure(Ending.OPEN if fragmented and b"mfra" not in seen else Ending.STATED, fragmented=fragmented)


def _length(head: bytes, rest: int) -> int | None:
    """Return the length of a box; None if this is no box."""
    if len(head) < 8:
        return None
    length = int.from_bytes(head[:4], "big")
    if length == 1:
        length = int.from_bytes(head[8:16], "big") if len(head) == 16 else rest + 1
    if length == 0:  # to the end of the file
        return rest
    return length if length >= 8 else None


def _begins_box(head: bytes) -> bool:
    """Return whether less than 8 bytes are the beginning of a box: its length, mostly below 2^24, and its type."""
    return bool(head) and head[0] == 0 and any(box.startswith(head[4:]) for box in _BOXES)
