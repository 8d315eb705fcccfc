"""From single frames to steps of the graph: one frame each, or overlapping clips, as the manifest's window says."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from visdeploy.errors import BundleError, StreamError
from visdeploy.manifest import Manifest, Window

FrameArray = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Step:
    """One run of the graph.

    Attributes:
        inputs: The graph's one input that is not state, by name; frames along the first axis.
        first: Position of the first frame in its stream.
        timestamps: Seconds of each frame; their number is that of the real frames, without repetitions that fill a
            short clip.
        fresh: How many of the frames, the last ones, no earlier step has seen.
    """

    inputs: Mapping[str, FrameArray]
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
        frames: The last preprocessed frames, float32 `[1, 3, height, width]` each; at most `window.length`.
        timestamps: Seconds of each.
        count: Frames seen.
        done: Frames that have been part of a step.
    """

    name: str
    window: Window
    fixed: bool
    frames: tuple[FrameArray, ...] = ()
    timestamps: tuple[float, ...] = ()
    count: int = 0
    done: int = 0

    @classmethod
    def of(cls, manifest: Manifest, *, where: str = "manifest.json") -> Feeder:
        """An empty feeder for a bundle.

        Raises:
            BundleError: The graph wants more inputs than frames, or its frame input contradicts the window.
        """
        if len(manifest.inputs) != 1:
            raise BundleError(
                f"{where}: field 'inputs': more than the frames",
                seen=str([t.name for t in manifest.inputs]),
                expected="one input that takes frames",
            )
        spec, window = manifest.inputs[0], manifest.window
        fixed = isinstance(spec.shape[0], int)
        if len(spec.shape) != 4 or (fixed and spec.shape[0] != window.length):
            raise BundleError(
                f"{where}: input {spec.name!r} contradicts the field 'window'",
                seen=f"shape {spec.shape}",
                expected=f"[{window.length} or a symbol, 3, height, width]",
                hint="Export the bundle again with this version.",
            )
        return cls(spec.name, window, fixed)

    def push(self, frame: FrameArray, timestamp: float) -> tuple[Feeder, Step | None]:
        """Takes the next frame.

        Args:
            frame: Preprocessed, float32 `[1, 3, height, width]`.
            timestamp: Seconds.

        Returns:
            The feeder with it, and the step that it completes, if any.
        """
        length = self.window.length
        after = replace(
            self,
            frames=(*self.frames, frame)[-length:],
            timestamps=(*self.timestamps, timestamp)[-length:],
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
        step = Step({self.name: clip}, first, self.timestamps, self.count - self.done)
        return replace(self, done=self.count), step

    def state(self) -> dict[str, npt.NDArray[Any]]:
        """What is waiting, as arrays that `restore` takes back; nothing where steps are single frames."""
        if self.window.length == 1:
            return {}
        frames = np.concatenate(self.frames) if self.frames else np.zeros((0, 3, 1, 1), np.float32)
        stamps = np.array(self.timestamps, np.float64)
        return {"frames": frames, "timestamps": stamps, "done": np.array(self.done, np.int64)}

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
            held = min(count, self.window.length)
            if frames.dtype != np.float32 or frames.ndim != 4 or len(frames) != held or stamps.shape != (held,):
                raise ValueError(f"{frames.dtype} {frames.shape} frames, {stamps.shape} timestamps of {count} frames")
            if not 0 <= done <= count or count - done > held:
                raise ValueError(f"{done} of {count} frames processed")
        except (KeyError, ValueError, TypeError) as error:
            raise StreamError("the frames of a saved stream cannot be read", seen=str(error)[:200]) from error
        parts = tuple(np.array(frames[i : i + 1]) for i in range(held))
        return replace(self, frames=parts, timestamps=tuple(stamps.tolist()), count=count, done=done)


def steps(feeder: Feeder, frames: Iterable[FrameArray]) -> Iterator[Step]:
    """The steps of a whole video, the last one included.

    Args:
        feeder: An empty feeder.
        frames: Preprocessed frames, float32 `[1, 3, height, width]` each.
    """
    for frame in frames:
        feeder, step = feeder.push(frame, 0.0)
        if step is not None:
            yield step
    _, step = feeder.finish()
    if step is not None:
        yield step
