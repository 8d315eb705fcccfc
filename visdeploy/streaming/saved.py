"""Saved streams on disk: one npz archive without pickle per stream, tied to its bundle."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from visdeploy.archives import check_archive
from visdeploy.atomic import replacing_file
from visdeploy.errors import DataError, OutputError, StreamError
from visdeploy.masks import Mask
from visdeploy.results import FrameResult, Instance

FORMAT, SCHEMA_VERSION = "visdeploy.stream", 3
Array = npt.NDArray[Any]
_LEFT_OUT = 2.0
"""Stored as the minimum score of a class that is left out."""


class _Header(BaseModel):
    """Header of the archive, stored as JSON."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    format: str
    schema_version: int
    bundle: str
    name: str
    fps: float = Field(ge=0)
    num_frames: int = Field(ge=0)
    num_results: int = Field(ge=0)
    height: int | None = Field(ge=1)
    width: int | None = Field(ge=1)
    collects: bool


@dataclass
class SavedStream:
    """Complete state of a stream.

    Attributes:
        bundle: Identity of the bundle of the stream.
        name: Name of the result of the stream.
        fps: Frame rate, 0 if unknown.
        num_frames: Number of frames pushed.
        num_results: Number of results returned.
        size: Height and width of the frames; None before the first frame.
        graph: State of the graph, by input name; empty before the first step.
        decoder: State of the decoder.
        waiting: State of the feeder: frames of a clip that is not yet complete.
        ready: Results that have not been returned yet, without class names.
        limits: Choice of the returned objects, see `Selection.limits`.
        images: RGB pixels of the frames whose results have not been returned yet, if the stream keeps images.
        masks: Map from track id to frame index to mask, if the stream collects results; otherwise None.
        timestamps: Timestamps in seconds of all returned results, if the stream collects results.
    """

    bundle: str
    name: str
    fps: float
    num_frames: int
    num_results: int
    size: tuple[int, int] | None
    graph: Mapping[str, Array]
    decoder: Mapping[str, Array]
    waiting: Mapping[str, Array]
    ready: list[FrameResult]
    limits: tuple[float | None, ...]
    images: list[npt.NDArray[np.uint8]] | None
    masks: dict[int, dict[int, Mask]] | None
    timestamps: list[float]

    def write(self, path: Path) -> Path:
        """Write the archive atomically: the file is complete or absent.

        Raises:
            StreamError: The file cannot be written.
        """
        height, width = self.size or (None, None)
        header = _Header(
            format=FORMAT,
            schema_version=SCHEMA_VERSION,
            bundle=self.bundle,
            name=self.name,
            fps=self.fps,
            num_frames=self.num_frames,
            num_results=self.num_results,
            height=height,
            width=width,
            collects=self.masks is not None,
        )
        arrays = {"header": np.frombuffer(header.model_dump_json().encode(), dtype=np.uint8)}
        arrays |= {f"graph/{name}": array for name, array in self.graph.items()}
        arrays |= {f"decoder/{name}": array for name, array in self.decoder.items()}
        arrays |= {f"waiting/{name}": array for name, array in self.waiting.items()}
        arrays |= {f"ready/{name}": array for name, array in _pack_results(self.ready).items()}
        if self.limits:
            arrays["selection/limits"] = np.array([_LEFT_OUT if v is None else v for v in self.limits], np.float64)
        if self.images is not None:
            arrays["images/frames"] = np.stack(self.images) if self.images else np.zeros((0, 1, 1, 3), np.uint8)
        if self.masks is not None:
            arrays |= {f"collected/{name}": array for name, array in _pack(self.masks, self.timestamps).items()}
        _write_arrays(path, arrays)
        return path

    @classmethod
    def read(cls, path: Path, *, bundle: str) -> SavedStream:
        """Read an archive.

        Args:
            path: The file.
            bundle: Identity of the bundle that is to continue the stream.

        Raises:
            StreamError: The file is missing, damaged, of a newer schema, or was saved with another bundle.
        """
        arrays = _read_arrays(path)
        header = _read_header(path, arrays.pop("header", None))
        if header.bundle != bundle:
            raise StreamError(
                f"{path} was saved with another bundle",
                seen=f"bundle {header.bundle[:12]}…",
                expected=f"{bundle[:12]}…",
                hint="Continue it with the bundle it was saved with; the state of one model does not fit another.",
            )
        size = None if header.height is None or header.width is None else (header.height, header.width)
        collected = _group(arrays, "collected/")
        masks, stamps = _unpack(path, collected, size, header.num_results) if header.collects else (None, [])
        return cls(
            bundle=bundle,
            name=header.name,
            fps=header.fps,
            num_frames=header.num_frames,
            num_results=header.num_results,
            size=size,
            graph=_group(arrays, "graph/"),
            decoder=_group(arrays, "decoder/"),
            waiting=_group(arrays, "waiting/"),
            ready=_unpack_results(path, _group(arrays, "ready/"), size, header),
            limits=_unpack_limits(path, arrays.get("selection/limits")),
            images=_unpack_images(path, arrays.get("images/frames"), size, header),
            masks=masks,
            timestamps=stamps,
        )


def write_part(path: Path, masks: Mapping[int, Mapping[int, Mask]], timestamps: Sequence[float], first: int) -> None:
    """Write the collected results of some consecutive frames.

    Args:
        path: The file.
        masks: Map from track id to frame index to mask, for these frames alone.
        timestamps: Timestamps of these frames.
        first: Index of the first one.

    Raises:
        StreamError: The file cannot be written.
    """
    counted = {track: {frame - first: mask for frame, mask in frames.items()} for track, frames in masks.items()}
    _write_arrays(path, _pack(counted, timestamps))


def read_part(path: Path, size: tuple[int, int] | None, first: int) -> tuple[dict[int, dict[int, Mask]], list[float]]:
    """Return the masks and the timestamps that `write_part` wrote.

    Raises:
        StreamError: The file is missing or damaged.
    """
    arrays = _read_arrays(path)
    masks, stamps = _unpack(path, arrays, size, len(arrays.get("timestamps", ())))
    return {t: {first + frame: mask for frame, mask in frames.items()} for t, frames in masks.items()}, stamps


def _write_arrays(path: Path, arrays: Mapping[str, Array]) -> None:
    try:
        with replacing_file(path) as temporary, temporary.open("wb") as file:
            np.savez(file, allow_pickle=False, **arrays)
    except OutputError as error:
        raise StreamError(f"the stream cannot be saved to {path}", seen=error.seen, hint=error.hint) from error


def _read_arrays(path: Path) -> dict[str, Array]:
    try:
        check_archive(path)
        with np.load(path, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except Exception as error:  # zipfile, zlib and numpy raise different exceptions for damaged archives
        raise StreamError(
            f"{path} is not a saved stream", seen=str(error)[:200], expected="a file written by Stream.save"
        ) from error


def _read_header(path: Path, array: Array | None) -> _Header:
    try:
        text = b"" if array is None else array.astype(np.uint8).tobytes()
        data = json.loads(text)
        version = data.get("schema_version") if data.get("format") == FORMAT else None
        if isinstance(version, int) and version > SCHEMA_VERSION:
            raise StreamError(
                f"{path} is of a newer schema",
                seen=f"schema_version {version}",
                expected=f"at most {SCHEMA_VERSION}",
                hint="Install a newer visdeploy.",
            )
        if isinstance(version, int) and version < SCHEMA_VERSION:
            raise StreamError(
                f"{path} has an older schema",
                seen=f"schema_version {version}",
                expected=str(SCHEMA_VERSION),
                hint="Continue it with the version of visdeploy that saved it, or process the video again.",
            )
        header = _Header.model_validate(data)
    except (ValueError, AttributeError, RecursionError) as error:
        seen = f"{error.error_count()} wrong fields" if isinstance(error, ValidationError) else str(error)[:200]
        raise StreamError(
            f"{path} is not a saved stream", seen=seen, expected="a file written by Stream.save"
        ) from error
    if (header.format, header.schema_version) != (FORMAT, SCHEMA_VERSION):
        raise StreamError(f"{path} is not a saved stream", seen=header.format, expected=f"{FORMAT} {SCHEMA_VERSION}")
    if header.num_results > header.num_frames:
        raise StreamError(f"{path} is inconsistent", seen=f"{header.num_results} results of {header.num_frames} frames")
    if (header.num_frames > 0) != (header.height is not None and header.width is not None):
        raise StreamError(f"{path} is inconsistent", seen=f"{header.num_frames} frames, height {header.height}")
    return header


def _group(arrays: Mapping[str, Array], prefix: str) -> dict[str, Array]:
    return {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}


def _pack(masks: Mapping[int, Mapping[int, Mask]], timestamps: Sequence[float]) -> dict[str, Array]:
    """Convert collected masks to flat arrays: one row per mask, and the concatenated run lengths of all masks."""
    rows = [(track, frame, mask.counts) for track, frames in masks.items() for frame, mask in frames.items()]
    return {
        "rows": np.array([(track, frame, len(counts)) for track, frame, counts in rows], dtype=np.int64).reshape(-1, 3),
        "counts": np.frombuffer(b"".join(counts for _, _, counts in rows), dtype=np.uint8),
        "timestamps": np.array(timestamps, dtype=np.float64),
    }


def _unpack(
    path: Path, arrays: Mapping[str, Array], size: tuple[int, int] | None, num_results: int
) -> tuple[dict[int, dict[int, Mask]], list[float]]:
    """Convert the arrays of `_pack` back to masks and timestamps, and check every mask.

    Raises:
        StreamError: The arrays are missing or contradict each other.
    """
    masks: dict[int, dict[int, Mask]] = {}
    try:
        rows, counts = arrays["rows"], arrays["counts"].tobytes()
        stamps = [float(v) for v in arrays["timestamps"]]
        ends = np.cumsum(rows[:, 2])
        if len(stamps) != num_results or (ends[-1] if len(ends) else 0) != len(counts) or (rows < 0).any():
            raise ValueError(f"{len(stamps)} timestamps, {len(counts)} bytes of masks")
        for (track, frame, length), end in zip(rows.tolist(), ends.tolist(), strict=True):
            if size is None or frame >= num_results:
                raise ValueError(f"a mask in frame {frame}")
            rle = {"size": size, "counts": counts[end - length : end]}
            masks.setdefault(track, {})[frame] = Mask.from_coco(rle)
    except (KeyError, ValueError, TypeError, IndexError, DataError) as error:
        raise StreamError(f"{path} contains damaged masks", seen=str(error)[:200]) from error
    return masks, stamps


def _pack_results(results: Sequence[FrameResult]) -> dict[str, Array]:
    """Convert results that have not been returned yet to flat arrays with one row per instance."""
    rows = [(r.index, i.track_id, i.label, len(i.mask.counts)) for r in results for i in r]
    return {
        "timestamps": np.array([r.timestamp for r in results], dtype=np.float64),
        "rows": np.array(rows, dtype=np.int64).reshape(-1, 4),
        "scores": np.array([i.score for r in results for i in r], dtype=np.float64),
        "counts": np.frombuffer(b"".join(i.mask.counts for r in results for i in r), dtype=np.uint8),
    }


def _unpack_results(
    path: Path, arrays: Mapping[str, Array], size: tuple[int, int] | None, header: _Header
) -> list[FrameResult]:
    """Convert the arrays of `_pack_results` back to results, and check every mask.

    Raises:
        StreamError: The arrays are missing or contradict each other.
    """
    try:
        stamps, rows, scores = arrays["timestamps"], arrays["rows"], arrays["scores"]
        counts = arrays["counts"].tobytes()
        first, ends = header.num_results, np.cumsum(rows[:, 3])
        if first + len(stamps) > header.num_frames or len(scores) != len(rows) or (rows < 0).any():
            raise ValueError(f"{len(stamps)} results after {first} of {header.num_frames} frames")
        if (ends[-1] if len(ends) else 0) != len(counts) or ((rows[:, 0] - first) >= len(stamps)).any():
            raise ValueError(f"{len(counts)} bytes of masks")
        instances: dict[int, list[Instance]] = {}
        for (frame, track, label, length), end, score in zip(
            rows.tolist(), ends.tolist(), scores.tolist(), strict=True
        ):
            mask = Mask.from_coco({"size": size, "counts": counts[end - length : end]})
            instances.setdefault(frame, []).append(Instance(track, label, score, mask))
        height, width = size or (1, 1)
        return [
            FrameResult(index, float(stamp), height, width, tuple(instances.get(index, ())))
            for index, stamp in enumerate(stamps.tolist(), first)
        ]
    except (KeyError, ValueError, TypeError, IndexError, DataError) as error:
        raise StreamError(f"{path} contains damaged results", seen=str(error)[:200]) from error


def _unpack_limits(path: Path, array: Array | None) -> tuple[float | None, ...]:
    """Return the minimum score of each class, None for one that is left out; empty without a choice."""
    if array is None:
        return ()
    if array.dtype != np.float64 or array.ndim != 1 or not np.all((array >= 0) & (array <= _LEFT_OUT)):
        raise StreamError(f"{path} contains damaged thresholds", seen=f"{array.dtype} {array.shape}")
    return tuple(None if value == _LEFT_OUT else value for value in array.tolist())


def _unpack_images(
    path: Path, array: Array | None, size: tuple[int, int] | None, header: _Header
) -> list[npt.NDArray[np.uint8]] | None:
    """Return the images of the frames whose results are pending, None if the stream keeps none."""
    if array is None:
        return None
    pending = header.num_frames - header.num_results
    expected = (pending, *(size or (1, 1)), 3) if pending else (0, 1, 1, 3)
    if array.dtype != np.uint8 or array.shape != expected:
        raise StreamError(
            f"{path} contains damaged images", seen=f"{array.dtype} {array.shape}", expected=f"uint8 {expected}"
        )
    return list(array)
