"""Blocks of a GIF file (GIF89a, section 'Appendix B')."""

from __future__ import annotations

import re
from typing import Any, BinaryIO

from visdeploy.video.integrity.structure import Ending, Structure, unreadable

_FRAME = re.compile(rb"\x21\xf9\x04.{4}\x00\x2c", re.DOTALL)  # graphic control extension and image
_MOST_ZEROS = 4  # between blocks, which FFmpeg skips; more are a hole
_EXTENSION, _IMAGE, _TRAILER, _GRAPHIC_CONTROL = 0x21, 0x2C, 0x3B, 0xF9


def examine(file: BinaryIO, size: int, **_: Any) -> Structure:
    """Examine the blocks up to the trailer, which some programs omit.

    Only images with a graphic control extension are counted: others are parts of the frame before them.
    """
    head = file.read(13)
    if len(head) == 13:
        file.seek(_table(head[10]), 1)
    images, announced, regular, zeros = 0, False, True, 0
    while file.tell() <= size:
        position = file.tell()
        kind = file.read(1)
        if not kind:
            if announced:
                return Structure(Ending.CUT, "the file ends before an image that it announces", images)
            return Structure(Ending.OPEN, frames=images)
        if kind[0] == _TRAILER:
            file.seek(0)
            found = len(_FRAME.findall(file.read()))
            if found > images:
                return Structure(Ending.BROKEN, f"{found} images, but only {images} in readable blocks", found)
            return Structure(Ending.STATED if regular else Ending.OPEN, frames=images)
        if kind[0] == _EXTENSION:
            announced = file.read(1) == bytes([_GRAPHIC_CONTROL]) or announced
        elif kind[0] == _IMAGE:
            images, announced = images + announced, False
            frame = file.read(9)
            file.seek((_table(frame[8]) if len(frame) == 9 else 0) + 1, 1)
        elif kind == b"\0" and zeros < _MOST_ZEROS:
            zeros += 1
            continue
        else:
            return Structure(Ending.BROKEN, unreadable(position - zeros, "block"), images)
        lengths = _skip_data(file)
        if lengths is None:
            break
        # programs fill all parts of an image but the last; others are what bytes of a lost image happen to look like
        regular, zeros = regular and (kind[0] != _IMAGE or len(set(lengths[:-1])) <= 1), 0
    return Structure(Ending.CUT, "the file ends inside a block", images)


def _table(flags: int) -> int:
    """Return the number of bytes of a colour table."""
    return 3 << ((flags & 7) + 1) if flags & 0x80 else 0


def _skip_data(file: BinaryIO) -> list[int] | None:
    """Skip sub-blocks up to the empty one, and return their lengths; None if the file ends before."""
    lengths: list[int] = []
    while length := file.read(1):
        if length == b"\0":
            return lengths
        if len(file.read(length[0])) < length[0]:
            return None
        lengths.append(length[0])
    return None
