"""Stages of the runtime that are timed."""

from __future__ import annotations

from enum import Enum


class Stage(str, Enum):
    """Stage of the processing of a frame. Stages are not nested."""

    DECODE = "decode"
    """Reading and decoding of a video source."""
    PREPROCESS = "preprocess"
    """Conversion of RGB pixels to the network's input."""
    GRAPH = "graph"
    """One step of the graph, including copies to and from the device."""
    OUTPUTS = "decode of outputs"
    """Conversion of raw outputs to instances."""
    TRACKING = "tracking"
    """Assignment of track ids to instances."""
    WRITING = "writing"
    """Writing of results and overlays."""

    def __str__(self) -> str:
        return self.value
