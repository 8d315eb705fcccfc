"""Times of frames: seconds since the first one, strictly increasing."""

from __future__ import annotations

from heapq import heapify, heappop, heappush
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import av

_RESTART = 0.1  # seconds; a time that is this much earlier than the previous one starts a new recording, as in ffmpeg
_SMALLEST = 2e-5  # seconds between two frames that have the same time: two ticks of the 90 kHz clock of MPEG


class Clock:
    """Clock of seconds since the first frame.

    A frame without a time is one period later than the previous one. Times that do not increase are nearly kept: the
    frame follows the previous one by 20 microseconds. After a jump back in time, as at the joint of two recordings,
    time goes on by one period.
    """

    def __init__(self, fps: float) -> None:
        self._period = 1.0 / fps if fps else 0.0
        self._origin = self._raw = 0.0
        self._last: float | None = None
        self._timed = False

    def __call__(self, seconds: float | None) -> float:
        """Return the time of the next frame, whose time in the file is `seconds`, or None."""
        now = 0.0 if self._last is None else self._last + self._period
        if seconds is not None:
            if not self._timed or seconds < self._raw - _RESTART:
                self._origin, self._timed = seconds - now, True
            now, self._raw = seconds - self._origin, seconds
        if self._last is not None and now <= self._last:
            now = self._last + _SMALLEST
        self._last = now
        return now


class DisplayTimes:
    """Times at which frames are shown, for containers that store only those of decoding, such as AVI.

    With B-frames the order of decoding differs from that of display. The decoder returns frames in the order of
    display, therefore each one gets the smallest time that is left. Containers with times of display are recognised
    by the difference of both times, which then varies.
    """

    def __init__(self, stream: Any) -> None:
        self._unit = stream.time_base
        self._waiting: list[tuple[int, int]] | None = [] if self._unit and stream.codec_context.has_b_frames else None
        self._delay: int | None = None
        self._recording = self._last = 0

    def add(self, packet: av.Packet) -> None:
        """Note the time of a packet with a frame."""
        stamp = _stamp(packet)
        if self._waiting is None or stamp is None:
            return
        if packet.pts is not None:
            delay = None if packet.dts is None else packet.pts - packet.dts
            if delay is None or (self._delay is not None and delay != self._delay):
                self._waiting = None
                return
            self._delay = delay
        self._recording += (self._last - stamp) * self._unit > _RESTART
        self._last = stamp
        heappush(self._waiting, (self._recording, stamp))

    def drop(self, packet: av.Packet) -> None:
        """Forget the time of a packet that could not be decoded."""
        stamp = _stamp(packet)
        if self._waiting and stamp is not None and (entry := (self._recording, stamp)) in self._waiting:
            self._waiting.remove(entry)
            heapify(self._waiting)

    def take(self, frame: av.VideoFrame) -> float | None:
        """Return the time of the next frame in seconds; None if unknown."""
        return float(heappop(self._waiting)[1] * self._unit) if self._waiting else frame.time


def _stamp(packet: av.Packet) -> int | None:
    return packet.dts if packet.pts is None else packet.pts
