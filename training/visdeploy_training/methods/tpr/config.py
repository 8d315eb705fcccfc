"""Configuration of TPR networks: the fields that training uses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from visdeploy_training.config import MethodConfig


@dataclass(frozen=True)
class TPRConfig(MethodConfig):
    """Configuration of a TPR network.

    Attributes:
        num_classes: Number of object classes, no background.
        stage: `video` for pairs of frames, `image` for the pre-training of the detector on images.
        budget_weight: Weight of the loss on the computation of the gated blocks.
        focal_alpha: Weight of positives in the focal loss.
        focal_gamma: Exponent of the focal loss.
        centre_radius: Half the side of the region with positive locations around an object's centre, in strides.
        num_bases: Number of bases.
        attention_size: Rows and columns of the attention map of a location.
        mask_size: Rows and columns of the mask of a detection.
        semantic_weight: Weight of the loss of the auxiliary semantic head (image stage).
    """

    method: ClassVar[str] = "tpr"

    num_classes: int = 40
    stage: Literal["video", "image"] = "video"
    budget_weight: float = 0.1
    focal_alpha: float = 0.25
    focal_gamma: float = 2.0
    centre_radius: float = 1.5
    num_bases: int = 4
    attention_size: int = 14
    mask_size: int = 56
    semantic_weight: float = 0.5
