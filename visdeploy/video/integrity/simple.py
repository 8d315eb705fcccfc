"""Containers that are a flat sequence of parts with lengths: RIFF (AVI) and FLV."""

from __future__ import annotations

from typing import Any, BinaryIO

from visdeploy.video.integrity.structure import Ending, Structure, missing, unreadable

_FLV_TAGS = (8, 9, 18)  # sound, frames, metadata


def examine_riff(file: BinaryIO, size: int, **_: Any) -> Structure:
    """Examine the chunks of an AVI file; a recorder that was interrupted leaves its length at 0."""
    head = file.read(12)
    length = int.from_bytes(head[4:8], "little")
    if head[:4] != b"RIFF" or length == 0:
        return Structure(Ending.OPEN)
    lost = 8 + length - size
    if lost > 0:
        return Structure(Ending.CUT, missing(lost, "the file"))
    position = 12
    while position + 8 <= 8 + length:
        file.seek(position)
        head = file.read(8)
        if not all(32 <= letter < 127 for letter in head[:4]):
            return Structure(Ending.BROKEN, unreadable(position, "chunk"))
        position += 8 + int.from_bytes(head[4:], "little")
        position += position % 2
    return Structure(Ending.STATED)


def examine_flv(file: BinaryIO, size: int, **_: Any) -> Structure:
    """Examine the tags of an FLV file (Adobe Flash Video File Format 10.1, annex E.4); it does not state its end."""
    head = file.read(9)
    position = int.from_bytes(head[5:9], "big") + 4
    while position < size:
        file.seek(position)
        head = file.read(11)
        if head and head[0] & 0x1F not in _FLV_TAGS:
            return Structure(Ending.BROKEN, unreadable(position, "tag"))
        length = 11 + int.from_bytes(head[1:4], "big")
        if len(head) < 11 or position + length > size:
            return Structure(Ending.CUT, missing(max(1, position + length - size), "the last tag"))
        position += length
        file.seek(position)
        if int.from_bytes(file.read(4), "big") not in (0, length):
            return Structure(Ending.BROKEN, unreadable(position, "length of the previous tag"))
        position += 4
    return Structure(Ending.OPEN)
