"""Windows of VIShv that wait for their foreground, and the averages of the frames that they share."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from visdeploy.errors import BundleError
from visdeploy.methods.base import Arrays, take_output

FloatArray = npt.NDArray[np.float32]
BoolArray = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class WindowOutputs:
    """Raw outputs of one window; T rows, which include repetitions of the first frame in front.

    Attributes:
        embeddings: float32 `[T, E, h, w]`.
        bandwidths: float32 `[T, B, h, w]`.
        seediness: float32 `[T, h, w]`.
        foreground: float32 `[T, h, w]`, logits; None without semantic head.
        classes: float32 `[T, C, h, w]`, logits, the first channel is the background; None if classes do not count.
    """

    embeddings: FloatArray
    bandwidths: FloatArray
    seediness: FloatArray
    foreground: FloatArray | None
    classes: FloatArray | None

    @classmethod
    def of(cls, outputs: Arrays, *, free_dims: int, channels: int | None) -> WindowOutputs:
        """Check the outputs of a graph.

        Args:
            outputs: The outputs.
            free_dims: Number of embedding dimensions without a predicted bandwidth.
            channels: Number of classes with the background; None if the outputs need not have classes.

        Raises:
            BundleError: An output is missing or malformed.
        """
        embeddings = take_output(outputs, "embeddings", (None, None, None, None), "float32")
        frames, size, *sides = embeddings.shape
        shape = (frames, *sides)
        if size <= free_dims:
            raise BundleError(
                "the graph's output 'embeddings' contradicts the manifest",
                seen=f"{size} dimensions",
                expected=f"more than {free_dims}, the number of 'decode.free_dim_stds'",
                hint="Export the bundle again with this version.",
            )
        bandwidths = take_output(outputs, "bandwidths", (frames, size - free_dims, *sides), "float32")
        seediness = take_output(outputs, "seediness", shape, "float32")
        foreground = classes = None
        if channels is not None:
            classes = take_output(outputs, "class_logits", (frames, channels, *sides), "float32")
        if channels is not None or "foreground_logits" in outputs:
            foreground = take_output(outputs, "foreground_logits", shape, "float32")
        return cls(embeddings, bandwidths, seediness, foreground, classes)

    def __len__(self) -> int:
        return len(self.embeddings)


@dataclass(frozen=True)
class Waiting:
    """Window whose foreground is not final, because a later window can share its frames.

    Attributes:
        first: Position of its first frame in the stream.
        embeddings: float32 `[T, E, h, w]`, one row per frame.
        bandwidths: float32 `[T, B, h, w]`.
        seediness: float32 `[T, h, w]`.
    """

    first: int
    embeddings: FloatArray
    bandwidths: FloatArray
    seediness: FloatArray

    @classmethod
    def of(cls, outputs: WindowOutputs, first: int, *, skip: int, length: int) -> Waiting:
        """Copy the rows of a window, with the last repetition of a repeated frame.

        Args:
            outputs: The outputs.
            first: Position of the first frame.
            skip: Number of repetitions in front.
            length: Number of frames.
        """
        rows = slice(skip, skip + length)
        return cls(first, *(np.array(a[rows]) for a in (outputs.embeddings, outputs.bandwidths, outputs.seediness)))

    @property
    def end(self) -> int:
        """Position after the last frame."""
        return self.first + len(self.seediness)

    @property
    def frames(self) -> range:
        """Positions of the frames."""
        return range(self.first, self.end)


@dataclass(frozen=True)
class FrameSums:
    """Sums of the outputs of one frame over the windows that contain it, and over its repetitions in a window.

    Attributes:
        timestamp: Seconds from the start of the source.
        count: Number of terms.
        foreground: float32 `[h, w]`, sum of the logits of the foreground; without semantic head, of the seediness.
        classes: float32 `[C, h, w]`, sum of the logits of the classes; None if classes do not count.
        semantic: Whether there is a semantic head.
    """

    timestamp: float
    count: int
    foreground: FloatArray
    classes: FloatArray | None
    semantic: bool

    def mask(self, threshold: float) -> BoolArray:
        """Return the foreground, bool `[h, w]`: the pixels whose mean is above a threshold."""
        return np.asarray(self.foreground / np.float32(self.count) > np.float32(threshold))

    def margins(self, threshold: float) -> FloatArray:
        """Return the mean of the foreground minus a threshold, float32 `[h, w]`."""
        return np.asarray(self.foreground / np.float32(self.count) - np.float32(threshold), np.float32)

    def class_means(self, pixels: BoolArray) -> FloatArray:
        """Return the mean logits of the classes at some pixels, float32 `[C, P]`."""
        if self.classes is None:
            return np.zeros((0, int(np.count_nonzero(pixels))), np.float32)
        return np.asarray(self.classes[:, pixels] / np.float32(self.count), np.float32)


def add_window(
    sums: Mapping[int, FrameSums], outputs: WindowOutputs, frames: Iterable[tuple[int, int, float]]
) -> dict[int, FrameSums]:
    """Return the sums with the outputs of one more window, in new arrays where they change.

    Args:
        sums: Sums of each frame.
        outputs: Outputs of the window.
        frames: Row of the outputs, position of its frame in the stream and timestamp, in the order of the rows.
    """
    found = dict(sums)
    semantic = outputs.foreground is not None
    values = outputs.seediness if outputs.foreground is None else outputs.foreground
    for row, frame, timestamp in frames:
        classes = None if outputs.classes is None else outputs.classes[row]
        if (known := found.get(frame)) is None:
            copied = None if classes is None else classes.copy()
            found[frame] = FrameSums(timestamp, 1, values[row].copy(), copied, semantic)
        else:
            total = None if classes is None or known.classes is None else known.classes + classes
            found[frame] = FrameSums(timestamp, known.count + 1, known.foreground + values[row], total, semantic)
    return found


def pack(waiting: Iterable[Waiting], sums: Mapping[int, FrameSums]) -> dict[str, npt.NDArray[Any]]:
    """Return windows and sums as arrays, to be restored by `unpack`."""
    arrays: dict[str, npt.NDArray[Any]] = {}
    for number, each in enumerate(waiting):
        arrays[f"window{number}.first"] = np.array(each.first, np.int64)
        for name in ("embeddings", "bandwidths", "seediness"):
            arrays[f"window{number}.{name}"] = getattr(each, name)
    frames = sorted(sums)
    arrays["sums.frames"] = np.array(frames, np.int64)
    arrays["sums.counts"] = np.array([sums[t].count for t in frames], np.int64)
    arrays["sums.timestamps"] = np.array([sums[t].timestamp for t in frames], np.float64)
    arrays["sums.semantic"] = np.array(any(each.semantic for each in sums.values()))
    if frames:
        arrays["sums.foreground"] = np.stack([sums[t].foreground for t in frames])
        classes = [found for t in frames if (found := sums[t].classes) is not None]
        if classes:
            arrays["sums.classes"] = np.stack(classes)
    return arrays


def unpack(arrays: Arrays, *, free_dims: int, channels: int | None) -> tuple[tuple[Waiting, ...], dict[int, FrameSums]]:
    """Restore the arrays of `pack`.

    Args:
        arrays: The arrays.
        free_dims: See `WindowOutputs.of`.
        channels: See `WindowOutputs.of`.

    Raises:
        KeyError: An array is missing.
        ValueError: The arrays are inconsistent.
    """
    frames, counts, stamps = (arrays[f"sums.{name}"] for name in ("frames", "counts", "timestamps"))
    semantic = bool(arrays["sums.semantic"])
    if not len(frames) == len(counts) == len(stamps) or (counts < 1).any() or not np.isfinite(stamps).all():
        raise ValueError(f"{len(frames)} frames with {len(counts)} counts and {len(stamps)} timestamps")
    if (np.diff(frames) != 1).any():
        raise ValueError("frames that are not consecutive")
    sums: dict[int, FrameSums] = {}
    if len(frames):
        foreground, classes = _floats(arrays["sums.foreground"], 3), arrays.get("sums.classes")
        if len(foreground) != len(frames) or (classes is not None and len(_floats(classes, 4)) != len(frames)):
            raise ValueError(f"{len(foreground)} sums of {len(frames)} frames")
        if channels is not None and (classes is None or classes.shape[1:] != (channels, *foreground.shape[1:])):
            found = None if classes is None else classes.shape
            raise ValueError(f"sums of classes {found} beside a foreground {foreground.shape}")
        for row, (frame, count, stamp) in enumerate(
            zip(frames.tolist(), counts.tolist(), stamps.tolist(), strict=True)
        ):
            total = None if classes is None else classes[row]
            sums[frame] = FrameSums(float(stamp), int(count), foreground[row], total, semantic)
    waiting: list[Waiting] = []
    while f"window{len(waiting)}.first" in arrays:
        name = f"window{len(waiting)}"
        parts = [_floats(arrays[f"{name}.{part}"], n)
                 for part, n in (("embeddings", 4), ("bandwidths", 4), ("seediness", 3))]  # fmt: skip
        each = Waiting(int(arrays[f"{name}.first"]), *parts)
        if len({(len(p), *p.shape[-2:]) for p in parts}) != 1 or any(
            t not in sums or sums[t].foreground.shape != each.seediness.shape[1:] for t in each.frames
        ):
            raise ValueError(f"window {len(waiting)}: {[p.shape for p in parts]}")
        if parts[0].shape[1] != parts[1].shape[1] + free_dims or (waiting and each.first <= waiting[-1].first):
            raise ValueError(f"window {len(waiting)} at frame {each.first}: {[p.shape for p in parts]}")
        waiting.append(each)
    return tuple(waiting), sums


def _floats(array: npt.NDArray[Any], dimensions: int) -> FloatArray:
    if array.dtype != np.float32 or array.ndim != dimensions:
        raise ValueError(f"{array.dtype} {array.shape} instead of float32 with {dimensions} dimensions")
    return np.array(array)
