"""Fonts for text in any script: Pillow's own, or one of the system that has all characters."""

from __future__ import annotations

import logging
import re
import sys
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

logger = logging.getLogger(__name__)

_FOLDERS = {
    "win32": ("C:/Windows/Fonts", "~/AppData/Local/Microsoft/Windows/Fonts"),
    "darwin": ("/System/Library/Fonts", "/Library/Fonts", "~/Library/Fonts"),
}
_OTHER_FOLDERS = ("/usr/share/fonts", "/usr/local/share/fonts", "~/.local/share/fonts", "~/.fonts")
_SUFFIXES = (".ttf", ".ttc", ".otf")
_MOST = 1000  # fonts that are tried
# fonts with the characters of many languages, and upright ones before slanted ones
_LAST = re.compile(r"italic|oblique|bold|black|thin|light|mono|serif", re.IGNORECASE)
_ASCII = "".join(map(chr, range(33, 127)))
_NO_CHARACTER = "\U0010fffe"


def font_for(text: str, size: int) -> tuple[Any, str]:
    """Return a font for a line of text, and the text with `?` for the characters that no font has.

    Args:
        text: Text to render.
        size: Height of the font in pixels.
    """
    from PIL import ImageFont

    default: Any = ImageFont.load_default(size)
    if not (missing := _missing(default, text)):
        return default, text
    # the search does not depend on the id and the score in a tag
    others = "".join(sorted({c for c in text if not c.isascii()} | missing))
    if (font := _search(others, size)) is not None:
        return font, text
    return default, "".join("?" if c in missing else c for c in text)


@lru_cache(maxsize=256)
def _search(characters: str, size: int) -> Any:
    """Return a font of the system with these characters and those of ASCII; if there is none, log it and return None.

    Args:
        characters: Different characters.
        size: Height of the font in pixels.
    """
    from PIL import ImageFont

    for path in system_fonts():
        with suppress(OSError, ValueError):  # bitmap fonts, damaged files
            font = ImageFont.truetype(str(path), size)
            if not _missing(font, characters + _ASCII):
                return font
    shown = repr(characters) if len(characters) <= 20 else f"{characters[:20]!r} and others"
    logger.warning(
        "no font of this system has all of the characters %s; '?' is drawn for those that are missing. Install a font "
        "with them, for example Noto Sans CJK.", shown,
    )  # fmt: skip
    return None


@lru_cache(maxsize=1)
def system_fonts() -> tuple[Path, ...]:
    """Return the font files of the system, regular ones first."""
    folders = [Path(folder).expanduser() for folder in _FOLDERS.get(sys.platform, _OTHER_FOLDERS)]
    found = {f for folder in folders if folder.is_dir() for f in folder.rglob("*") if f.suffix.lower() in _SUFFIXES}
    return tuple(sorted(found, key=lambda f: (_LAST.search(f.name) is not None, f.name, str(f)))[:_MOST])


def _missing(font: Any, text: str) -> set[str]:
    """Return the characters for which a font has only the image of an unknown one."""
    unknown = font.getmask(_NO_CHARACTER)
    box = (unknown.size, bytes(unknown))
    return {c for c in set(text) if not c.isspace() and ((mask := font.getmask(c)).size, bytes(mask)) == box}
