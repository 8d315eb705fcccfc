"""Decoding of one video stream: a plain loop that counts what it reads and records every sign of damage."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

from visdeploy.video.clock import DisplayTimes

if TYPE_CHECKING:
    import av


_MAX_FAULTS = 100  # before the first frame
_HIDING = ("vp8", "vp9", "av1", "libvpx", "libdav1d", "libaom")
"""Decoders of codecs with packets that only help to predict others."""


@dataclass(frozen=True, slots=True)
class Fault:
    """Failure of the demuxer, after which nothing more can be read, or of the decoder at one packet."""

    error: Exception
    final: bool = False


class Decoding:
    """Iterator over the decoded frames of a stream and the faults between them.

    Args:
        container: The opened file.
        stream: Its stream.
        ahead: Decode several frames at a time. FFmpeg then loses the last ones of a truncated file.

    Attributes:
        stream: The stream.
        packets: Number of packets with data of visible frames.
        empty: Number of packets without data, by which AVI and MP4 say that the last frame stays.
        headless: Number of packets before the first key frame, as in streams that were cut without encoding anew.
        decoded: Number of decoded frames.
        corrupt: Number of packets which the demuxer found to be incomplete.
        faults: Number of faults.
        end: Latest end of a packet, in the unit of the stream; None without times.
        recent: Times of display of the last packets, in the unit of the stream.
        times: Times of the frames.
    """

    def __init__(self, container: av.container.InputContainer, stream: Any, *, ahead: bool = True) -> None:
        stream.thread_type = "AUTO" if ahead else "SLICE"
        self.packets = self.empty = self.headless = self.decoded = self.corrupt = self.faults = 0
        self.stream, self._keyed = stream, False
        self.end: int | None = None
        self.recent: deque[int] = deque(maxlen=64)
        self.times = DisplayTimes(stream)
        self._tolerant, self._passed = not _starts_with_key_frame(container, stream), 0
        self._ahead: deque[av.VideoFrame | Fault] = deque()
        self._items = self._run(container, stream)

    def first(self) -> av.VideoFrame | None:
        """Return the first frame without taking it; None if there is none, or many faults precede it."""
        for item in islice(self._items, _MAX_FAULTS):
            self._ahead.append(item)
            if not isinstance(item, Fault):
                return item
        return None

    @property
    def undecoded(self) -> int:
        """Number of packets that gave no image: faulty before the first key frame, silent after it.

        Codecs with hidden frames have silent packets by design.
        """
        hides = self.stream.codec_context.name.startswith(_HIDING)
        return self._passed if hides else max(self._passed, self.packets - self.headless - self.decoded)

    @property
    def intra_only(self) -> bool:
        """Whether every packet is a frame of its own."""
        return bool(self.stream.codec_context.codec.intra_only)

    def may_have_lost(self, *, damaged: bool) -> bool:
        """Return whether the decoder may have lost frames: FFmpeg hides errors at the end, where it returns several."""
        return self.undecoded > 0 or (self.decoded < self.packets and (damaged or self.faults > 0))

    def __iter__(self) -> Iterator[av.VideoFrame | Fault]:
        while self._ahead:
            yield self._ahead.popleft()
        yield from self._items

    def _run(self, container: av.container.InputContainer, stream: Any) -> Iterator[av.VideoFrame | Fault]:
        import av

        packets = container.demux(stream)
        while True:
            try:
                packet = next(packets, None)
            except (av.FFmpegError, OSError) as error:
                yield from self._decode(_end(stream))
                self.faults += 1
                yield Fault(error, final=True)
                return
            if packet is None:
                return
            if packet.size == 0 and packet.dts is not None:  # to the decoder, it would be the end of the stream
                self.empty += 1
                continue
            self._count(packet)
            yield from self._decode(packet)

    def _decode(self, packet: av.Packet) -> Iterator[av.VideoFrame | Fault]:
        import av

        try:
            frames = packet.decode()
        except EOFError:  # flushed twice
            return
        except (av.FFmpegError, OSError, ValueError) as error:
            self.times.drop(packet)
            if self._tolerant and self.headless and not self.decoded:
                self._passed += 1
                return
            self.faults += 1
            yield Fault(error)
            return
        self.decoded += len(frames)
        yield from frames

    def _count(self, packet: av.Packet) -> None:
        if not packet.size or packet.is_discard:
            return
        self.packets += 1
        self.corrupt += packet.is_corrupt
        self._keyed = self._keyed or packet.is_keyframe
        self.headless += not self._keyed
        self.times.add(packet)
        if packet.pts is not None:
            self.recent.append(packet.pts)
            end = packet.pts + (packet.duration or 0)
            self.end = end if self.end is None else max(self.end, end)


def _starts_with_key_frame(container: av.container.InputContainer, stream: Any) -> bool:
    """Return whether the index says so; otherwise, faults before the first key frame are no damage."""
    entries: Any = getattr(stream, "index_entries", None)  # PyAV >= 17
    indexed = container.format.name.split(",")[0] in ("mov", "avi")
    return bool(indexed and entries and entries[0].is_keyframe)


def _end(stream: Any) -> av.Packet:
    """Return the packet that makes the decoder return the frames which it still holds."""
    import av

    packet = av.Packet()
    packet.stream, packet.time_base = stream, stream.time_base
    return packet
