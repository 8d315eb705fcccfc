"""One stream of frames through a predictor: push a frame, get its instances; save, resume, collect."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from visdeploy.errors import StreamError
from visdeploy.masks import Mask
from visdeploy.methods import create_decoder
from visdeploy.preprocess import check_frame
from visdeploy.results import FrameResult, Track, VideoResult
from visdeploy.stream_state import SavedStream

if TYPE_CHECKING:
    from visdeploy.predictor import VISPredictor


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

    A push that raises leaves the stream as it was, so the next good frame continues the tracks. A stream is used by
    one thread at a time; different streams of one predictor may run in different threads.

    Args:
        predictor: The loaded bundle.
        collect: Keep what `result` needs. Memory then grows with the video by its run-length encoded masks; without
            it, it stays flat for ever.
        name: Name of the result.
        fps: Frame rate; gives frames pushed without a timestamp one.

    Example:
        >>> with predictor.open_stream() as stream:  # doctest: +SKIP
        ...     for frame in frames:
        ...         for instance in stream.push(frame):
        ...             print(instance.track_id, instance.box)
    """

    def __init__(
        self, predictor: VISPredictor, *, collect: bool = False, name: str = "stream", fps: float = 0.0
    ) -> None:
        if not (math.isfinite(fps) and fps >= 0):
            raise StreamError("wrong frame rate of a stream", seen=str(fps), expected="frames per second, or 0")
        manifest = predictor.bundle.manifest
        self.name, self.fps = name, float(fps)
        self.num_frames = 0
        self._predictor, self._closed = predictor, False
        self._collected = Collected() if collect else None
        self._size: tuple[int, int] | None = None
        self._state = predictor.backend.initial_state()
        self.decoder = create_decoder(
            manifest.method,
            classes=manifest.classes,
            decode=manifest.decode,
            tracking=manifest.tracking,
            keep_tracks=collect,
            profiler=predictor.profiler,
        )

    def push(self, frame: npt.NDArray[np.uint8], timestamp: float | None = None) -> FrameResult:
        """Process the next frame.

        Args:
            frame: RGB pixels, uint8 `[height, width, 3]`, of the same size in every call.
            timestamp: Seconds from the start of the stream; by default from `fps`, or 0 without one.

        Raises:
            SourceError: The frame is no RGB image; the hint says how to convert it.
            StreamError: The stream is closed, the size differs from the frames before, or the timestamp is no number.
            EngineError: The graph failed.
        """
        self._check_open("push a frame")
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
        result, self._state = self._step(frame, float(timestamp))
        self._size = (height, width)
        self.num_frames += 1
        if self._collected is not None:
            self._collected.add(result)
        return result

    def _step(self, frame: npt.NDArray[np.uint8], timestamp: float) -> tuple[FrameResult, Any]:
        """The result of a frame and the graph's next state. Only the decoder's last act changes the stream."""
        predictor = self._predictor
        with predictor.profiler.stage("preprocess"):
            inputs = {predictor.frame_input: predictor.preprocess(frame)}
        with predictor.profiler.stage("graph"):
            outputs, state = predictor.backend.run(inputs, self._state)
        height, width = frame.shape[:2]
        result = self.decoder.step(outputs, index=self.num_frames, timestamp=timestamp, height=height, width=width)
        return result, state

    def result(self) -> VideoResult:
        """The tracks so far, each with its final label and score.

        Raises:
            StreamError: The stream was not opened with `collect=True`, or has seen no frame.
        """
        if self._collected is None:
            raise StreamError(
                "this stream keeps no result", hint="Open it with collect=True, or use the result of every push."
            )
        if self._size is None:
            raise StreamError("this stream has no result yet", seen="no frame", expected="at least one push")
        tracks = [
            Track(s.track_id, s.label, s.score, dict(self._collected.masks.get(s.track_id, {})), s.class_scores)
            for s in self.decoder.summaries()
        ]
        return VideoResult(
            name=self.name,
            height=self._size[0],
            width=self._size[1],
            num_frames=self.num_frames,
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
        saved = SavedStream(
            bundle=self._predictor.identity,
            name=self.name,
            fps=self.fps,
            num_frames=self.num_frames,
            size=self._size,
            graph=self._predictor.backend.state_to_host(self._state),
            decoder=self.decoder.state(),
            masks=None if self._collected is None else self._collected.masks,
            timestamps=[] if self._collected is None else self._collected.timestamps,
        )
        return saved.write(Path(path))

    @classmethod
    def load(cls, predictor: VISPredictor, path: str | os.PathLike[str]) -> Stream:
        """Continue a saved stream; see `VISPredictor.load_stream`.

        Raises:
            StreamError: The file is missing or damaged, or was saved with another bundle.
        """
        saved = SavedStream.read(Path(path), bundle=predictor.identity)
        stream = cls(predictor, collect=saved.masks is not None, name=saved.name, fps=saved.fps)
        stream._state = predictor.backend.state_from_host(saved.graph)
        stream.decoder.load_state(saved.decoder)
        stream.num_frames, stream._size = saved.num_frames, saved.size
        if saved.masks is not None:
            stream._collected = Collected(saved.masks, saved.timestamps)
        return stream

    def close(self) -> None:
        """Free the state. `result` still works; pushing and saving no longer do."""
        self._closed, self._state = True, {}

    def _check_open(self, action: str) -> None:
        if self._closed:
            raise StreamError(f"the stream is closed, cannot {action}", hint="Open a new one with open_stream().")

    def __enter__(self) -> Stream:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
