"""Fast check of many run-length encodings at once.

`Mask.from_coco` checks an encoding number by number. It reports errors precisely but is slow for the hundred thousand
masks of a result file. The functions here check all masks of a track together. Callers pass the encodings that fail to
`Mask.from_coco`, which accepts them or reports the error. Both accept the same encodings.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from visdeploy.masks import Mask

BoolArray = npt.NDArray[np.bool_]
IntArray = npt.NDArray[np.int64]

_MAX_CHARS = 6
"""Maximum number of characters of a run length (30 bits) with which the sums below cannot overflow."""


def read_fast(items: Sequence[Any], height: int, width: int) -> list[Mask | None]:
    """Return a mask for each encoding that passes the fast check and has the given size, None for all others.

    Args:
        items: Encodings, which should have the form `{"size": [h, w], "counts": ...}`.
        height: Rows, in pixels.
        width: Columns, in pixels.
    """
    found: list[Mask | None] = [None] * len(items)
    places, texts = [], []
    for index, item in enumerate(items):
        if not isinstance(item, dict) or not _is_size(item.get("size"), height, width):
            continue
        counts = item.get("counts")
        if isinstance(counts, list):
            found[index] = _compressed(counts, height, width)
        elif isinstance(counts, str) and counts.isascii() and counts:
            places.append(index)
            texts.append(counts.encode("ascii"))
    if texts:
        for index, text, good in zip(places, texts, covers(texts, height * width), strict=True):
            found[index] = Mask(height, width, text) if good else None
    return found


def _is_size(size: Any, height: int, width: int) -> bool:
    try:
        return bool(size == [height, width])
    except ValueError:  # a NumPy array
        return False


def _compressed(counts: list[Any], height: int, width: int) -> Mask | None:
    from pycocotools import mask as coco

    if set(map(type, counts)) != {int}:  # NumPy would descend into lists of lists
        return None
    try:
        runs = np.array(counts, np.int64)
    except OverflowError:
        return None
    if runs.min() < 0 or runs.sum() != height * width:
        return None
    rle = coco.frPyObjects({"size": [height, width], "counts": counts}, height, width)
    return Mask(height, width, bytes(rle["counts"]))


def covers(texts: Sequence[bytes], pixels: int) -> BoolArray:
    """Return whether each compressed text is well formed and its runs add up to `pixels`; bool `[len(texts)]`.

    A text is a sequence of numbers in base 32 with the least significant digit first. Bit 5 of a character is set if
    more digits follow; bit 4 of the last one is the sign. From the fourth number on, each is stored as the difference
    to the number two places before.

    Args:
        texts: Texts of at least one character.
        pixels: Number of pixels, rows times columns.
    """
    lengths = np.array([len(text) for text in texts])
    starts = np.concatenate([[0], np.cumsum(lengths)[:-1]])
    digits = np.frombuffer(b"".join(texts), np.uint8).astype(np.int64) - 48
    wrong = (digits < 0) | (digits >= 64)
    last = (digits & 0x20) == 0
    cut = ~last[starts + lengths - 1]
    last[starts + lengths - 1] = True
    ends = np.flatnonzero(last)
    begins = np.concatenate([[0], ends[:-1] + 1])
    sizes = ends - begins + 1
    place = np.arange(len(digits)) - np.repeat(begins, sizes)
    wrong |= place >= _MAX_CHARS
    values = np.add.reduceat((digits & 0x1F) << (5 * np.minimum(place, _MAX_CHARS)), begins)
    values -= ((digits[ends] & 0x10) > 0).astype(np.int64) << (5 * np.minimum(sizes, _MAX_CHARS))
    first = np.searchsorted(begins, starts)
    runs = _undo_differences(values, first)
    good = ~cut & ~np.logical_or.reduceat(wrong, starts)
    return np.asarray(good & (np.add.reduceat(runs, first) == pixels) & (np.minimum.reduceat(runs, first) >= 0))


def _undo_differences(values: IntArray, first: IntArray) -> IntArray:
    """Return the run lengths from the stored numbers; `first` is the position of the first number of each text."""
    counts = np.diff(np.append(first, len(values)))
    place = np.arange(len(values)) - np.repeat(first, counts)
    runs = values.copy()
    for chain in (place % 2 == 1, (place % 2 == 0) & (place > 0)):
        total = np.cumsum(np.where(chain, values, 0))
        before = np.repeat(total[first], counts)  # the first number of a text is in neither chain
        runs[chain] = (total - before)[chain]
    return runs
