"""Top-level boxes of MP4 and MOV files (ISO/IEC 14496-12, 4.2)."""

from __future__ import annotations

from typing import Any, BinaryIO

from visdeploy.video.integrity.structure import Ending, Structure, missing, unreadable

_BOXES = frozenset(b"ftyp moov mdat moof mfra sidx styp free skip wide uuid meta pdin emsg prft ssix udta pnot".split())
"""Types of top-level boxes; what else follows a box is no part of the video."""
_IN_FRAGMENT = frozenset(
    b"mfhd traf tfhd tfdt trun sdtp saiz saio senc sbgp sgpd subs uuid meta pssh udta free skip".split()
)
_NEEDED = (b"moov", b"moof", b"mdat", b"ftyp", b"styp", b"sidx")
"""Boxes that hold frames, or that frames follow."""


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
            if b"moof" in seen and _holds_fragment(file, position):
                return Structure(Ending.BROKEN, unreadable(position, "box"), fragmented=True)
            break
        if position + length > size and kind in _NEEDED:
            lost = missing(position + length - size, f"box {kind.decode()}")
            return Structure(Ending.CUT, lost, fragmented=b"moof" in seen)
        if kind == b"moof" and not _is_sound(file, position + 8, position + length):
            return Structure(Ending.BROKEN, unreadable(position, "readable fragment"), fragmented=True)
        seen.add(kind)
        position += length
    fragmented = b"moof" in seen
    return Structure(Ending.OPEN if fragmented and b"mfra" not in seen else Ending.STATED, fragmented=fragmented)


def _is_sound(file: BinaryIO, position: int, end: int) -> bool:
    """Return whether the parts of a fragment fill it."""
    while position < end:
        file.seek(position)
        head = file.read(16)
        length = _length(head, end - position)
        if length is None or position + length > end or head[4:8] not in _IN_FRAGMENT:
            return False
        if head[4:8] == b"traf" and not _is_sound(file, position + 8, position + length):
            return False
        position += length
    return position == end


def _holds_fragment(file: BinaryIO, position: int) -> bool:
    """Return whether a fragment or the index of fragments follows unknown bytes."""
    file.seek(position)
    last = b""
    while chunk := file.read(1 << 20):
        if any(kind in last + chunk for kind in (b"moof", b"mfra", b"mdat")):
            return True
        last = chunk[-3:]
    return False


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
