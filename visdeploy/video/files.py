"""Frames of video files and network streams, decoded by PyAV."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Sequence
from fractions import Fraction
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from visdeploy.errors import SourceError
from visdeploy.video.integrity import missing_bytes
from visdeploy.video.pixels import RgbConverter
from visdeploy.video.source import Image, OnError, RawFrame, Source

if TYPE_CHECKING:
    import av

logger = logging.getLogger(__name__)

# With these demuxers FFmpeg decodes any text or binary file as an image of a terminal.
_TEXT_ART = {"tty", "bin", "adf", "idf", "xbin"}
_PLAYABLE = "a video file that FFmpeg can decode"


class VideoSource(Source):
    """Video file, or URL (http, https, rtsp, rtmp, udp, ...) if `path` has a scheme."""

    def __init__(
        self,
        path: str | Path,
        *,
        name: str | None = None,
        max_frames: int | None = None,
        start: int = 0,
        step: int = 1,
        on_error: OnError = "raise",
        timeout: float = 10.0,
        options: dict[str, str] | None = None,
    ) -> None:
        self._location = str(path)
        self._remote = is_url(self._location)
        self.kind = "url" if self._remote else "video"
        shown = without_secrets(self._location) if self._remote else self._location
        super().__init__(
            name or Path(shown).stem or shown, shown, max_frames=max_frames, start=start, step=step, on_error=on_error
        )
        self.address = self._location
        if not self._remote:
            self.files = (Path(self._location),)
        self._timeout, self._options = timeout, options
        self._container: av.container.InputContainer | None = None
        self._warned_turn = self._sideways = False
        self._open()

    def _open(self) -> av.container.InputContainer:
        import av

        if not self._remote:
            _check_file(Path(self._location))
        options = {"rtsp_transport": "tcp"} if self._location.lower().startswith("rtsp") else {}
        timeout = (self._timeout, self._timeout) if self._remote else None
        try:
            # without the prefix, FFmpeg takes what precedes a colon for a protocol
            location = self._location if self._remote else f"file:{self._location}"
            container = av.open(location, "r", options={**options, **(self._options or {})}, timeout=timeout)
        except (av.FFmpegError, OSError, ValueError) as error:
            self._refuse(error)
        try:
            self._read_header(container)
        except SourceError:
            container.close()
            raise
        self._container = container
        return container

    def _refuse(self, error: Exception) -> NoReturn:
        hint = (
            "Check the address, the network and the credentials; raise timeout= for slow servers."
            if self._remote
            else "The file is not a video, is damaged, or was cut off before its index was written; copy it again."
        )
        detail = (getattr(error, "strerror", None) or str(error)).replace(self._location, str(self.path))
        raise SourceError(f"cannot open {self.path}", seen=detail, expected=_PLAYABLE, hint=hint) from error

    def _read_header(self, container: av.container.InputContainer) -> None:
        from av.stream import Disposition

        if container.format.name in _TEXT_ART:
            raise SourceError(f"{self.path} is not a video", seen="text or unknown bytes", expected=_PLAYABLE)
        videos = [s for s in container.streams.video if Disposition.attached_pic not in s.disposition]
        if not videos:
            kinds = ", ".join(sorted({s.type for s in container.streams})) or "no stream"
            raise SourceError(
                f"{self.path} contains no video stream",
                seen=kinds,
                expected=_PLAYABLE,
                hint="Choose a file with video: this one has only sound or a cover image.",
            )
        decodable = [stream for stream in videos if stream.codec_context is not None]
        if not decodable:
            raise SourceError(
                f"the video stream of {self.path} cannot be decoded",
                seen="a codec that FFmpeg does not know or was built without",
                expected=_PLAYABLE,
                hint="Convert the file, for example to H.264.",
            )
        stream = max(decodable, key=_preference)
        self._stream_index = stream.index
        rate = stream.average_rate or stream.guessed_rate
        self.fps = float(rate) / self.step if rate else 0.0
        self.height, self.width = stream.codec_context.height or None, stream.codec_context.width or None
        if stream.sample_aspect_ratio and stream.sample_aspect_ratio > 0:
            self.pixel_aspect = Fraction(stream.sample_aspect_ratio)
        self._claimed = _claimed_frames(stream)
        if self._claimed is not None:
            self.expected_frames = self.estimated_frames = self._limit(self._claimed)
        elif container.duration and rate:
            self.estimated_frames = self._limit(max(1, round(container.duration / 1e6 * float(rate))))

    def _read(self) -> Iterator[RawFrame]:
        container = self._container or self._open()
        stream: Any = container.streams[self._stream_index]
        stream.thread_type = "AUTO"
        convert, clock = RgbConverter(), _Clock(self.fps * self.step)
        self._packets, late = 0, _late_start(stream)
        for frame in self._decode(container, stream):
            yield clock(frame.time if late is None else late), partial(self._pixels, frame, convert)
            late = None
        self._check_end()

    def _check_end(self) -> None:
        """Raise a `SourceError` if the file has fewer frames or bytes than its header states."""
        if self._packets == 0:
            raise SourceError(f"{self.path} contains no frames", expected=_PLAYABLE)
        got, claimed = self._position + 1, self._claimed
        if claimed is not None and got >= claimed:
            return
        lost = 0 if self._remote else missing_bytes(Path(self._location))
        if claimed is not None and self._packets < claimed:
            expected = f"{claimed} frames according to its header"
        elif lost:
            expected = f"{lost} more bytes according to its header"
        else:
            return
        hint = "Copy the file again, or pass on_error='stop' to use the frames it contains."
        raise SourceError(f"{self.path} is truncated", seen=f"{got} frames", expected=expected, hint=hint)

    def _decode(self, container: av.container.InputContainer, stream: Any) -> Iterator[av.VideoFrame]:
        import av

        packets = container.demux(stream)
        while True:
            try:
                packet = next(packets, None)
            except (av.FFmpegError, OSError) as error:
                raise self._damaged(error) from error
            if packet is None:
                return
            if packet.size and not packet.is_discard and not packet.is_corrupt:
                self._packets += 1
            try:
                frames = packet.decode()
            except (av.FFmpegError, OSError, ValueError) as error:
                self._pass_over(self._damaged(error))
                continue
            yield from frames

    def _damaged(self, error: Exception) -> SourceError:
        return SourceError(
            f"{self.path}: decoding failed after {self.delivered_frames} delivered frames",
            seen=getattr(error, "strerror", None) or str(error),
            hint="The file is damaged or truncated. Copy it again, or pass on_error='stop' (end here) or 'skip'.",
        )

    def _pixels(self, frame: av.VideoFrame, convert: RgbConverter) -> Image:
        if frame.is_corrupt:
            self.corrupt_frames += 1
            if self.corrupt_frames == 1:
                logger.warning("%s: frame %d is damaged and was concealed by the decoder", self.name, self._position)
        pixels = convert(frame)
        if convert.turn is not None and convert.turn[0] == 0 and not self._sideways:
            self._sideways, self.pixel_aspect = True, 1 / self.pixel_aspect
        if convert.turn is None and not self._warned_turn:
            self._warned_turn = True
            logger.warning("%s: the rotation is not applied, because it is not a multiple of 90 degrees", self.name)
        return pixels

    def close(self) -> None:
        """Close the file or connection; the next iteration opens it again."""
        container, self._container = self._container, None
        if container is not None:
            container.close()


class _Clock:
    """Clock of seconds since the first frame; adds one period where a timestamp is missing or does not increase."""

    def __init__(self, fps: float) -> None:
        self._period = 1.0 / fps if fps else 0.0
        self._first: float | None = None
        self._last = -self._period

    def __call__(self, seconds: float | None) -> float:
        if seconds is not None and self._first is None:
            self._first = seconds - (self._last + self._period)
        now = self._last + self._period if seconds is None or self._first is None else seconds - self._first
        if now <= self._last:
            now = self._last + self._period
        self._last = now
        return now


def is_url(text: str) -> bool:
    """Return whether a string is an address with a scheme, not a path."""
    return re.match(r"[a-zA-Z][a-zA-Z0-9+.-]+://", text) is not None


def _preference(stream: av.VideoStream) -> int:
    """Return the preference of a stream as in the program ffmpeg: the largest picture, unless another is default."""
    from av.stream import Disposition

    area = (stream.codec_context.width or 0) * (stream.codec_context.height or 0)
    return area + 5_000_000 * (Disposition.default in stream.disposition)


def without_secrets(url: str) -> str:
    """Return a URL without user, password, query and fragment, any of which can be a credential."""
    scheme, _, rest = url.partition("://")
    host, slash, path = re.split(r"[?#]", rest, maxsplit=1)[0].partition("/")
    return f"{scheme}://{host.rpartition('@')[2]}{slash}{path}"


def _check_file(path: Path) -> None:
    if not path.exists():
        raise SourceError(
            f"{path} does not exist", hint="Check the path; relative paths start at the working directory."
        )
    if path.is_file() and path.stat().st_size == 0:
        raise SourceError(f"{path} is empty", seen="0 bytes", expected=_PLAYABLE, hint="Copy the file again.")


def _claimed_frames(stream: av.VideoStream) -> int | None:
    """Return the number of frames according to the container's header or index; None if neither states it.

    The index of an MP4 or AVI file takes precedence: unlike the header's count, it excludes frames hidden by an edit
    list, empty samples, and the empty chunks by which AVI says that the last picture stays.
    """
    if stream.frames <= 0:
        return None
    if entries := _index(stream):
        return sum(1 for entry in entries if not entry.is_discard and entry.size > 0)
    return int(stream.frames)


def _index(stream: av.VideoStream) -> Sequence[Any]:
    """Return the index of an MP4 or AVI file; empty for others, and without an index."""
    entries = getattr(stream, "index_entries", None)  # PyAV >= 17
    indexed = {"mp4", "avi"} & set(stream.container.format.name.split(","))
    return entries if indexed and entries is not None else ()


def _late_start(stream: av.VideoStream) -> float | None:
    """Return the time in seconds of the first picture of an AVI file that starts late; None for others.

    FFmpeg writes the empty chunks of the time before the first picture directly behind it.
    """
    if stream.container.format.name != "avi" or not stream.time_base:
        return None
    times = [entry.timestamp for entry in _index(stream)]
    if len(times) < 3:
        return None
    period = min(b - a for a, b in pairwise(times[1:]))
    return float((times[1] - period) * stream.time_base) if times[1] - times[0] > period else None
