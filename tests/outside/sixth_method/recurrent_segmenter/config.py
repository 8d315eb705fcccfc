"""Configuration of a network, and the named variants."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from visdeploy_training.config import MethodConfig

STRIDES = (8, 16)
"""Rows and columns of the input for one cell of the near and of the far state."""


@dataclass(frozen=True)
class RecurrentSegmenterConfig(MethodConfig):
    """One network.

    Attributes:
        num_classes: Number of object classes.
        slots: Objects that can be found in a frame.
        channels: Channels of all maps and codes.
        memory_frames: Largest number of frame codes that the memory holds.
        memory_every: A code is remembered in every frame whose number is a multiple of this.
        height: Shorter edge that frames are scaled to; rows of a training frame.
        width: Longest edge of a scaled frame; columns of a training frame.
        pixel_mean: RGB, 0..255.
        pixel_std: RGB, 0..255.
        score_threshold: Least score of a detection.
        max_gap: Frames without a detection after which a slot begins a new track.
        mask_weight: Weight of the mask loss.
    """

    method: ClassVar[str] = "recurrent_segmenter"

    num_classes: int = 2
    slots: int = 4
    channels: int = 8
    memory_frames: int = 3
    memory_every: int = 2
    height: int = 64
    width: int = 128
    pixel_mean: tuple[float, float, float] = (120.0, 120.0, 120.0)
    pixel_std: tuple[float, float, float] = (60.0, 60.0, 60.0)
    score_threshold: float = 0.5
    max_gap: int = 3
    mask_weight: float = 2.0

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_least(1, "num_classes", "slots", "channels", "memory_frames", "memory_every")
        self.check_least(0, "max_gap")
        self.check_share("score_threshold")
        self.check_multiple(STRIDES[-1], "height", "width")


VARIANTS = {"small": RecurrentSegmenterConfig()}
