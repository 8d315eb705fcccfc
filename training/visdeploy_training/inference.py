"""Ranges of sizes that a method's graph takes, from its preprocessing."""

from __future__ import annotations

from visdeploy.manifest import Dim, Preprocessing
from visdeploy.streaming.preprocessing import Preprocessor

MAX_SIDE = 2048
"""Largest side of an input that is scaled to one size, in pixels; the graph takes others up to this, too."""
TYPICAL = (720, 1280)
"""Rows and columns of a typical frame of a video."""


def frame_dims(preprocessing: Preprocessing, *, multiple: int, smallest: int) -> dict[str, Dim]:
    """Ranges of `height` and `width` of a graph's frames.

    Args:
        preprocessing: How frames are scaled.
        multiple: Both are multiples of this.
        smallest: Smallest side that the network takes, in pixels.
    """
    largest = MAX_SIDE if preprocessing.resize == "exact" else preprocessing.width
    typical = Preprocessor(preprocessing).tensor_size(*TYPICAL)
    low = _up(smallest, multiple)
    ranges = {}
    for name, side in zip(("height", "width"), typical, strict=True):
        middle = max(low, side)
        ranges[name] = Dim(minimum=low, typical=middle, maximum=max(_up(largest, multiple), middle), multiple=multiple)
    return ranges


def fixed(size: int) -> Dim:
    """The range of a symbol that has one value."""
    return Dim(minimum=size, typical=size, maximum=size)


def _up(size: int, multiple: int) -> int:
    """The next multiple."""
    return -(-size // multiple) * multiple
