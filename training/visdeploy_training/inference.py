"""Ranges of the input sizes of a method's graph, derived from its preprocessing."""

from __future__ import annotations

from visdeploy.manifest import Dim, Preprocessing
from visdeploy.streaming.preprocessing import Preprocessor

MAX_SIDE = 2048
"""Maximum side in pixels accepted by graphs whose frames are normally scaled to one size."""
TYPICAL = (720, 1280)
"""Height and width of a typical video frame."""


def frame_dims(preprocessing: Preprocessing, *, multiple: int, smallest: int) -> dict[str, Dim]:
    """Return the ranges of `height` and `width` of a graph's frames.

    Args:
        preprocessing: Scaling and padding of the frames.
        multiple: Number of which both sizes are multiples.
        smallest: Smallest side that the network accepts, in pixels.
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
    """Return the range of a symbol with a fixed value."""
    return Dim(minimum=size, typical=size, maximum=size)


def _up(size: int, multiple: int) -> int:
    """Round up to a multiple."""
    return -(-size // multiple) * multiple
