"""Short descriptions of objects, for `repr` and for error messages."""

from __future__ import annotations

import re
import reprlib
from typing import Any

import numpy as np

_LONGEST = 200
_PRINTER = reprlib.Repr()
_PRINTER.maxlevel, _PRINTER.maxstring, _PRINTER.maxother, _PRINTER.maxlong = 2, 100, 60, 40
_PRINTER.maxtuple = _PRINTER.maxlist = _PRINTER.maxset = _PRINTER.maxfrozenset = _PRINTER.maxdict = 3


def shorten(value: Any) -> str:
    """Return a description of any value in one line of about 100 characters at most; never raise an error."""
    if isinstance(value, np.ndarray):
        return f"{value.dtype} array {value.shape}"
    try:
        text = " ".join(_PRINTER.repr(value).split())
    except Exception:  # repr of foreign objects, or of an integer with too many digits
        return f"a {type(value).__name__}"
    return text if len(text) <= 100 else f"{text[:99]}…"


def brief(item: object, **facts: Any) -> str:
    """Return `Class(name=value, ...)`, the `repr` of an object, in at most 200 characters.

    Args:
        item: The object.
        **facts: What to say about it.
    """
    parts = [f"{name}={value if isinstance(value, Plain) else shorten(value)}" for name, value in facts.items()]
    return cut(f"{type(item).__name__}({', '.join(parts)})")


def cut(text: str) -> str:
    """Return a text that ends with a bracket, such as a `repr`, in at most 200 characters."""
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 2]}…)"


class Plain(str):
    """Text that `brief` prints without quotation marks."""

    __slots__ = ()


def counted(items: Any) -> Plain:
    """Return the number of items as `<N>`, for `brief`."""
    try:
        return Plain(f"<{len(items)}>")
    except TypeError:  # the value of a wrong type in an object that does not check it
        return Plain(shorten(items))


def printable(name: str) -> str:
    """Return the name of a file with the bytes that are not UTF-8 replaced, so that it can be written to files."""
    return re.sub("[\ud800-\udfff]", "\ufffd", name)
