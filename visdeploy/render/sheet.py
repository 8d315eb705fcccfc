"""Contact sheets: several images in one PNG file."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from visdeploy.arguments import as_tuple, check_integer, check_names, check_path
from visdeploy.atomic import replacing_file
from visdeploy.brief import shorten
from visdeploy.errors import DataError
from visdeploy.render.tags import render_text
from visdeploy.video.source import Image

_BACKGROUND = 24
_GAP = 6
_WIDEST = 16_384


def contact_sheet(
    images: Iterable[Image],
    path: str | Path,
    columns: int = 4,
    *,
    cell_width: int = 480,
    captions: Sequence[str] = (),
) -> Path:
    """Write a PNG with images in rows.

    Args:
        images: RGB, uint8, `(height, width, 3)`; sizes may differ, the first image sets the aspect ratio of the cells.
        path: PNG file; it appears complete or not at all.
        columns: Images per row.
        cell_width: Width of a cell in pixels; images are scaled to fit.
        captions: One line of text per image.

    Returns:
        Path of the PNG file.
    """
    from PIL import Image as pillow

    path = check_path(path, "path of a contact sheet")
    what = f"contact sheet of {shorten(columns)} columns of {shorten(cell_width)} pixels"
    columns = check_integer(columns, what, minimum=1)
    cell_width = check_integer(cell_width, what, minimum=16, maximum=_WIDEST)
    captions = check_names(captions, "captions of a contact sheet")
    pictures = _checked(images)
    if not pictures:
        raise DataError(f"no images for contact sheet {path}")
    columns = min(columns, len(pictures))
    cell_height = max(1, round(cell_width * pictures[0].shape[0] / pictures[0].shape[1]))
    line = render_text("Ag", 16).shape[0] if captions else 0
    rows = -(-len(pictures) // columns)
    step_y, step_x = cell_height + line + _GAP, cell_width + _GAP
    page = np.full((rows * step_y + _GAP, columns * step_x + _GAP, 3), _BACKGROUND, np.uint8)
    for number, picture in enumerate(pictures):
        top, left = _GAP + number // columns * step_y, _GAP + number % columns * step_x
        _paste(page[top : top + cell_height, left : left + cell_width], picture)
        if number < len(captions):
            ink = render_text(captions[number], 16)[:line, :cell_width]
            caption = page[top + cell_height : top + cell_height + ink.shape[0], left : left + ink.shape[1]]
            np.maximum(caption, ink[..., None], out=caption)
    with replacing_file(path) as temporary:
        pillow.fromarray(page).save(temporary, format="PNG")
    return path


def _checked(images: Any) -> list[Image]:
    pictures = as_tuple(images)
    for picture in pictures if pictures is not None else (images,):
        good = isinstance(picture, np.ndarray) and picture.ndim == 3 and picture.shape[2] == 3 and picture.size
        if not good or picture.dtype != np.uint8:
            expected = "uint8 array (height, width, 3)"
            raise DataError("image of a contact sheet", seen=shorten(picture), expected=expected)
    return list(pictures or ())


def _paste(cell: Image, picture: Image) -> None:
    """Scale an image to fit a cell, centred, with its aspect ratio kept."""
    import cv2

    scale = min(cell.shape[0] / picture.shape[0], cell.shape[1] / picture.shape[1])
    height, width = (max(1, min(c, round(p * scale))) for c, p in zip(cell.shape[:2], picture.shape[:2], strict=True))
    way = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    top, left = (cell.shape[0] - height) // 2, (cell.shape[1] - width) // 2
    cell[top : top + height, left : left + width] = cv2.resize(picture, (width, height), interpolation=way)
