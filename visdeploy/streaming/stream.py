"""Streams of frames through a predictor: push a frame, get its instances; save, resume, collect."""

from __future__ import annotations

import functools
import os
import threading
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar, cast

import numpy as np
import numpy.typing as npt

from visdeploy.arguments import check_flag, check_number, check_path, check_type
from visdeploy.backends.base import State
from visdeploy.brief import brief
from visdeploy.errors import StreamError
from visdeploy.masks import Mask
from visdeploy.results import FrameResult, Track, VideoResult
from visdeploy.selection import Selection, Threshold
from visdeploy.streaming.parts import load_parts, save_parts
from visdeploy.streaming.pipeline import Pipeline
from visdeploy.streaming.preprocessing import check_frame
from visdeploy.streaming.saved import SavedStream
from visdeploy.streaming.windows import Feeder, Step
from visdeploy.video.arrays import Channels, to_rgb

_Call = TypeVar("_Call", bound=Callable[..., Any])


def _serial(method: _Call) -> _Call:
    """Make a method of a stream wait until no other thread is in such a method of it."""

    @functools.wraps(method)
    def call(self: Stream, *args: Any, **kwargs: Any) -> Any:
        with self._lock:
            return method(self, *args, **kwargs)

    return cast(_Call, call)


@dataclass
class Collected:
    """Data collected by a stream for its `VideoResult`: run-length encoded masks and timestamps."""

    masks: dict[int, dict[int, Mask]] = field(default_factory=dict)
    timestamps: list[float] = field(default_factory=list)

    def add(self, frame: FrameResult) -> None:
        """Add the result of one frame."""
        self.timestamps.append(frame.timestamp)
        for instance in frame:
            self.masks.setdefault(instance.track_id, {})[frame.index] = instance.mask


class Stream:
    """Stream of the frames of one video or camera, in order. Created by `VISPredictor.open_stream` and `load_stream`.

    Online methods return the result of a frame from the push of that frame. Clip methods return results with a delay:
    one result per push, in order, once `latency` frames have been pushed; `flush` returns the remaining results.

    A push that raises an error leaves the stream unchanged, so the next valid frame continues the tracks. Different
    streams of a predictor may run in different threads. Calls of one stream by several threads wait for each other;
    frames are processed in the order in which their calls arrive.

    Args:
        pipeline: The model on its engine.
        identity: Identity of the bundle, to which a saved stream is tied; empty without a bundle.
        collect: Keep the data for `result`. Memory then grows with the run-length encoded masks of the video; otherwise
            it stays constant.
        name: Name of the result.
        fps: Frame rate, from which the timestamps of frames pushed without one are computed.
        threshold: Minimum score, see `visdeploy.selection.Selection`. It applies to the instances that are returned, by
            their score so far, and to the tracks of `result`, by their final score. The tracking does not change.
        classes: Names of the classes to keep, in the same way.
        keep_images: Return every result with the pixels of its frame (`FrameResult.image`). They are copied when they
            are pushed, and kept for `latency` frames.

    Example:
        >>> with predictor.open_stream() as stream:  # doctest: +SKIP
        ...     for frame in frames:
        ...         if (result := stream.push(frame)) is not None:
        ...             print([(instance.track_id, instance.box) for instance in result])
        ...     late = stream.flush()

    Attributes:
        num_frames: Number of frames pushed.
        num_results: Number of results returned.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        *,
        identity: str = "",
        collect: bool = False,
        name: str = "stream",
        fps: float = 0.0,
        threshold: Threshold | None = None,
        classes: Iterable[str] | None = None,
        keep_images: bool = False,
    ) -> None:
        check_type(pipeline, Pipeline, "pipeline of a stream", expected="the pipeline of a VISPredictor")
        self.name = check_type(name, str, "name of a stream")
        self.fps = check_number(fps, "invalid frame rate of a stream", minimum=0, error=StreamError)
        collect = check_flag(collect, "collect of a stream")
        self.num_frames = self.num_results = self._num_kept = 0
        self._pipeline, self._identity, self._closed, self._flushed = pipeline, identity, False, False
        self._feeder: Feeder = pipeline.feeder
        self._ready: deque[FrameResult] = deque()
        self._collected = Collected() if collect else None
        self._size: tuple[int, int] | None = None
        self._state: State | None = None
        self._lock = threading.RLock()
        self._images: deque[npt.NDArray[np.uint8]] | None = None
        if check_flag(keep_images, "keep_images of a stream"):
            self._images = deque()
        self.decoder = pipeline.decoder(keep_tracks=collect)
        self._selection = Selection.of(self.decoder.classes, threshold, classes)

    @property
    def latency(self) -> int:
        """Number of frames by which the result of a frame is delayed; 0 for online methods."""
        return self._pipeline.latency

    @_serial
    def push(
        self, frame: npt.NDArray[np.uint8], timestamp: float | None = None, *, channels: Channels = "rgb"
    ) -> FrameResult | None:
        """Process the next frame.

        Args:
            frame: Pixels, uint8 `[height, width, 3]`, of the same size in every call.
            timestamp: Seconds since the start of the stream; by default computed from `fps`, or 0 if `fps` is 0.
            channels: Order of the channels, `rgb` or `bgr` (OpenCV).

        Returns:
            The next result: for online methods that of this frame; for clip methods that of an earlier frame, or None
            while no result is final.

        Raises:
            SourceError: The frame is not such an image; the hint says how to convert it.
            ConfigError: The order of the channels is not one of these.
            StreamError: The stream is closed or flushed, the size differs from that of earlier frames, or the timestamp
                is not finite.
            EngineError: The graph failed.
        """
        self._check_open("push a frame")
        if self._flushed:
            raise StreamError("cannot push a frame: the stream is flushed", hint="Open a new one with open_stream().")
        check_frame(frame)
        given, frame = frame, to_rgb(frame, channels)
        height, width = frame.shape[:2]
        if self._size is not None and self._size != (height, width):
            raise StreamError(
                f"the size of frame {self.num_frames} differs from that of earlier frames",
                seen=f"{width}x{height}",
                expected=f"{self._size[1]}x{self._size[0]}",
                hint="Resize it, or open a new stream.",
            )
        if timestamp is None:
            timestamp = self.num_frames / self.fps if self.fps else 0.0
        timestamp = check_number(timestamp, f"invalid timestamp of frame {self.num_frames}", error=StreamError)
        feeder, step = self._pipeline.push(self._feeder, frame, timestamp)
        if step is not None:
            self._run(step, (height, width))
        self._feeder, self._size = feeder, (height, width)
        self.num_frames += 1
        if self._images is not None:
            self._images.append(frame.copy() if frame is given else frame)  # callers reuse the arrays they push
        return self._next()

    @_serial
    def flush(self) -> list[FrameResult]:
        """End the input of the stream, and process the frames of the last clip.

        Returns:
            The remaining results, in frame order; none for online methods.

        Raises:
            StreamError: The stream is closed.
            EngineError: The graph failed; the frames are kept, so that `flush` can be called again.
        """
        self._check_open("flush")
        if not self._flushed:
            feeder, step = self._feeder.finish()
            if step is not None and self._size is not None:
                self._run(step, self._size)
            self._feeder, self._flushed = feeder, True
            self._ready.extend(self.decoder.finish())
        return list(iter(self._next, None))

    def _run(self, step: Step, size: tuple[int, int]) -> None:
        """Run one step of the graph. An error leaves the stream unchanged."""
        outputs, state = self._pipeline.run(step, self._state)
        self._ready.extend(self.decoder.decode(outputs, step, height=size[0], width=size[1]))
        self._state = state

    def _next(self) -> FrameResult | None:
        """Return the next result; None if none is final."""
        if not self._ready:
            return None
        result = self._ready.popleft()
        self.num_results += 1
        if self._collected is not None:
            self._collected.add(result)
        result = self._selection.frame(result)
        return result if self._images is None else replace(result, image=self._images.popleft())

    @_serial
    def result(self) -> VideoResult:
        """Return the tracks in all results returned so far, with labels and scores; call `flush` first for all frames.

        Raises:
            StreamError: The stream was not opened with `collect=True`, or has returned no result.
        """
        if self._collected is None:
            raise StreamError(
                "this stream does not collect results", hint="Open it with collect=True, or use the results of push()."
            )
        if self._size is None or not self.num_results:
            raise StreamError(
                "this stream has no result yet", seen=f"{self.num_frames} frames", expected="a push, and a flush"
            )
        tracks = [
            Track(s.track_id, s.label, s.score, dict(self._collected.masks.get(s.track_id, {})), s.class_scores)
            for s in self.decoder.summaries()
        ]
        return VideoResult(
            name=self.name,
            height=self._size[0],
            width=self._size[1],
            num_frames=self.num_results,
            classes=self.decoder.classes,
            tracks=self._selection.tracks(tracks),
            fps=self.fps,
            timestamps=list(self._collected.timestamps),
        )

    @_serial
    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the state of the stream, to be continued later in another process or on another device.

        With `keep_images`, this includes the images of the frames whose results are pending.

        Args:
            path: File to write (npz, no pickle), complete or absent.

        Raises:
            StreamError: The stream is closed, or the file cannot be written.
        """
        return self._saved().write(check_path(path, "path of a saved stream", error=StreamError))

    @_serial
    def save_parts(self, folder: str | os.PathLike[str]) -> None:
        """Write the state of the stream to a folder, and those collected results that the folder does not contain yet.

        Repeated saving of a long stream thus writes every result once.

        Args:
            folder: Existing folder; always the same for one stream.

        Raises:
            StreamError: See `save`.
        """
        self._num_kept = save_parts(self._saved(), Path(folder), self._num_kept)

    def _saved(self) -> SavedStream:
        self._check_open("save")
        if self._flushed:
            raise StreamError("cannot save the stream: it is flushed", hint="Save it before the call of flush().")
        if not self._identity:
            raise StreamError("this stream cannot be saved", seen="no bundle", expected="a stream of a VISPredictor")
        return SavedStream(
            bundle=self._identity,
            name=self.name,
            fps=self.fps,
            num_frames=self.num_frames,
            num_results=self.num_results,
            size=self._size,
            graph={} if self._state is None else self._pipeline.backend.state_to_host(self._state),
            decoder=self.decoder.state(),
            waiting=self._feeder.state(),
            ready=list(self._ready),
            limits=self._selection.limits,
            images=None if self._images is None else list(self._images),
            masks=None if self._collected is None else self._collected.masks,
            timestamps=[] if self._collected is None else self._collected.timestamps,
        )

    @classmethod
    def load(cls, pipeline: Pipeline, path: str | os.PathLike[str], *, identity: str) -> Stream:
        """Continue a saved stream; see `VISPredictor.load_stream`.

        Raises:
            StreamError: The file is missing or damaged, or was saved with another bundle.
        """
        file = check_path(path, "path of a saved stream", error=StreamError)
        return cls._restore(pipeline, SavedStream.read(file, bundle=identity), identity, file)

    @classmethod
    def load_parts(cls, pipeline: Pipeline, folder: str | os.PathLike[str], *, identity: str) -> Stream:
        """Continue a stream from a folder that `save_parts` wrote.

        Raises:
            StreamError: A file is missing or damaged, or was saved with another bundle.
        """
        path = check_path(folder, "path of a saved stream", error=StreamError)
        stream = cls._restore(pipeline, load_parts(path, bundle=identity), identity, path)
        stream._num_kept = stream.num_results
        return stream

    @classmethod
    def _restore(cls, pipeline: Pipeline, saved: SavedStream, identity: str, path: Path) -> Stream:
        stream = cls(pipeline, identity=identity, collect=saved.masks is not None, name=saved.name, fps=saved.fps)
        if len(saved.limits) not in (0, len(stream.decoder.classes)):
            raise StreamError(
                f"{path} does not match the bundle",
                seen=f"thresholds of {len(saved.limits)} classes",
                expected=str(len(stream.decoder.classes)),
            )
        stream._selection = Selection(saved.limits)
        stream._images = None if saved.images is None else deque(saved.images)
        if saved.size is not None:
            prepare = pipeline.preprocess
            sizes = prepare.tensor_size(*saved.size), prepare.content_size(*saved.size)
            stream._feeder = pipeline.feeder.restore(saved.waiting, saved.num_frames, *sizes)
            stream._state = pipeline.load_state(saved.graph, saved.size, started=stream._feeder.done > 0)
        stream.decoder.load_state(saved.decoder)
        stream.decoder.check_resumed(
            done=stream._feeder.done, given=saved.num_results + len(saved.ready), size=saved.size
        )
        stream._ready = deque(replace(each, classes=stream.decoder.classes) for each in saved.ready)
        stream.num_frames, stream._size = saved.num_frames, saved.size
        stream.num_results = saved.num_results
        if saved.masks is not None:
            stream._collected = Collected(saved.masks, saved.timestamps)
        return stream

    @_serial
    def close(self) -> None:
        """Free the state. `result` still works afterwards, but `push`, `flush` and `save` raise an error."""
        self._closed, self._state, self._feeder = True, None, self._pipeline.feeder
        if self._images is not None:
            self._images.clear()

    def _check_open(self, action: str) -> None:
        if self._closed:
            raise StreamError(f"cannot {action}: the stream is closed", hint="Open a new one with open_stream().")

    def __repr__(self) -> str:
        return brief(self, name=self.name, num_frames=self.num_frames, num_results=self.num_results)

    def __enter__(self) -> Stream:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def whole_video(
    pipeline: Pipeline, frames: Iterable[npt.NDArray[np.uint8]], *, name: str, fps: float = 0.0
) -> VideoResult:
    """Compute the tracks of all frames of a video.

    Args:
        pipeline: The model on its engine.
        frames: RGB pixels, uint8 `[height, width, 3]`, all of the same size.
        name: Name of the result.
        fps: Frame rate of the result, 0 if unknown.

    Raises:
        StreamError: There are no frames, or their sizes differ.
        SourceError: A frame is not an RGB image.
        EngineError: The graph failed.
    """
    with Stream(pipeline, collect=True, name=name, fps=fps) as stream:
        for frame in frames:
            stream.push(frame)
        stream.flush()
        return stream.result()
