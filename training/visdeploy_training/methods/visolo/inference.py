"""How VISOLO is run: preprocessing and decoder parameters that follow from its configuration (spec 5, 7, 8)."""

from __future__ import annotations

from visdeploy.manifest import Preprocessing
from visdeploy_training.inference import InferenceSettings
from visdeploy_training.methods.visolo.config import VISOLOConfig


def inference_settings(config: VISOLOConfig) -> InferenceSettings:
    """Settings of the runtime for a network of this configuration."""
    return InferenceSettings(
        preprocessing=Preprocessing(
            channel_order="rgb",
            mean=list(config.pixel_mean),
            std=list(config.pixel_std),
            resize="exact",
            height=config.height,
            width=config.width,
        ),
        decode={"overlap_threshold": config.overlap_threshold},
        tracking={"affinity_threshold": config.tracking_threshold},
    )
