"""Frames for the parity certificate: a synthetic clip, or frames of the caller."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from visdeploy.brief import shorten
from visdeploy.errors import ConfigError, SourceError

Frames = Iterable[NDArray[np.uint8]]


def moving_clip(num_frames: int, height: int, width: int, *, seed: int = 0) -> NDArray[np.uint8]:
    """Synthesise a clip of textured shapes that move over a smooth background. It depends on the arguments only.

    Args:
        num_frames: Number of frames.
        height: Rows, in pixels.
        width: Columns, in pixels.
        seed: Seed of the random numbers.

    Returns:
        RGB, uint8 `[num_frames, height, width, 3]`.
    """
    rng = np.random.RandomState(seed)  # NumPy keeps the numbers of `RandomState` unchanged
    y, x = np.mgrid[0:height, 0:width].astype(np.float64) / max(height, width)
    slope, phase = rng.uniform(-9, 9, (3, 2)), rng.uniform(0, 6.28, 3)
    background = np.stack([100 + 60 * np.sin(a * y + b * x + p) for (a, b), p in zip(slope, phase, strict=True)], -1)
    clip = np.empty((num_frames, height, width, 3), np.uint8)
    shapes = [
        (rng.uniform(0.2, 0.8, 2), rng.uniform(-0.03, 0.03, 2), rng.uniform(0.05, 0.18), rng.uniform(0, 255, 3))
        for _ in range(4)
    ]
    for t in range(num_frames):
        frame = background + 4 * np.sin(0.7 * t)
        for number, (start, speed, radius, color) in enumerate(shapes):
            cy, cx = (start + speed * t) * (height, width) / max(height, width)
            dy, dx = y - cy, x - cx
            inside = np.maximum(abs(dy), abs(dx)) < radius if number % 2 else np.hypot(dy, dx) < radius
            texture = 40 * np.sin(70 * dy + 3 * number) * np.cos(50 * dx)
            frame = np.where(inside[..., None], color + texture[..., None], frame)
        clip[t] = np.clip(frame, 0, 255).astype(np.uint8)
    return clip


def open_frames(source: str | os.PathLike[str] | Frames, limit: int) -> Iterator[NDArray[np.uint8]]:
    """Yield the first frames of a video, a folder, or an iterable of RGB arrays.

    Raises:
        SourceError: The source cannot be read, is empty, or changes its size.
    """
    if not isinstance(source, str | os.PathLike):
        yield from _of_one_size(source, limit)
        return
    from visdeploy.video import open_source

    with open_source(source) as opened:
        yield from _of_one_size((frame.image for frame in opened), limit)


def _of_one_size(frames: Frames, limit: int) -> Iterator[NDArray[np.uint8]]:
    size = None
    for index, frame in enumerate(islice(frames, limit)):
        if not isinstance(frame, np.ndarray):
            raise SourceError(f"frame {index} cannot be used for the certificate", seen=shorten(frame))
        size = size or frame.shape
        if frame.shape != size or frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3:
            raise SourceError(
                f"frame {index} cannot be used for the certificate",
                seen=f"{frame.dtype} {frame.shape}",
                expected=f"uint8 RGB of one size, {size}",
            )
        yield frame
    if size is None:
        raise SourceError("the certificate has no frames", seen="an empty source", hint="Give another `certify_on`.")


def check_source(source: str | os.PathLike[str] | Frames | None) -> None:
    """Open and close a video or folder, so that an invalid one is reported before the export.

    Raises:
        SourceError: The source cannot be read.
    """
    if isinstance(source, str | os.PathLike):
        from visdeploy.video import open_source

        with open_source(source):
            pass
    elif source is not None and (not isinstance(source, Iterable) or isinstance(source, bytes | dict)):
        raise SourceError(
            "certify_on has a wrong type",
            seen=shorten(source),
            expected="a video, a folder, or an iterable of RGB arrays",
        )


def describe(source: object) -> str:
    """Return a short name for the certificate, without folders, which reveal where it was made."""
    if isinstance(source, str | os.PathLike):
        return Path(source).name
    return "frames given by the caller"


def check_frame_count(count: int) -> None:
    """Check the number of frames of a certificate.

    Raises:
        ConfigError: The number is not positive.
    """
    if isinstance(count, bool) or not isinstance(count, int) or count < 1:
        raise ConfigError("certify_frames has a wrong value", seen=shorten(count), expected="a number from 1")
