"""What the runtime must know to run a network; methods give it, prediction and export use it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from visdeploy.manifest import Preprocessing, Window


@dataclass(frozen=True)
class InferenceSettings:
    """Preprocessing and decoder parameters of one network.

    Attributes:
        preprocessing: How frames become the first input.
        decode: Parameters of the method's decoder.
        tracking: Parameters of the method's tracker.
        window: Frames of one step.
        any_length: Whether a step also takes fewer frames than the window holds; otherwise short clips are repeated.
    """

    preprocessing: Preprocessing
    decode: Mapping[str, Any]
    tracking: Mapping[str, Any]
    window: Window = field(default_factory=lambda: Window(mode="online"))
    any_length: bool = False
