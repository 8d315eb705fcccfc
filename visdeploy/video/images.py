"""Frames from image files: folders, glob patterns, lists of paths."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from visdeploy.errors import SourceError
from visdeploy.video.source import Image, OnError, RawFrame, Source

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".ppm", ".pgm", ".jp2"})


class ImageSource(Source):
    """Source of image files, one frame per file, in the given order."""

    kind = "images"

    def __init__(
        self,
        files: Sequence[Path],
        *,
        name: str,
        path: str | None,
        max_frames: int | None = None,
        step: int = 1,
        on_error: OnError = "raise",
        fps: float = 0.0,
    ) -> None:
        super().__init__(name, path, max_frames=max_frames, step=step, on_error=on_error)
        self.files = tuple(files)
        self.fps = fps / step
        self.expected_frames = self.estimated_frames = self._limit(len(self.files))

    def _read(self) -> Iterator[RawFrame]:
        for file in self.files:
            yield None, partial(read_image, file)


def read_image(path: Path) -> Image:
    """Read an image file as upright RGB.

    The EXIF orientation is applied, palettes and grey are converted to RGB, alpha is dropped, 16 bits are scaled to 8.

    Returns:
        Pixels, uint8, `(height, width, 3)`.

    Raises:
        SourceError: The file is missing, truncated or not an image.
    """
    from PIL import Image as pillow
    from PIL import ImageOps

    try:
        with pillow.open(path) as file:
            image = ImageOps.exif_transpose(file)
            if image.mode.startswith("I"):
                image = pillow.fromarray((np.asarray(image).clip(0, 65535) / 257).round().astype(np.uint8))
            return np.array(image.convert("RGB"))
    except (OSError, SyntaxError, ValueError, pillow.DecompressionBombError) as error:
        raise SourceError(
            f"cannot read image {path}",
            seen=str(error) or type(error).__name__,
            hint="Remove or replace the file, or pass on_error='skip' to continue without it.",
        ) from error


def list_folder(folder: Path) -> list[Path]:
    """Return the image files of a folder in natural order (`2.png` before `10.png`), without hidden files."""
    return natural_order(f for f in folder.iterdir() if f.suffix.lower() in SUFFIXES and not f.name.startswith("."))


def natural_order(files: Iterator[Path]) -> list[Path]:
    """Sort paths so that the numbers in their names count as numbers."""
    return sorted(files, key=lambda f: [(int(p), "") if p.isdigit() else (-1, p) for p in _split(str(f))])


def _split(text: str) -> list[str]:
    return [part for part in re.split(r"([0-9]+)", text) if part]
