"""Grouping of frames into steps of the graph: single frames or overlapping clips, as described by `Window`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from visdeploy.errors import StreamError
from visdeploy.manifest import GraphSpec, Window

FrameArray = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Step:
    """One run of the graph.

    Attributes:
        inputs: Graph inputs that are not state, by name: the frames along the first axis and, if the graph has such an
            input, the height and width of the frames without padding, int64 `[2]`.
        first: Position of the first frame in its stream.
        timestamps: Timestamps in seconds, one for each actual frame; frames repeated to fill a short clip have none.
        fresh: Number of frames, at the end, that were not part of an earlier step.
    """

    inputs: Mapping[str, npt.NDArray[Any]]
    first: int
    timestamps: tuple[float, ...]
    fresh: int

    @property
    def length(self) -> int:
        """Number of actual frames, without repetitions that fill a short clip."""
        return len(self.timestamps)

    @property
    def end(self) -> int:
        """Position after the last frame."""
        return self.first + self.length


@dataclass(frozen=True)
class Feeder:
    """Collects frames until a step is complete. It is immutable, so that a failed step leaves a stream unchanged.

    The first clip is complete after `window.length` frames, each further one after `window.stride` more frames.
    `finish` returns the last `window.length` frames as a final clip, so it may overlap the previous one further. If a
    video is shorter than a clip and the graph has a fixed number of frames, frames are repeated as described by
    `Window.short_video`.

    Attributes:
        name: Graph input for the frames.
        window: Frames per step.
        fixed: Whether the graph requires exactly `window.length` frames.
        size_name: Graph input for the size of the frames without padding; by default there is none.
        content: Height and width of the frames without padding.
        frames: The last preprocessed frames, float32 `[1, 3, height, width]` each; at most `window.length`.
        timestamps: Timestamps of these frames in seconds.
        count: Number of frames seen.
        done: Number of frames that have been part of a step.
    """

    name: str
    window: Window
    fixed: bool
    size_name: str | None = None
    content: tuple[int, int] = (0, 0)
    frames: tuple[FrameArray, ...] = ()
    timestamps: tuple[float, ...] = ()
    count: int = 0
    done: int = 0

    @classmethod
    def of(cls, spec: GraphSpec) -> Feeder:
        """Create an empty feeder for a graph."""
        size = spec.size
        fixed = isinstance(spec.frames.shape[0], int)
        return cls(spec.frames.name, spec.window, fixed, None if size is None else size.name)

    def push(
        self, frame: FrameArray, timestamp: float, content: tuple[int, int] | None = None
    ) -> tuple[Feeder, Step | None]:
        """Add the next frame.

        Args:
            frame: Preprocessed frame, float32 `[1, 3, height, width]`.
            timestamp: Timestamp in seconds.
            content: Height and width of the frame without padding; by default there is no padding.

        Returns:
            The feeder with the frame, and the step that is now complete, if any.
        """
        length = self.window.length
        after = replace(
            self,
            frames=(*self.frames, frame)[-length:],
            timestamps=(*self.timestamps, timestamp)[-length:],
            content=content or (frame.shape[2], frame.shape[3]),
            count=self.count + 1,
        )
        over = after.count - length
        return after._step() if over >= 0 and over % self.window.stride == 0 else (after, None)

    def finish(self) -> tuple[Feeder, Step | None]:
        """Return the final step, if there are frames that were not part of a step."""
        return self._step() if self.count > self.done else (self, None)

    def _step(self) -> tuple[Feeder, Step]:
        frames = self.frames
        if self.fixed:
            frames = tuple(frames[i] for i in self._filled(len(frames)))
        clip = frames[0] if len(frames) == 1 else np.concatenate(frames)
        first = self.count - len(self.frames)
        inputs: dict[str, npt.NDArray[Any]] = {self.name: clip}
        if self.size_name is not None:
            inputs[self.size_name] = np.array(self.content, np.int64)
        step = Step(inputs, first, self.timestamps, self.count - self.done)
        return replace(self, done=self.count), step

    def _filled(self, given: int) -> list[int]:
        """Return the frame at each place of a clip of a fixed length."""
        missing = self.window.length - given
        if self.window.short_video == "repeat_first_frame":
            return [0] * missing + list(range(given))
        return [i % given for i in range(self.window.length)]

    def state(self) -> dict[str, npt.NDArray[Any]]:
        """Return the frames that are waiting, as arrays for `restore`; empty if each step is a single frame."""
        if self.window.length == 1:
            return {}
        frames = np.concatenate(self.frames) if self.frames else np.zeros((0, 3, 1, 1), np.float32)
        stamps = np.array(self.timestamps, np.float64)
        return {
            "frames": frames,
            "timestamps": stamps,
            "done": np.array(self.done, np.int64),
            "content": np.array(self.content, np.int64),
        }

    def restore(
        self, arrays: Mapping[str, npt.NDArray[Any]], count: int, size: tuple[int, int], content: tuple[int, int]
    ) -> Feeder:
        """Return this feeder with a saved state.

        Args:
            arrays: Arrays returned by `state`.
            count: Number of frames that the saved stream had seen.
            size: Height and width of the stream's preprocessed frames.
            content: Height and width of their content, without padding.

        Raises:
            StreamError: The arrays are incomplete, contradict each other, or hold frames of another size.
        """
        if self.window.length == 1:
            return replace(self, count=count, done=count)
        try:
            frames, stamps, done = arrays["frames"], arrays["timestamps"], int(arrays["done"])
            held = min(count, self.window.length)
            if frames.dtype != np.float32 or frames.ndim != 4 or len(frames) != held or stamps.shape != (held,):
                raise ValueError(f"{frames.dtype} {frames.shape} frames, {stamps.shape} timestamps of {count} frames")
            if not 0 <= done <= count or count - done > held:
                raise ValueError(f"{done} of {count} frames processed")
            if held and (frames.shape[1:], arrays["content"].tolist()) != ((3, *size), list(content)):
                raise ValueError(f"frames of {frames.shape[1:]} in a stream of {(3, *size)}")
            if not np.isfinite(stamps).all():
                raise ValueError("a timestamp that is not finite")
        except (KeyError, ValueError, TypeError, AttributeError) as error:
            raise StreamError("the frames of a saved stream cannot be read", seen=str(error)[:200]) from error
        parts = tuple(np.array(frames[i : i + 1]) for i in range(held))
        return replace(
            self,
            frames=parts,
            timestamps=tuple(stamps.tolist()),
            content=content,
            count=count,
            done=done,
        )


def steps(feeder: Feeder, frames: Iterable[tuple[FrameArray, tuple[int, int] | None]]) -> Iterator[Step]:
    """Iterate over all steps of a video, including the last one.

    Args:
        feeder: An empty feeder.
        frames: Preprocessed frames, float32 `[1, 3, height, width]`, each with its height and width without padding.
    """
    for frame, content in frames:
        feeder, step = feeder.push(frame, 0.0, content)
        if step is not None:
            yield step
    _, step = feeder.finish()
    if step is not None:
        yield step
