"""Frames from image files: folders, glob patterns, lists of paths."""

from __future__ import annotations

import itertools
import logging
import re
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from visdeploy.errors import SourceError
from visdeploy.video.source import Image, OnError, RawFrame, Source

if TYPE_CHECKING:
    import PIL.Image as pillow

logger = logging.getLogger(__name__)

_SUFFIXES = (
    ".jpg .jpeg .jpe .jfif .mpo .png .apng .bmp .dib .tif .tiff .webp .avif .avifs .pbm .pgm .ppm .pnm .tga "
    ".jp2 .j2k .j2c .jpc .jpf .jpx"
)
SUFFIXES = frozenset(_SUFFIXES.split())
_ORIENTATION, _TIFF_WIDTH, _TIFF_HEIGHT = 0x0112, 256, 257


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
        start: int = 0,
        step: int = 1,
        on_error: OnError = "raise",
        fps: float = 0.0,
    ) -> None:
        super().__init__(name, path, max_frames=max_frames, start=start, step=step, on_error=on_error)
        self.files = tuple(files)
        self.fps = fps / step
        # an animation or a stack of pages is a video; a folder of them is none
        self._pictures = count_pictures(self.files[0]) if len(self.files) == 1 else 1
        if self._pictures is not None:
            self.expected_frames = self.estimated_frames = self._limit(len(self.files) * self._pictures)

    def _read(self) -> Iterator[RawFrame]:
        if self._pictures != 1:
            yield from _read_pictures(self.files[0], self._pictures, timed=not self.fps)
            return
        for file in self.files:
            yield None, partial(_read_only_picture, file)


def count_pictures(path: Path) -> int | None:
    """Return the number of frames or pages of an image file; None if they cannot be counted, 1 if it is no image.

    The further pictures of a multi-picture JPEG (MPO) are previews or gain maps, and do not count.
    """
    with ExitStack() as stack:
        try:
            file = stack.enter_context(open_image(path))
        except Exception:  # reported when it is read
            return 1
        try:
            return _pictures_in(file)
        except Exception:
            return None


@contextmanager
def open_image(path: Path) -> Iterator[pillow.Image]:
    """Open an image file with Pillow.

    Pillow maps TIFF files that it opens by their path into memory, and mixes up the pixels of those with a turn by 90
    degrees; therefore it gets the opened file.
    """
    from PIL import Image as pillow
    from PIL import UnidentifiedImageError

    with path.open("rb") as opened:
        try:
            file = pillow.open(opened)
        except UnidentifiedImageError as error:
            raise UnidentifiedImageError("no image, or of a format that Pillow does not know") from error
        with file:
            yield file


def size_as_shown(path: Path) -> tuple[int, int]:
    """Return height and width of an image file with its EXIF orientation applied; errors are those of Pillow."""
    with open_image(path) as file:
        tags = getattr(file, "tag_v2", {})  # some versions of Pillow apply the orientation to the size of TIFF files
        width, height = tags.get(_TIFF_WIDTH, file.width), tags.get(_TIFF_HEIGHT, file.height)
        return (width, height) if file.getexif().get(_ORIENTATION, 1) > 4 else (height, width)


def _pictures_in(file: pillow.Image) -> int:
    return 1 if file.format == "MPO" else int(getattr(file, "n_frames", 1))


def _read_pictures(path: Path, count: int | None, *, timed: bool) -> Iterator[RawFrame]:
    """Yield the pictures of an animation, with the times at which they are shown, or the pages of a document."""
    now: float | None = 0.0
    with _reading(path), open_image(path) as file:
        for number in itertools.count() if count is None else range(count):
            file.seek(number)
            file.load()  # the duration is known afterwards
            yield now if timed else None, partial(_shown, path, file)
            duration = file.info.get("duration")
            now = now + duration / 1000 if now is not None and duration else None


def _shown(path: Path, file: pillow.Image) -> Image:
    with _reading(path):
        return _upright(file)


def _read_only_picture(path: Path) -> Image:
    """See `read_image`; a file of several pictures is an error, because one frame of a video is one picture."""
    with _reading(path), open_image(path) as file:
        if (pictures := _pictures_in(file)) > 1:
            raise SourceError(
                f"image {path} contains several pictures",
                seen=str(pictures),
                expected="1 in each file of a sequence",
                hint="Open the file by itself to read them as a video.",
            )
        return _upright(file)


def read_image(path: Path) -> Image:
    """Read an image file as upright RGB; the first picture, if it contains several.

    The EXIF orientation is applied, palettes and grey are converted to RGB, alpha is dropped, 16 bits are scaled to 8.

    Returns:
        Pixels, uint8, `(height, width, 3)`.

    Raises:
        SourceError: The file is missing, truncated or not an image, or has floating-point pixels.
    """
    with _reading(path), open_image(path) as file:
        return _upright(file)


def _upright(file: pillow.Image) -> Image:
    from PIL import Image as pillow
    from PIL import ImageOps

    image = ImageOps.exif_transpose(file)
    if image.mode == "F":
        raise ValueError("floating-point pixels of unknown range; convert them to 8 or 16 bits")
    if image.mode == "I" and file.format == "TIFF":
        raise ValueError("32-bit pixels of unknown range; convert them to 8 or 16 bits")
    if image.mode.startswith("I"):
        image = pillow.fromarray((np.asarray(image).clip(0, 65535) / 257).round().astype(np.uint8))
    return np.array(image.convert("RGB"))


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Turn the errors of Pillow into a `SourceError`; damaged files make it raise nearly any."""
    try:
        yield
    except SourceError:
        raise
    except Exception as error:
        raise SourceError(
            f"cannot read image {path}",
            seen=str(error) or type(error).__name__,
            hint="Replace the file, or continue without it: --on-damage skip, in Python on_error='skip'.",
        ) from error


def list_folder(folder: Path) -> list[Path]:
    """Return the image files of a folder in natural order (`2.png` before `10.png`), without hidden files."""
    return natural_order(f for f in folder.iterdir() if f.suffix.lower() in SUFFIXES and not f.name.startswith("."))


def report_left_out(folder: Path, taken: int) -> None:
    """Log how many files of a folder are no images; hidden ones do not count."""
    others = sorted(
        f.name for f in folder.iterdir() if f.is_file() and f.suffix.lower() not in SUFFIXES and f.name[0] != "."
    )
    if others:
        logger.warning(
            "%s: %d images are read, %d other files are left out, such as %s", folder, taken, len(others), others[0]
        )


def natural_order(files: Iterator[Path]) -> list[Path]:
    """Sort paths so that the numbers in their names count as numbers."""
    return sorted(files, key=lambda f: [(int(p), "") if p.isdigit() else (-1, p) for p in _split(str(f))])


def _split(text: str) -> list[str]:
    return [part for part in re.split(r"([0-9]+)", text) if part]
