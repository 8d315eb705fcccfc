"""One stream of frames through a predictor: push a frame, get its instances; save, resume, collect."""

from __future__ import annotations

import math
import os
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType

import numpy as np
import numpy.typing as npt

from visdeploy.backends.base import State
from visdeploy.errors import StreamError
from visdeploy.masks import Mask
from visdeploy.results import FrameResult, Track, VideoResult
from visdeploy.streaming.pipeline import Pipeline
from visdeploy.streaming.preprocessing import check_frame
from visdeploy.streaming.saved import SavedStream
from visdeploy.streaming.windows import Feeder, Step


@dataclass
class Collected:
    """What a collecting stream has gathered for its `VideoResult`: run-length encoded masks and timestamps."""

    masks: dict[int, dict[int, Mask]] = field(default_factory=dict)
    timestamps: list[float] = field(default_factory=list)

    def add(self, frame: FrameResult) -> None:
        """Take over one frame."""
        self.timestamps.append(frame.timestamp)
        for instance in frame:
            self.masks.setdefault(instance.track_id, {})[frame.index] = instance.mask


class Stream:
    """Frames of one video or camera, in order. Made by `VISPredictor.open_stream` and `load_stream`.

    Methods that see one frame at a time answer every push with that frame's result. Methods that see clips answer late:
    results come out in order, one per push once the first clip is complete, and `flush` gives the rest.

    A push that raises leaves the stream as it was, so the next good frame continues the tracks. A stream is used by
    one thread at a time; different streams of one predictor may run in different threads.

    Args:
        pipeline: The model on its engine.
        identity: Identity of the bundle, to which a saved stream is tied; empty where there is no bundle.
        collect: Keep what `result` needs. Memory then grows with the video by its run-length encoded masks; without
            it, it stays flat for ever.
        name: Name of the result.
        fps: Frame rate; gives frames pushed without a timestamp one.

    Example:
        >>> with predictor.open_stream() as stream:  # doctest: +SKIP
        ...     for frame in frames:
        ...         if (result := stream.push(frame)) is not None:
        ...             print([(instance.track_id, instance.box) for instance in result])
        ...     late = stream.flush()

    Attributes:
        num_frames: Frames pushed.
        num_results: Results given out.
    """

    def __init__(
        self, pipeline: Pipeline, *, identity: str = "", collect: bool = False, name: str = "stream", fps: float = 0.0
    ) -> None:
        if not (math.isfinite(fps) and fps >= 0):
            raise StreamError("wrong frame rate of a stream", seen=str(fps), expected="frames per second, or 0")
        self.name, self.fps = name, float(fps)
        self.num_frames = self.num_results = 0
        self._pipeline, self._identity, self._closed, self._flushed = pipeline, identity, False, False
        self._feeder: Feeder = pipeline.feeder
        self._ready: deque[FrameResult] = deque()
        self._collected = Collected() if collect else None
        self._size: tuple[int, int] | None = None
        self._state: State | None = None
        self.decoder = pipeline.decoder(keep_tracks=collect)

    @property
    def latency(self) -> int:
        """Frames between a push and the result of the same frame; 0 for online methods."""
        return self._pipeline.latency

    def push(self, frame: npt.NDArray[np.uint8], timestamp: float | None = None) -> FrameResult | None:
        """Process the next frame.

        Args:
            frame: RGB pixels, uint8 `[height, width, 3]`, of the same size in every call.
            timestamp: Seconds from the start of the stream; by default from `fps`, or 0 without one.

        Returns:
            The next result: that of this frame for online methods; of an earlier one, or None as long as none is
            final, for methods that see clips.

        Raises:
            SourceError: The frame is no RGB image; the hint says how to convert it.
            StreamError: The stream is closed or flushed, the size differs from the frames before, or the timestamp is
                no number.
            EngineError: The graph failed.
        """
        self._check_open("push a frame")
        if self._flushed:
            raise StreamError("the stream is flushed, cannot push a frame", hint="Open a new one with open_stream().")
        check_frame(frame)
        height, width = frame.shape[:2]
        if self._size is not None and self._size != (height, width):
            raise StreamError(
                f"frame {self.num_frames} has another size than the frames before",
                seen=f"{width}x{height}",
                expected=f"{self._size[1]}x{self._size[0]}",
                hint="Resize it, or open a new stream.",
            )
        if timestamp is None:
            timestamp = self.num_frames / self.fps if self.fps else 0.0
        if not math.isfinite(timestamp):
            raise StreamError(f"frame {self.num_frames} has no usable timestamp", seen=str(timestamp))
        feeder, step = self._pipeline.push(self._feeder, frame, float(timestamp))
        if step is not None:
            self._run(step, (height, width))
        self._feeder, self._size = feeder, (height, width)
        self.num_frames += 1
        return self._next()

    def flush(self) -> list[FrameResult]:
        """Process what is waiting and end the stream's input.

        Returns:
            The results that have not come out yet, in frame order; none for online methods.

        Raises:
            StreamError: The stream is closed.
            EngineError: The graph failed; the frames are still waiting.
        """
        self._check_open("flush it")
        if not self._flushed:
            feeder, step = self._feeder.finish()
            if step is not None and self._size is not None:
                self._run(step, self._size)
            self._feeder, self._flushed = feeder, True
            self._ready.extend(self.decoder.finish())
        return list(iter(self._next, None))

    def _run(self, step: Step, size: tuple[int, int]) -> None:
        """One step of the graph. Only the decoder's last act changes the stream."""
        outputs, state = self._pipeline.run(step, self._state)
        self._ready.extend(self.decoder.decode(outputs, step, height=size[0], width=size[1]))
        self._state = state

    def _next(self) -> FrameResult | None:
        """The next result, if one is final."""
        if not self._ready:
            return None
        result = self._ready.popleft()
        self.num_results += 1
        if self._collected is not None:
            self._collected.add(result)
        return result

    def result(self) -> VideoResult:
        """The tracks over the results that have come out, each with its label and score; `flush` first for all.

        Raises:
            StreamError: The stream was not opened with `collect=True`, or has seen no frame.
        """
        if self._collected is None:
            raise StreamError(
                "this stream keeps no result", hint="Open it with collect=True, or use the result of every push."
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
            tracks=tracks,
            fps=self.fps,
            timestamps=list(self._collected.timestamps),
        )

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write everything needed to continue later, in another process or on another device of the same bundle.

        Args:
            path: File to write (npz, no pickle); it appears complete or not at all.

        Raises:
            StreamError: The stream is closed, or the file cannot be written.
        """
        self._check_open("save it")
        if self._flushed:
            raise StreamError("the stream is flushed, cannot save it", hint="Save it before its end.")
        if not self._identity:
            raise StreamError("this stream cannot be saved", seen="no bundle", expected="a stream of a VISPredictor")
        saved = SavedStream(
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
            masks=None if self._collected is None else self._collected.masks,
            timestamps=[] if self._collected is None else self._collected.timestamps,
        )
        return saved.write(Path(path))

    @classmethod
    def load(cls, pipeline: Pipeline, path: str | os.PathLike[str], *, identity: str) -> Stream:
        """Continue a saved stream; see `VISPredictor.load_stream`.

        Raises:
            StreamError: The file is missing or damaged, or was saved with another bundle.
        """
        saved = SavedStream.read(Path(path), bundle=identity)
        stream = cls(pipeline, identity=identity, collect=saved.masks is not None, name=saved.name, fps=saved.fps)
        stream._state = pipeline.load_state(saved.graph, saved.size)
        stream.decoder.load_state(saved.decoder)
        stream._feeder = pipeline.feeder.restore(saved.waiting, saved.num_frames)
        stream._ready = deque(replace(each, classes=stream.decoder.classes) for each in saved.ready)
        stream.num_frames, stream._size = saved.num_frames, saved.size
        stream.num_results = saved.num_results
        if saved.masks is not None:
            stream._collected = Collected(saved.masks, saved.timestamps)
        return stream

    def close(self) -> None:
        """Free the state. `result` still works; pushing, flushing and saving no longer do."""
        self._closed, self._state, self._feeder = True, None, self._pipeline.feeder

    def _check_open(self, action: str) -> None:
        if self._closed:
            raise StreamError(f"the stream is closed, cannot {action}", hint="Open a new one with open_stream().")

    def __enter__(self) -> Stream:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def whole_video(
    pipeline: Pipeline, frames: Iterable[npt.NDArray[np.uint8]], *, name: str, fps: float = 0.0
) -> VideoResult:
    """The tracks of all frames of a video.

    Args:
        pipeline: The model on its engine.
        frames: RGB pixels, uint8 `[height, width, 3]`, all of one size.
        name: Name of the result.
        fps: Frame rate of the result, 0 where unknown.

    Raises:
        StreamError: There is no frame, or one is of another size.
        SourceError: A frame is no RGB image.
        EngineError: The graph failed.
    """
    with Stream(pipeline, collect=True, name=name, fps=fps) as stream:
        for frame in frames:
            stream.push(frame)
        stream.flush()
        return stream.result()
