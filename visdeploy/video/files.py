"""Frames of video files and network streams, decoded by PyAV."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from visdeploy.errors import SourceError
from visdeploy.video.clock import Clock
from visdeploy.video.decoding import Decoding, Fault
from visdeploy.video.indexes import claimed_frames, collect, late_start
from visdeploy.video.integrity import examine
from visdeploy.video.pixels import RgbConverter
from visdeploy.video.source import Image, OnError, RawFrame, Source
from visdeploy.video.verdict import Evidence, Verdict

if TYPE_CHECKING:
    import av

logger = logging.getLogger(__name__)

# With these demuxers FFmpeg decodes any text or binary file as an image of a terminal.
_TEXT_ART = {"tty", "bin", "adf", "idf", "xbin"}
_PLAYABLE = "a video file that FFmpeg can decode"
_HINT = (
    "Copy the file again, or use the frames that it contains: on_error='skip' (pass over damage) or 'stop' (end at "
    "it); on the command line, --on-damage skip or stop-here."
)


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
        if self._remote:  # FFmpeg knows the schemes in lower case only
            scheme, _, rest = self._location.partition("://")
            self._location = f"{scheme.lower()}://{rest}"
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
        self._decoding: Decoding | None = self._open()

    def _reset(self) -> None:
        super()._reset()
        self._evidence: Evidence | None = None

    def _open(self, *, ahead: bool = True) -> Decoding:
        """Open the file, and decode its first frame: the turn of the frames is known only from them."""
        import av

        if not self._remote:
            _check_file(Path(self._location))
        options = {"rtsp_transport": "tcp"} if self._location.startswith("rtsp") else {}
        timeout = (self._timeout, self._timeout) if self._remote else None
        try:
            # without the prefix, FFmpeg takes what precedes a colon for a protocol
            location = self._location if self._remote else f"file:{self._location}"
            container = av.open(location, "r", options={**options, **(self._options or {})}, timeout=timeout)
        except (av.FFmpegError, OSError, ValueError) as error:
            self._refuse(error)
        try:
            decoding = Decoding(container, self._read_header(container), ahead=ahead)
        except SourceError:
            container.close()
            raise
        self._container = container
        if (first := decoding.first()) is not None:
            sideways = first.rotation % 180 == 90
            self.height, self.width = (first.width, first.height) if sideways else (first.height, first.width)
            self.pixel_aspect = 1 / self._stored_aspect if sideways else self._stored_aspect
        return decoding

    def _refuse(self, error: Exception) -> NoReturn:
        hint = (
            "Check the address, the network and the credentials; raise timeout= for slow servers."
            if self._remote
            else "The file is not a video, is damaged, or was cut off before its index was written; copy it again."
        )
        detail = (getattr(error, "strerror", None) or str(error)).replace(self._location, str(self.path))
        cause = None if self._remote else error  # its text contains the whole address
        raise SourceError(f"cannot open {self.path}", seen=detail, expected=_PLAYABLE, hint=hint) from cause

    def _read_header(self, container: av.container.InputContainer) -> av.VideoStream:
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
        rate = stream.average_rate or stream.guessed_rate
        self.fps = float(rate) / self.step if rate else 0.0
        self.height, self.width = stream.codec_context.height or None, stream.codec_context.width or None
        self._stored_aspect = Fraction(max(stream.sample_aspect_ratio or 0, 0)) or Fraction(1)
        self._late = late_start(stream)
        claimed = claimed_frames(stream)
        if claimed is not None:
            self.expected_frames = self.estimated_frames = self._limit(claimed)
        elif container.duration and rate:
            self.estimated_frames = self._limit(max(1, round(container.duration / 1e6 * float(rate))))
        return stream

    def _read(self) -> Iterator[RawFrame]:
        decoding = self._decoding or self._open()
        self._decoding = None
        convert, clock, late = RgbConverter(self.name), Clock(self.fps * self.step), self._late
        for item in decoding:
            if isinstance(item, Fault):
                self._report(item)
                continue
            seconds = decoding.times.take(item)
            yield clock(seconds if late is None else late), partial(self._pixels, item, convert)
            late = None
        self._evidence = self._collect(decoding)
        if Path(self._location).is_file() and decoding.may_have_lost(damaged=bool(self._evidence.damage())):
            known, reported = decoding.decoded, decoding.faults > 0
            self.close()
            decoding = self._open(ahead=False)
            for frame, seconds in self._behind(decoding, known, reported=reported):
                yield clock(seconds), partial(self._pixels, frame, convert)
            self._evidence = self._collect(decoding)
        self._check_end(decoding, self._evidence)

    def _behind(
        self, decoding: Decoding, known: int, *, reported: bool
    ) -> Iterator[tuple[av.VideoFrame, float | None]]:
        """Yield the frames behind the first `known` ones, with their times."""
        for item in decoding:
            if not isinstance(item, Fault):
                seconds = decoding.times.take(item)
                known -= 1
                if known < 0:
                    yield item, seconds
            elif not reported:
                self._report(item)

    def _report(self, fault: Fault) -> None:
        """Raise a `SourceError` for a fault, unless it concerns one packet and `on_error` is `skip`."""
        error = SourceError(
            f"{self.path}: decoding failed after {self.delivered_frames} delivered frames",
            seen=getattr(fault.error, "strerror", None) or str(fault.error),
            hint=f"The file is damaged or truncated. {_HINT}",
        )
        if fault.final:
            raise error from fault.error
        self._pass_over(error)

    def _collect(self, decoding: Decoding) -> Evidence:
        structure = None
        if not self._remote:
            stream = decoding.stream
            form = stream.container.format.name
            structure = examine(Path(self._location), form, index=stream.index, identity=stream.id)
        return collect(decoding, structure)  # after decoding, when all indexes are read

    def _check_end(self, decoding: Decoding, evidence: Evidence) -> None:
        """Raise a `SourceError` if frames are missing, by the rule of `visdeploy.video.verdict`."""
        if decoding.packets == 0:
            raise SourceError(f"{self.path} contains no frames", expected=_PLAYABLE)
        if decoding.headless and decoding.decoded < decoding.packets:
            logger.warning("%s starts in the middle of a group of pictures; %d frames before the first key frame "
                           "cannot be decoded", self.name, decoding.headless)  # fmt: skip
        elif evidence.undecoded:
            logger.warning("%s: %d of %d coded frames gave no image",
                           self.name, evidence.undecoded, decoding.packets)  # fmt: skip
        if decoding.decoded == 0:
            raise SourceError(
                f"{self.path}: no frame can be decoded", seen=f"{decoding.packets} coded frames", hint=_HINT
            )
        if lost := evidence.damage():
            raise SourceError(
                f"{self.path} is {'truncated' if evidence.truncated else 'damaged'}",
                seen=f"{decoding.decoded} frames; {lost}",
                hint=_HINT,
            )

    def _judge(self) -> Verdict:
        verdict = super()._judge()
        return verdict if verdict == "damaged" or self._evidence is None else self._evidence.verdict()

    def _pixels(self, frame: av.VideoFrame, convert: RgbConverter) -> Image:
        if frame.is_corrupt:
            self.corrupt_frames += 1
            if self.corrupt_frames == 1:
                logger.warning("%s: frame %d is damaged and was concealed by the decoder", self.name, self._position)
        return convert(frame)

    def close(self) -> None:
        """Close the file or connection; the next iteration opens it again."""
        container, self._container, self._decoding = self._container, None, None
        if container is not None:
            container.close()


def is_url(text: str) -> bool:
    """Return whether a string is an address with a scheme, not a path."""
    return re.match(r"[a-zA-Z][a-zA-Z0-9+.-]+://", text) is not None


def _preference(stream: av.VideoStream) -> int:
    """Return the preference of a stream as in the program ffmpeg: the largest frame, unless another is default."""
    from av.stream import Disposition

    area = (stream.codec_context.width or 0) * (stream.codec_context.height or 0)
    return area + 5_000_000 * (Disposition.default in stream.disposition)


def without_secrets(url: str) -> str:
    """Return a URL without user, password, query and fragment, any of which can be a credential.

    A password with a `/`, `?` or `#` that is not escaped makes the address invalid, but must not be shown either.
    """
    scheme, _, rest = url.partition("://")
    authority = re.split(r"[/?#]", rest, maxsplit=1)[0].rpartition("@")[2]
    if not re.fullmatch(r"(\[.*\]|[^:]*)(:\d*)?", authority):  # the first half of a user and password
        rest = rest.rpartition("@")[2]
    host, slash, path = re.split(r"[?#]", rest, maxsplit=1)[0].partition("/")
    return f"{scheme}://{host.rpartition('@')[2]}{slash}{path}"


def _check_file(path: Path) -> None:
    if not path.exists():
        raise SourceError(
            f"{path} does not exist", hint="Check the path; relative paths start at the working directory."
        )
    if path.is_file() and path.stat().st_size == 0:
        raise SourceError(f"{path} is empty", seen="0 bytes", expected=_PLAYABLE, hint="Copy the file again.")
