"""Base class of all sources of frames: counting, limits, handling of faults, closing."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from visdeploy.arguments import check_integer, check_type
from visdeploy.brief import brief, counted, printable, shorten
from visdeploy.errors import ConfigError, SourceError
from visdeploy.video.verdict import Verdict

logger = logging.getLogger(__name__)

Image = npt.NDArray[np.uint8]
OnError = Literal["raise", "stop", "skip"]
RawFrame = tuple[float | None, Callable[[], Image]]


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """Frame of a source.

    Attributes:
        index: Position among the delivered frames, from 0.
        timestamp: Seconds since the first frame of the source; 0.0 for all frames if the source has no clock.
        image: RGB pixels in display orientation, uint8, `(height, width, 3)`, contiguous.
        position: Position among all frames of the source, from 0, including those left out by `start`, `step` or
            `on_error`; None if unknown.
    """

    index: int
    timestamp: float
    image: Image
    position: int | None = None

    def __repr__(self) -> str:
        return brief(self, index=self.index, timestamp=self.timestamp, image=self.image, position=self.position)


@dataclass(frozen=True, slots=True)
class SourceReport:
    """Comparison of the frames that a source announced with those that it delivered.

    Attributes:
        name: Name of the source.
        kind: `video`, `url`, `images`, `camera`, `arrays`.
        height: Rows of a frame, in pixels; None before the first frame.
        width: Columns of a frame, in pixels; None before the first frame.
        fps: Mean frame rate; 0 if unknown.
        expected_frames: Number of frames that the source announced, after `start`, `step` and `max_frames`; None if
            unknown.
        delivered_frames: Number of frames delivered.
        corrupt_frames: Number of delivered frames in which the decoder concealed damage.
        faults: Messages of the faults that were skipped.
        finished: Whether the source was read to its end (or to `max_frames`).
        verdict: Verdict on the completeness, see `Source`.
    """

    name: str
    kind: str
    height: int | None
    width: int | None
    fps: float
    expected_frames: int | None
    delivered_frames: int
    corrupt_frames: int
    faults: tuple[str, ...]
    finished: bool
    verdict: Verdict = "unknown"

    @property
    def missing_frames(self) -> int:
        """Number of announced frames that were not delivered; 0 if unknown."""
        return max(0, (self.expected_frames or 0) - self.delivered_frames)

    def __repr__(self) -> str:
        facts = {"name": self.name, "kind": self.kind, "delivered_frames": self.delivered_frames}
        return brief(self, **facts, expected_frames=self.expected_frames, faults=counted(self.faults))

    def __str__(self) -> str:
        expected = f" of {self.expected_frames} expected" if self.expected_frames is not None else ""
        extra = f", {self.corrupt_frames} partly concealed" if self.corrupt_frames else ""
        return f"{self.name}: {self.delivered_frames}{expected} frames, {self.verdict}{extra}" + "".join(
            f"; {fault}" for fault in self.faults
        )


class Source(ABC):
    """Iterable of `Frame`s that counts the frames delivered and closes the file it opened.

    Sources of files can be iterated again from the start; cameras, streams and iterators only once. Use a source as a
    context manager, or only iterate: the underlying file is closed when the iteration ends, fails or is abandoned.

    Attributes:
        name: File stem, folder name, or the name given by the caller.
        path: Path or URL of the frames, without user, password and query; None for arrays and cameras.
        address: Path or URL as it was given, to open the source again; it may contain secrets, and is never written.
        kind: `video`, `url`, `images`, `camera`, `arrays`.
        fps: Mean frame rate of the delivered frames; 0.0 if unknown.
        height: Rows of the frames in display orientation, in pixels; None if unknown before the first frame.
        width: Columns of the frames in display orientation, in pixels; None if unknown before the first frame.
        pixel_aspect: Width of a pixel on the screen divided by its height. Frames have the pixels as they are stored;
            where this is not 1, they look squeezed on a screen with square ones.
        start: Position of the first frame that is delivered.
        expected_frames: Number of frames that the source announces, after `start`, `step` and `max_frames`; None if
            unknown.
        estimated_frames: `expected_frames`, or an estimate from duration and rate, for progress bars only.
        delivered_frames: Number of frames delivered so far.
        verdict: After reading: `complete` (all frames that were asked for), `damaged` (frames are missing, or the
            decoder concealed damage in them), or `unknown` (no sign of damage, but the source does not state where it
            ends). Before: `unknown`.
        files: Local files and folders that the source reads.
    """

    kind = "arrays"

    def __init__(
        self, name: str, path: str | None, *, max_frames: int | None, step: int, on_error: OnError, start: int = 0
    ) -> None:
        self.name = printable(check_type(name, str, "name of a source"))
        self.path = None if path is None else printable(path)
        self.start = check_integer(start, "start of a source")
        self.step = check_integer(step, "step of a source", minimum=1)
        self.max_frames = max_frames
        if max_frames is not None:
            self.max_frames = check_integer(max_frames, "max_frames of a source", minimum=1)
        if not isinstance(on_error, str) or on_error not in get_args(OnError):
            raise ConfigError("on_error of a source", seen=shorten(on_error), expected=", ".join(get_args(OnError)))
        self.on_error = on_error
        self.address = path
        self.pixel_aspect = Fraction(1)
        self.files: tuple[Path, ...] = ()
        self.fps = 0.0
        self.height: int | None = None
        self.width: int | None = None
        self.expected_frames: int | None = None
        self.estimated_frames: int | None = None
        self._reset()

    def _reset(self) -> None:
        self.delivered_frames = self.corrupt_frames = self._position = 0
        self.verdict: Verdict = "unknown"
        self._size: tuple[int, int] | None = None
        self._faults: list[str] = []
        self._finished = self._reading = False

    @abstractmethod
    def _read(self) -> Iterator[RawFrame]:
        """Yield every raw frame in order: its time in seconds or None, and a function that returns its RGB pixels."""

    def close(self) -> None:  # noqa: B027  (most sources hold nothing open)
        """Release the file, stream or camera; further calls have no effect."""

    def __repr__(self) -> str:
        return brief(self, name=self.name, kind=self.kind, path=self.path, delivered_frames=self.delivered_frames)

    def __enter__(self) -> Source:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __iter__(self) -> Iterator[Frame]:
        if self._reading:
            raise SourceError(
                f"{self.name} is already being read",
                hint="Open a second source for a second reader, or close the first iteration.",
            )
        return self._frames()

    def _frames(self) -> Iterator[Frame]:
        self._reset()
        self._reading = True
        try:
            for position, (stamp, image) in enumerate(self._read()):
                self._position = position
                if position < self.start or (position - self.start) % self.step:
                    continue
                frame = self._convert(stamp, image)
                if frame is None:
                    continue
                self.delivered_frames += 1
                yield frame
                if self.delivered_frames == self.max_frames:
                    break
            self._finished = True
            self.verdict = self._judge()
            self._report_missing()
        except SourceError as error:
            self.verdict = "damaged"
            if self.on_error == "raise":
                raise
            logger.warning("%s; stopped after %d frames", error, self.delivered_frames)
            self._faults.append(str(error))
        finally:
            self._reading = False
            self.close()

    def _convert(self, stamp: float | None, image: Callable[[], Image]) -> Frame | None:
        try:
            pixels = image()
            self._check_size(pixels)
        except SourceError as error:
            self._pass_over(error)
            return None
        if stamp is None:
            stamp = self._position / (self.fps * self.step) if self.fps else 0.0
        return Frame(self.delivered_frames, stamp, np.ascontiguousarray(pixels), self._position)

    def _check_size(self, pixels: Image) -> None:
        size = pixels.shape[:2]
        if self._size is None:
            self._size = self.height, self.width = size
        elif size != self._size:
            raise SourceError(
                f"{self.name}: the frame size changes at frame {self._position}",
                seen=f"{size[1]}x{size[0]}",
                expected=f"{self._size[1]}x{self._size[0]} as in the previous frames",
                hint="Split the source where the size changes, or resize all frames to one size.",
            )

    def _pass_over(self, error: SourceError) -> None:
        """Record the fault of one frame if `on_error` is `skip`; raise it otherwise."""
        if self.on_error != "skip":
            raise error
        logger.warning("%s; skipped", error)
        self._faults.append(str(error))

    def _judge(self) -> Verdict:
        """Return the verdict on a source that was read to its end or to `max_frames`."""
        return "damaged" if self._faults or self.corrupt_frames else "complete"

    def _report_missing(self) -> None:
        if self.expected_frames is None:
            return
        if self.verdict == "complete" or self.delivered_frames > self.expected_frames:
            self.expected_frames = self.delivered_frames
        if self.delivered_frames < self.expected_frames:
            logger.warning("%s: %d of %d expected frames", self.name, self.delivered_frames, self.expected_frames)

    def _limit(self, frames: int) -> int:
        """Return the number of frames that `start`, `step` and `max_frames` keep of `frames` raw frames."""
        kept = -(-max(0, frames - self.start) // self.step)
        return kept if self.max_frames is None else min(kept, self.max_frames)

    def report(self) -> SourceReport:
        """Return a report of the frames announced, delivered and skipped."""
        return SourceReport(
            self.name, self.kind, self.height, self.width, self.fps, self.expected_frames, self.delivered_frames,
            self.corrupt_frames, tuple(self._faults), self._finished,
            self.verdict,
        )  # fmt: skip
