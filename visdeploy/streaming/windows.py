"""From single frames to steps of the graph: one frame each, or overlapping clips, as the manifest's window says."""

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
        inputs: The graph's inputs that are not state, by name: the frames along the first axis, and the rows and
            columns of their content, int64 `[2]`, where the graph takes them.
        first: Position of the first frame in its stream.
        timestamps: Seconds of each frame; their number is that of the real frames, without repetitions that fill a
            short clip.
        fresh: How many of the frames, the last ones, no earlier step has seen.
    """

    inputs: Mapping[str, npt.NDArray[Any]]
    first: int
    timestamps: tuple[float, ...]
    fresh: int

    @property
    def length(self) -> int:
        """Number of real frames."""
        return len(self.timestamps)

    @property
    def end(self) -> int:
        """Position after the last frame."""
        return self.first + self.length


@dataclass(frozen=True)
class Feeder:
    """Collects frames until a step is complete. Immutable, so that a failed step leaves a stream as it was.

    A clip is complete with `window.length` frames, the next one `window.stride` frames later; `finish` gives the last
    frames as one more clip that reaches back as far as it can. A graph with a fixed number of frames gets a shorter
    video repeated from its start, as the published clip methods do.

    Attributes:
        name: Graph input that takes the frames.
        window: Frames per step.
        fixed: Whether the graph takes exactly `window.length` frames.
        size_name: Graph input that takes the size of the frames' content; none by default.
        content: Rows and columns of the frames' content, without padding.
        frames: The last preprocessed frames, float32 `[1, 3, height, width]` each; at most `window.length`.
        timestamps: Seconds of each.
        count: Frames seen.
        done: Frames that have been part of a step.
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
        """An empty feeder for a graph."""
        size = spec.size
        fixed = isinstance(spec.frames.shape[0], int)
        return cls(spec.frames.name, spec.window, fixed, None if size is None else size.name)

    def push(
        self, frame: FrameArray, timestamp: float, content: tuple[int, int] | None = None
    ) -> tuple[Feeder, Step | None]:
        """Take the next frame.

        Args:
            frame: Preprocessed, float32 `[1, 3, height, width]`.
            timestamp: Seconds.
            content: Rows and columns of its content; all of it by default.

        Returns:
            The feeder with it, and the step that it completes, if any.
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
        """The frames that no step has seen yet, as one more step, if there are any."""
        return self._step() if self.count > self.done else (self, None)

    def _step(self) -> tuple[Feeder, Step]:
        frames = self.frames
        if self.fixed:
            frames = tuple(frames[i % len(frames)] for i in range(self.window.length))
        clip = frames[0] if len(frames) == 1 else np.concatenate(frames)
        first = self.count - len(self.frames)
        inputs: dict[str, npt.NDArray[Any]] = {self.name: clip}
        if self.size_name is not None:
            inputs[self.size_name] = np.array(self.content, np.int64)
        step = Step(inputs, first, self.timestamps, self.count - self.done)
        return replace(self, done=self.count), step

    def state(self) -> dict[str, npt.NDArray[Any]]:
        """What is waiting, as arrays that `restore` takes back; nothing where steps are single frames."""
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

    def restore(self, arrays: Mapping[str, npt.NDArray[Any]], count: int) -> Feeder:
        """This feeder with a saved state.

        Args:
            arrays: What `state` gave.
            count: Frames that the saved stream had seen.

        Raises:
            StreamError: The arrays are incomplete or contradict each other.
        """
        if self.window.length == 1:
            return replace(self, count=count, done=count)
        try:
            frames, stamps, done = arrays["frames"], arrays["timestamps"], int(arrays["done"])
            rows, columns = (int(side) for side in arrays["content"])
            held = min(count, self.window.length)
            if frames.dtype != np.float32 or frames.ndim != 4 or len(frames) != held or stamps.shape != (held,):
                raise ValueError(f"{frames.dtype} {frames.shape} frames, {stamps.shape} timestamps of {count} frames")
            if not 0 <= done <= count or count - done > held:
                raise ValueError(f"{done} of {count} frames processed")
            if held and not (1 <= rows <= frames.shape[2] and 1 <= columns <= frames.shape[3]):
                raise ValueError(f"content of {rows}x{columns} in frames of {frames.shape[2]}x{frames.shape[3]}")
        except (KeyError, ValueError, TypeError) as error:
            raise StreamError("the frames of a saved stream cannot be read", seen=str(error)[:200]) from error
        parts = tuple(np.array(frames[i : i + 1]) for i in range(held))
        return replace(
            self,
            frames=parts,
            timestamps=tuple(stamps.tolist()),
            content=(rows, columns),
            count=count,
            done=done,
        )


def steps(feeder: Feeder, frames: Iterable[tuple[FrameArray, tuple[int, int] | None]]) -> Iterator[Step]:
    """The steps of a whole video, the last one included.

    Args:
        feeder: An empty feeder.
        frames: Preprocessed frames, float32 `[1, 3, height, width]`, each with the rows and columns of its content.
    """
    for frame, content in frames:
        feeder, step = feeder.push(frame, 0.0, content)
        if step is not None:
            yield step
    _, step = feeder.finish()
    if step is not None:
        yield step
