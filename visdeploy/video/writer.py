"""Writer of H.264 video files from RGB frames."""

from __future__ import annotations

import os
from contextlib import ExitStack, suppress
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from visdeploy.arguments import check_choice, check_integer, check_number, check_path
from visdeploy.atomic import replacing_file, writing
from visdeploy.brief import Plain, brief, shorten
from visdeploy.errors import ConfigError, DataError
from visdeploy.video.source import Image

if TYPE_CHECKING:
    import av

_CONTAINERS = {".mp4": "mp4", ".mov": "mov", ".mkv": "matroska"}
_TICKS = 90_000  # per second; fine enough for any camera, and what MPEG itself uses
_BT709, _LIMITED = 1, 1
_LONGEST_SIDE = 65_535
_PRESETS = ("ultrafast", "superfast", "veryfast", "faster", "fast", "medium", "slow", "slower", "veryslow")


def check_ending(path: str | os.PathLike[str]) -> None:
    """Check that the ending of a path is that of a container which `VideoWriter` can write.

    Raises:
        ConfigError: It is not.
    """
    path = check_path(path, "path of a video")
    if path.suffix.lower() not in _CONTAINERS:
        raise ConfigError(f"cannot write video {path}", seen=f"ending {path.suffix!r}", expected=", ".join(_CONTAINERS))


def _fraction(value: float | Fraction) -> Fraction:
    return Fraction(value) if isinstance(value, int | float | Fraction) else Fraction(float(value))


class VideoWriter:
    """Writer of RGB frames as H.264 (yuv420p, tagged as BT.709).

    H.264 in yuv420p needs even sizes. An odd side is extended by a copy of its last row or column (`odd="pad"`), or
    loses that row or column (`odd="crop"`). The video is written to a temporary file in the same folder, which `close`
    renames to `path` and an error inside the `with` block removes.

    Args:
        path: `.mp4`, `.mov` or `.mkv`.
        width: Columns of the frames, in pixels.
        height: Rows of the frames, in pixels.
        fps: Frames per second; fractions such as 30000/1001 are kept.
        quality: x264's constant rate factor, 0 (lossless) to 51 (worst).
        preset: x264's preset, from `ultrafast` to `veryslow`.
        odd: What to do with an odd width or height.
        pixel_aspect: Width of a pixel on the screen divided by its height.

    Raises:
        ConfigError: An argument is out of range.
        DataError: FFmpeg cannot encode H.264, or a frame has a wrong size, type or timestamp.
        OutputError: The file cannot be written.
    """

    def __init__(
        self,
        path: str | Path,
        width: int,
        height: int,
        fps: float | Fraction,
        *,
        quality: int = 20,
        preset: str = "veryfast",
        odd: Literal["pad", "crop"] = "pad",
        pixel_aspect: Fraction = Fraction(1),
    ) -> None:
        self.path = check_path(path, "path of a video")
        self.odd = odd
        self._check(width, height, fps, quality, preset, pixel_aspect)
        self.width, self.height, self.rate = int(width), int(height), _fraction(fps).limit_denominator(1001)
        self.frames_written = 0
        self._last_tick, self._pixel_aspect = -1, _fraction(pixel_aspect)
        self._stack, self._writing = ExitStack(), False
        self._open(quality, preset)

    def _check(self, width: Any, height: Any, fps: Any, quality: Any, preset: Any, pixel_aspect: Any) -> None:
        check_ending(self.path)
        check_choice(self.odd, "odd sides of a video", ("pad", "crop"))
        check_choice(preset, "preset of a video", _PRESETS)
        for side in (width, height):
            what = f"size of a video, {shorten(width)}x{shorten(height)}"
            check_integer(side, what, minimum=2 if self.odd == "crop" else 1, maximum=_LONGEST_SIDE)
        check_number(fps, "fps of a video", minimum=1 / 1001, maximum=1e6)
        check_integer(quality, "quality of a video, 0 (lossless) to 51", maximum=51)
        check_number(pixel_aspect, "pixel_aspect of a video", minimum=1e-3, maximum=1e3)

    def _open(self, quality: int, preset: str) -> None:
        import av
        from av.video.reformatter import VideoReformatter

        self._scaler = VideoReformatter()
        try:
            temporary = self._stack.enter_context(replacing_file(self.path))
            container = av.open(f"file:{temporary}", "w", format=_CONTAINERS[self.path.suffix.lower()])
            self._stack.callback(container.close)
            stream: Any = container.add_stream(
                "libx264", rate=self.rate, options={"crf": str(quality), "preset": preset}
            )
            up = self.odd == "pad"
            stream.width, stream.height = ((side + up) // 2 * 2 for side in (self.width, self.height))
            stream.pix_fmt = "yuv420p"
            context = stream.codec_context
            context.time_base = Fraction(1, _TICKS)
            context.sample_aspect_ratio = self._pixel_aspect
            context.colorspace = context.color_primaries = context.color_trc = _BT709
            context.color_range = _LIMITED
            context.open()
        except (av.FFmpegError, ValueError) as error:
            self._discard(error)
            raise DataError(
                f"cannot write video {self.path}", seen=str(error), expected="FFmpeg with libx264"
            ) from error
        self._container, self._stream, self._writing = container, stream, True

    def write(self, image: Image, timestamp: float | None = None) -> None:
        """Append a frame.

        Args:
            image: RGB, uint8, `(height, width, 3)`.
            timestamp: Seconds from the start, strictly increasing; by default one period of `fps` after the last frame.
        """
        from av import VideoFrame

        wanted = (self.height, self.width, 3)
        if not isinstance(image, np.ndarray) or image.shape != wanted or image.dtype != np.uint8:
            raise DataError(
                f"frame {self.frames_written} does not match video {self.path}",
                seen=shorten(image),
                expected=f"uint8 array {wanted}",
            )
        if not self._writing:
            raise DataError(f"cannot write to video {self.path}", seen="it is closed", hint="Open a new VideoWriter.")
        if timestamp is not None:
            timestamp = check_number(timestamp, "timestamp of a frame", maximum=1e9)
        tick = round((self.frames_written / self.rate if timestamp is None else timestamp) * _TICKS)
        if tick <= self._last_tick:
            raise DataError(
                f"frame {self.frames_written} of video {self.path} is not later than the previous one",
                seen=f"{tick / _TICKS:.6f} s after {self._last_tick / _TICKS:.6f} s",
            )
        frame = VideoFrame.from_ndarray(self._even(image), format="rgb24")
        frame = self._scaler.reformat(
            frame, format="yuv420p", dst_colorspace=_BT709, dst_color_range=_LIMITED, threads=1
        )
        frame.pts, frame.time_base = tick, Fraction(1, _TICKS)
        self._mux(frame)
        self._last_tick = tick
        self.frames_written += 1

    def _even(self, image: Image) -> Image:
        if self.odd == "crop":
            return np.ascontiguousarray(image[: self.height // 2 * 2, : self.width // 2 * 2])
        if self.height % 2 or self.width % 2:
            return np.pad(image, ((0, self.height % 2), (0, self.width % 2), (0, 0)), mode="edge")
        return np.ascontiguousarray(image)

    def _mux(self, frame: av.VideoFrame | None) -> None:
        with writing(self.path):
            for packet in self._stream.encode(frame):
                self._container.mux(packet)

    def close(self) -> None:
        """Finish the file and rename it to `path`; further calls have no effect."""
        if not self._writing:
            return
        self._writing = False
        with self._stack:
            self._mux(None)

    def _discard(self, error: BaseException) -> None:
        self._writing = False
        with suppress(OSError):  # the container cannot be finished either, for example on a full disk
            self._stack.__exit__(type(error), error, error.__traceback__)

    def __repr__(self) -> str:
        size = Plain(f"{self.height}x{self.width}")
        return brief(self, path=str(self.path), size=size, frames_written=self.frames_written)

    def __enter__(self) -> VideoWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.close()
        else:
            self._discard(error)
