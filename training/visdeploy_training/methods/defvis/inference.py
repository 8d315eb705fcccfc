"""How DefVIS is run: preprocessing, window and decoder parameters that follow from its configuration (spec 2 and 4)."""

from __future__ import annotations

from visdeploy.manifest import Preprocessing, Window
from visdeploy_training.inference import InferenceSettings
from visdeploy_training.methods.defvis.config import DefVISConfig


def inference_settings(config: DefVISConfig) -> InferenceSettings:
    """Settings of the runtime for a network of this configuration.

    A backbone that takes any size keeps the aspect ratio, as upstream does.
    """
    any_size = config.size_multiple == 1
    overlap = min(config.clip_overlap, config.num_frames - 1)
    return InferenceSettings(
        preprocessing=Preprocessing(
            channel_order="rgb",
            mean=list(config.pixel_mean),
            std=list(config.pixel_std),
            resize="shortest_edge" if any_size else "exact",
            rounding="down",
            height=config.height,
            width=config.longest_edge if any_size else config.width,
        ),
        decode={"frame_score_threshold": config.frame_score_threshold},
        tracking={"overlap": overlap},
        window=Window(mode="clip", length=config.num_frames, stride=config.num_frames - overlap),
    )
