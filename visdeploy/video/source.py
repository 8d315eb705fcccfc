"""What every source of frames has in common: counting, limits, faults, closing."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from visdeploy.errors import ConfigError, SourceError

logger = logging.getLogger(__name__)

Image = npt.NDArray[np.uint8]
OnError = Literal["raise", "stop", "skip"]
RawFrame = tuple[float | None, Callable[[], Image]]


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """One frame of a source.

    Attributes:
        index: Position among the delivered frames, from 0.
        timestamp: Seconds from the first frame of the source; 0.0 throughout where the source has no clock.
        image: RGB pixels as they are to be looked at, uint8, `(height, width, 3)`, contiguous.
    """

    index: int
    timestamp: float
    image: Image


@dataclass(frozen=True, slots=True)
class SourceReport:
    """What a source promised and what it gave.

    Attributes:
        name: Name of the source.
        kind: `video`, `url`, `images`, `camera`, `arrays`.
        height: Rows of a frame, None before the first.
        width: Columns of a frame, None before the first.
        fps: Mean frame rate, 0 where there is none.
        expected_frames: Frames the source claimed to hold, after `step` and `max_frames`; None where it claims nothing.
        delivered_frames: Frames handed out.
        corrupt_frames: Delivered frames of which the decoder said that parts are concealed.
        faults: What went wrong and was passed over, in words.
        finished: Whether the source was read to its end (or to `max_frames`).
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

    @property
    def missing_frames(self) -> int:
        """Frames that were claimed and not delivered, 0 while unknown."""
        return max(0, (self.expected_frames or 0) - self.delivered_frames)

    def __str__(self) -> str:
        expected = f" of {self.expected_frames} expected" if self.expected_frames is not None else ""
        extra = f", {self.corrupt_frames} partly concealed" if self.corrupt_frames else ""
        return f"{self.name}: {self.delivered_frames}{expected} frames{extra}" + "".join(f"; {f}" for f in self.faults)


class Source(ABC):
    """An iterable of `Frame`s that counts what it delivers and closes what it opened.

    Sources of files can be iterated again and then start anew; cameras, streams and iterators only once.
    Use it as a context manager, or just iterate: the underlying file is closed when the iteration ends,
    fails or is abandoned.

    Attributes:
        name: File stem, folder name, or what the caller gave.
        path: Path or URL (without credentials) the frames come from, None for arrays and cameras.
        kind: `video`, `url`, `images`, `camera`, `arrays`.
        fps: Mean frame rate of the delivered frames, 0.0 where there is none.
        height: Rows of the frames; None before the first frame where the source does not say.
        width: Columns of the frames; None before the first frame where the source does not say.
        expected_frames: Frames the source claims to hold, after `step` and `max_frames`; None where unknown.
        estimated_frames: `expected_frames`, or a guess from duration and rate, for progress bars only.
        delivered_frames: Frames handed out so far.
    """

    kind = "arrays"

    def __init__(self, name: str, path: str | None, *, max_frames: int | None, step: int, on_error: OnError) -> None:
        if step < 1:
            raise ConfigError("step of a source", seen=str(step), expected="at least 1")
        if max_frames is not None and max_frames < 1:
            raise ConfigError("max_frames of a source", seen=str(max_frames), expected="at least 1, or None")
        if on_error not in get_args(OnError):
            raise ConfigError("on_error of a source", seen=repr(on_error), expected=", ".join(get_args(OnError)))
        self.name, self.path, self.max_frames, self.step, self.on_error = name, path, max_frames, step, on_error
        self.fps = 0.0
        self.height: int | None = None
        self.width: int | None = None
        self.expected_frames: int | None = None
        self.estimated_frames: int | None = None
        self._reset()

    def _reset(self) -> None:
        self.delivered_frames = self.corrupt_frames = self._position = 0
        self._size: tuple[int, int] | None = None
        self._faults: list[str] = []
        self._finished = self._reading = False

    @abstractmethod
    def _read(self) -> Iterator[RawFrame]:
        """Every raw frame in order: seconds or None, and a function that gives its RGB pixels."""

    def close(self) -> None:  # noqa: B027  (most sources hold nothing open)
        """Release the file, stream or camera; safe to call twice."""

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
                if position % self.step:
                    continue
                frame = self._convert(stamp, image)
                if frame is None:
                    continue
                self.delivered_frames += 1
                yield frame
                if self.delivered_frames == self.max_frames:
                    break
            self._finished = True
            self._report_missing()
        except SourceError as error:
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
        return Frame(self.delivered_frames, stamp, np.ascontiguousarray(pixels))

    def _check_size(self, pixels: Image) -> None:
        size = pixels.shape[:2]
        if self._size is None:
            self._size = self.height, self.width = size
        elif size != self._size:
            raise SourceError(
                f"{self.name}: the frame size changes at frame {self._position}",
                seen=f"{size[1]}x{size[0]}",
                expected=f"{self._size[1]}x{self._size[0]} as in the frames before",
                hint="Split the source where its size changes, or bring all frames to one size.",
            )

    def _pass_over(self, error: SourceError) -> None:
        """Record a fault of one frame and go on when the caller asked for that; raise otherwise."""
        if self.on_error != "skip":
            raise error
        logger.warning("%s; skipped", error)
        self._faults.append(str(error))

    def _report_missing(self) -> None:
        if self.expected_frames is not None and self.delivered_frames < self.expected_frames:
            logger.warning("%s: %d of %d expected frames", self.name, self.delivered_frames, self.expected_frames)

    def _limit(self, frames: int) -> int:
        """How many of `frames` raw frames `step` and `max_frames` leave."""
        kept = -(-frames // self.step)
        return kept if self.max_frames is None else min(kept, self.max_frames)

    def report(self) -> SourceReport:
        """What was promised, what was delivered, and what was passed over."""
        return SourceReport(
            self.name, self.kind, self.height, self.width, self.fps, self.expected_frames, self.delivered_frames,
            self.corrupt_frames, tuple(self._faults), self._finished,
        )  # fmt: skip
