"""The stages of the runtime that are timed."""

from __future__ import annotations

from enum import Enum


class Stage(str, Enum):
    """A stage of a frame's way through the runtime. Stages do not nest in each other."""

    DECODE = "decode"
    """Reading and decoding of a source."""
    PREPROCESS = "preprocess"
    """From RGB pixels to the network's input."""
    GRAPH = "graph"
    """One step of the graph, copies to and from the device included."""
    OUTPUTS = "decode of outputs"
    """From raw outputs to instances."""
    TRACKING = "tracking"
    """Identities of instances."""
    WRITING = "writing"
    """Writing of results and overlays."""

    def __str__(self) -> str:
        return self.value
