"""Packets of MPEG program streams: `.mpg`, `.vob` (ISO/IEC 11172-1, 13818-1 2.5)."""

from __future__ import annotations

from typing import Any, BinaryIO

from visdeploy.video.integrity.structure import Ending, Structure, missing, unreadable

_END, _PACK, _PADDING = 0xB9, 0xBA, 0xBE


def examine(file: BinaryIO, size: int, **_: Any) -> Structure:
    """Examine that every packet ends where the next one starts."""
    position, ended = 0, False
    while position < size:
        file.seek(position)
        head = file.read(14)
        if head[:3] != b"\0\0\1"[: len(head)]:
            padded = _zeros(file, position, size)
            if padded == position:
                return Structure(Ending.BROKEN, unreadable(position, "packet"))
            position = padded
            continue
        kind = head[3] if len(head) > 3 else _PACK
        ended = kind == _END
        length = _length(kind, head)
        if position + length > size and kind != _PADDING:
            return Structure(Ending.CUT, missing(position + length - size, "the last packet"))
        position += length
    return Structure(Ending.STATED if ended else Ending.OPEN)


def _length(kind: int, head: bytes) -> int:
    """Return the number of bytes of a packet."""
    if kind == _END:
        return 4
    if kind != _PACK:
        return 6 + int.from_bytes(head[4:6], "big")
    if len(head) > 4 and head[4] >> 4 == 2:  # MPEG-1
        return 12
    return 14 + (head[13] & 7 if len(head) == 14 else 0)


def _zeros(file: BinaryIO, position: int, size: int) -> int:
    """Return the position of the packet behind zero bytes, or `position` if something else follows."""
    file.seek(position)
    while chunk := file.read(1 << 16):
        rest = chunk.lstrip(b"\0")
        if not rest:
            continue
        start = file.tell() - len(rest) - 2
        return max(start, position) if rest[:1] == b"\1" and start > position else position
    return size
