"""Stream of a long video whose progress is kept, so that an interrupted run can be continued."""

from __future__ import annotations

import json
import logging
import struct
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from hashlib import sha256
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np

from visdeploy.atomic import write_text
from visdeploy.errors import ConfigError, DataError, SourceError, StreamError, VisdeployError
from visdeploy.json_fields import Entry, read_json
from visdeploy.partial.folder import PartialFolder
from visdeploy.streaming.parts import STATE
from visdeploy.streaming.stream import Stream

if TYPE_CHECKING:
    from visdeploy.predictor import VISPredictor
    from visdeploy.results import FrameResult, VideoResult
    from visdeploy.video import Source
    from visdeploy.video.source import Image

logger = logging.getLogger(__name__)

_SEEN = "frames.json"
SECONDS = 30.0
"""Time between two savings."""


class PartialStream:
    """Progress of one video in a folder, from which its stream is opened.

    Args:
        folder: Folder of the progress.
        seconds: Time between two savings.
    """

    def __init__(self, folder: PartialFolder, *, seconds: float = SECONDS) -> None:
        self.folder, self.seconds = folder, seconds
        self._digests: dict[str, str] = {}

    def open(self, predictor: VISPredictor, source: Source, **choice: Any) -> KeptStream:
        """Open the stream of a source, or continue the one in the folder.

        Args:
            predictor: The predictor.
            source: The opened source.
            **choice: Further options of `VISPredictor.open_stream`.

        Raises:
            ConfigError: The folder belongs to another bundle, source or other options.
            DataError: The folder is damaged.
            OutputError: See `PartialFolder.open`.
        """
        stream = None
        if self.folder.open(_about(predictor, source, choice)) and (self.folder.path / STATE).exists():
            try:
                stream = Stream.load_parts(predictor.pipeline, self.folder.path, identity=predictor.identity)
            except StreamError as error:
                raise self.folder.damaged(error) from error
            logger.warning("%s: continued after %d frames", source.name, stream.num_frames)
        return KeptStream(stream or predictor.open_stream(collect=True, name=source.name, **choice), self)

    def read_digests(self, frames: int) -> tuple[str, str]:
        """Return the checksums of the first frame and of the given number of frames; empty for no frames.

        Raises:
            DataError: The folder is damaged.
        """
        if not frames:
            return "", ""
        path = self.folder.path / _SEEN
        try:
            entry = Entry.of(str(path), read_json(path))
            # others are of a state that was not written any more
            self._digests = {name: entry.text(name) for name in ("first", str(frames))}
            return self._digests["first"], self._digests[str(frames)]
        except DataError as error:
            raise self.folder.damaged(error) from error

    def write_digests(self, frames: int, first: str, all_frames: str) -> None:
        """Write the checksums of frames, beside those of the previous call.

        Raises:
            OutputError: The file cannot be written.
        """
        last = [(name, value) for name, value in self._digests.items() if name != "first"][-1:]
        self._digests = {"first": first, **dict(last), str(frames): all_frames}
        write_text(self.folder.path / _SEEN, json.dumps(self._digests, indent=1))


def _about(predictor: VISPredictor, source: Source, choice: Mapping[str, Any]) -> dict[str, str]:
    options = {name: getattr(source, name) for name in ("start", "step", "max_frames")} | {
        name: value for name, value in choice.items() if value is not None
    }
    return {
        "bundle": predictor.identity,
        "precision": predictor.backend.description.precision,
        "source": f"{source.kind} {source.name!r}",
        "selection of frames and objects": json.dumps(options, sort_keys=True, default=repr),
    }


class _Seen:
    """Checksum of the frames that a stream has seen: their times, and every eighth row of their pixels."""

    def __init__(self) -> None:
        self._all, self.first = sha256(), ""

    def add(self, image: Image, timestamp: float | None) -> None:
        """Add the next frame."""
        self._all.update(struct.pack("<3d", *image.shape[:2], timestamp or 0.0))
        self._all.update(np.ascontiguousarray(image[::8]).tobytes())
        self.first = self.first or self.digest

    @property
    def digest(self) -> str:
        """Checksum of all frames so far."""
        return self._all.hexdigest()


class KeptStream:
    """Stream that leaves out the frames it has seen before, and saves itself at intervals and after an error.

    A stream is saved between two frames. An exception that interrupts the processing of a frame at an unknown place
    does not save it; what was saved before stays.

    Args:
        stream: The stream.
        partial: Where it is saved.
        clock: Returns seconds.
    """

    def __init__(self, stream: Stream, partial: PartialStream, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream, self._partial, self._clock = stream, partial, clock
        self._resumed = self._kept = stream.num_frames
        self._between_frames = True
        self._started = self._last = clock()
        self._seen, self._digests = _Seen(), partial.read_digests(stream.num_frames)
        self.num_frames = 0

    def push(self, frame: Image, timestamp: float | None = None) -> FrameResult | None:
        """Process the next frame, unless the stream has seen it before; see `Stream.push`.

        Raises:
            ConfigError: The frames are not those that the stream has seen.
        """
        self.num_frames += 1
        if self.num_frames <= self._resumed:
            self._seen.add(frame, timestamp)
            self._compare()
            return None
        with self._working():
            result = self._stream.push(frame, timestamp)
            self._seen.add(frame, timestamp)
        if self._clock() - self._last >= self._partial.seconds:
            self._save()
        return result

    def _compare(self) -> None:
        """Compare the first frame, and all frames after the last one that the stream has seen."""
        first, last = self._digests
        differs = self.num_frames == 1 and self._seen.first != first
        if differs or (self.num_frames == self._resumed and self._seen.digest != last):
            raise ConfigError(
                f"cannot resume {self._partial.folder.path}: it was made with another source",
                seen=f"other pixels or times in the first {self.num_frames} frames",
                expected=f"the {self._resumed} frames that were processed before",
                hint="Resume with the same source, or pass --overwrite instead of --resume.",
            )

    def flush(self) -> list[FrameResult]:
        """End the input, see `Stream.flush`. A long run is saved before, in case its result cannot be written.

        Raises:
            SourceError: The source has fewer frames than the stream has seen.
        """
        if self.num_frames < self._resumed:
            raise SourceError(
                f"cannot resume {self._stream.name}: the source ended early",
                seen=f"{self.num_frames} frames",
                expected=f"at least the {self._resumed} frames that were processed before",
            )
        if self._resumed or self._clock() - self._started >= self._partial.seconds:
            self._save()
        with self._working():
            found = self._stream.flush()
        self._between_frames = False
        return found

    def result(self) -> VideoResult:
        """Return the tracks, see `Stream.result`."""
        return self._stream.result()

    @contextmanager
    def _working(self) -> Iterator[None]:
        self._between_frames = False
        try:
            yield
        except VisdeployError:  # leaves the stream unchanged
            self._between_frames = True
            raise
        self._between_frames = True

    def _save(self) -> None:
        """Save the stream if it has new frames. The run goes on if it cannot be saved."""
        if self._stream.num_frames == self._kept:
            return
        try:
            folder = self._partial.folder.create()
            # the state is written last; the digests for the earlier one stay until then
            self._partial.write_digests(self._stream.num_frames, self._seen.first, self._seen.digest)
            self._stream.save_parts(folder)
            self._kept = self._stream.num_frames
        except VisdeployError as error:
            logger.warning("the progress is not kept: %s", error)
        self._last = self._clock()

    def __enter__(self) -> KeptStream:
        self._stream.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None and self._between_frames:
            self._save()
        self._stream.__exit__(kind, error, trace)
