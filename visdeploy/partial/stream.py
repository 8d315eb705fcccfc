"""Stream of a long video whose progress is kept, so that an interrupted run can be continued."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import TYPE_CHECKING

from visdeploy.errors import SourceError, StreamError, VisdeployError
from visdeploy.partial.fingerprint import fingerprint
from visdeploy.partial.folder import PartialFolder
from visdeploy.streaming.parts import STATE
from visdeploy.streaming.stream import Stream
from visdeploy.video import is_live

if TYPE_CHECKING:
    from visdeploy.predictor import VISPredictor
    from visdeploy.results import FrameResult, VideoResult
    from visdeploy.video import Source
    from visdeploy.video.source import Image

logger = logging.getLogger(__name__)

SECONDS = 30.0
"""Time between two savings."""


def can_resume(source: object) -> bool:
    """Return whether a source can be read again from its start: files, and videos behind http; no cameras."""
    return not is_live(source) or (isinstance(source, str) and source.lower().startswith(("http:", "https:")))


class PartialStream:
    """Progress of one video in a folder, from which its stream is opened.

    Args:
        folder: Folder of the progress.
        seconds: Time between two savings.
    """

    def __init__(self, folder: PartialFolder, *, seconds: float = SECONDS) -> None:
        self.folder, self.seconds = folder, seconds

    def open(self, predictor: VISPredictor, source: Source) -> KeptStream:
        """Open the stream of a source, or continue the one in the folder.

        Raises:
            ConfigError: The folder belongs to another bundle, source or selection of frames.
            DataError: The folder is damaged.
            OutputError: See `PartialFolder.open`.
        """
        stream = None
        if self.folder.open(_about(predictor, source)) and (self.folder.path / STATE).exists():
            try:
                stream = Stream.load_parts(predictor.pipeline, self.folder.path, identity=predictor.identity)
            except StreamError as error:
                raise self.folder.damaged(error) from error
            logger.warning("%s: continued after %d frames", source.name, stream.num_frames)
        return KeptStream(stream or predictor.open_stream(collect=True, name=source.name), self)


def _about(predictor: VISPredictor, source: Source) -> dict[str, str]:
    content = fingerprint(source.files)[:16] if source.files else source.path
    selection = {"step": source.step, "max_frames": source.max_frames, "fps": source.fps}
    return {
        "bundle": predictor.identity,
        "source": f"{source.kind} {source.name!r} {content}",
        "selection of frames": json.dumps(selection),
    }


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
        self.num_frames = 0

    def push(self, frame: Image, timestamp: float | None = None) -> FrameResult | None:
        """Process the next frame, unless the stream has seen it before; see `Stream.push`."""
        self.num_frames += 1
        if self.num_frames <= self._resumed:
            return None
        with self._working():
            result = self._stream.push(frame, timestamp)
        if self._clock() - self._last >= self._partial.seconds:
            self._save()
        return result

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
            self._stream.save_parts(self._partial.folder.create())
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
