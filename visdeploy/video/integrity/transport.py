"""Packets of MPEG transport streams (ISO/IEC 13818-1, 2.4.3)."""

from __future__ import annotations

from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from visdeploy.video.integrity.structure import Ending, Structure, missing, unreadable

_SYNC = 0x47
_LAYOUTS = ((188, 0), (192, 4), (204, 0))  # bytes of a packet, and position of its sync byte
_CHUNK = 1 << 15  # packets


def examine(file: BinaryIO, size: int, *, identity: int, **_: Any) -> Structure:
    """Examine sync bytes and the counters of the packets of the stream; the container does not state its end."""
    head = file.read(8 * 204 + 204)
    layout = _layout(head)
    if layout is None:
        return Structure(Ending.OPEN)
    start, length, sync = layout
    file.seek(start)
    counters, position = _Counters(identity), start
    while len(data := file.read(_CHUNK * length)) >= length:
        packets = np.frombuffer(data[: len(data) // length * length], np.uint8).reshape(-1, length)[:, sync:]
        wrong = np.flatnonzero(packets[:, 0] != _SYNC)
        if len(wrong):
            return Structure(Ending.BROKEN, unreadable(position + int(wrong[0]) * length, "packet"))
        if (lost := counters.gap(packets)) is not None:
            return Structure(Ending.BROKEN, unreadable(position + lost * length, "continuation"))
        position += len(packets) * length
    file.seek(position)
    tail = file.read()
    if len(tail) > sync and tail[sync] == _SYNC:
        return Structure(Ending.CUT, missing(length - len(tail), "the last packet"))
    return Structure(Ending.OPEN)


def _layout(head: bytes) -> tuple[int, int, int] | None:
    """Return the position of the first whole packet, the length of packets, and the position of the sync byte."""
    for length, sync in _LAYOUTS:
        count = min(5, (len(head) - sync) // length)
        for start in range(length if count > 1 else 1):
            places = head[start + sync :: length][:count]
            if places and places == bytes([_SYNC]) * count:
                return start, length, sync
    return None


class _Counters:
    """Continuity counter of one stream, over all packets so far."""

    def __init__(self, identity: int) -> None:
        self._identity = identity
        self._last: int | None = None

    def gap(self, packets: npt.NDArray[np.uint8]) -> int | None:
        """Return the number of the packet before which packets are missing, or that is marked as faulty.

        A recording that was joined to the previous one starts with counter 0 and a new frame.
        """
        identity = (packets[:, 1].astype(int) & 0x1F) << 8 | packets[:, 2]
        mine = np.flatnonzero((identity == self._identity) & (packets[:, 3] & 0x10 != 0))
        if not len(mine):
            return None
        counter = packets[mine, 3].astype(int) & 0x0F
        before = np.concatenate(([counter[0] - 1 if self._last is None else self._last], counter[:-1]))
        self._last = int(counter[-1])
        joined = (packets[mine, 1] & 0x40 != 0) & (counter == 0)
        marked = (packets[mine, 3] & 0x20 != 0) & (packets[mine, 4] > 0) & (packets[mine, 5] & 0x80 != 0)
        continues = ((counter - before) % 16 <= 1) | joined | marked
        faulty = ~continues | (packets[mine, 1] & 0x80 != 0)
        return int(mine[np.argmax(faulty)]) if faulty.any() else None
