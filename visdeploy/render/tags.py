"""Rendering and placement of the text of tags."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from visdeploy.render.fonts import font_for

_LONGEST = 40  # characters of a tag
Rectangle = tuple[int, int, int, int]


@lru_cache(maxsize=2048)
def render_text(text: str, size: int) -> npt.NDArray[np.uint8]:
    """Return the opacity of a line of text with a margin, uint8, `(height, width)`.

    Args:
        text: Text to render. Line breaks become spaces, control characters are left out, and a long text is shortened.
        size: Height of the font in pixels.
    """
    from PIL import Image, ImageDraw

    text = "".join(c for c in " ".join(text.split()) if c.isprintable())
    font, text = font_for(_shortened(text), size)
    margin = max(2, size // 5)
    ascent, descent = font.getmetrics()
    width = int(np.ceil(font.getlength(text))) + 2 * margin
    image = Image.new("L", (width, ascent + descent + margin))
    ImageDraw.Draw(image).text((margin, margin // 2), text, fill=255, font=font)
    ink = np.asarray(image)
    ink.setflags(write=False)
    return ink


def _shortened(text: str) -> str:
    """Return a text with its middle left out if it is long; ids are at its front and scores at its end."""
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 10]}…{text[-9:]}"


def place_tag(
    box: tuple[float, float, float, float], size: tuple[int, ...], frame: tuple[int, int], taken: Sequence[Rectangle]
) -> Rectangle:
    """Find the first position for a tag above, below or inside the box that does not overlap another tag.

    Args:
        box: `(x1, y1, x2, y2)` of the instance, in pixels.
        size: `(height, width)` of the tag.
        frame: `(height, width)` of the frame; the tag stays inside and is cropped if it is larger.
        taken: Rectangles of the tags placed so far.

    Returns:
        `(left, top, right, bottom)` in pixels.
    """
    x1, y1, _, y2 = (int(v) for v in box)
    tall, wide = min(size[0], frame[0]), min(size[1], frame[1])
    left = min(max(x1, 0), frame[1] - wide)
    tops = [y1 - tall, y2, y1, y2 - tall, *(y1 + n * tall for n in range(1, 4)), *(y1 - n * tall for n in range(2, 5))]
    inside = [top for top in tops if 0 <= top <= frame[0] - tall] or [min(max(y1, 0), frame[0] - tall)]
    places = [(left, top, left + wide, top + tall) for top in inside]
    return next((p for p in places if not any(_overlap(p, t) for t in taken)), places[0])


def _overlap(a: Rectangle, b: Rectangle) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]
