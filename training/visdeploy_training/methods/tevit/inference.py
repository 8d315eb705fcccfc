"""How TeViT is run: preprocessing, window and decoder parameters that follow from its configuration (spec section 6).

Upstream takes a whole video as one clip. So does this up to `window` frames; a longer video is cut into windows that
overlap. The messengers' shift wraps around the ends of a clip, and attention and scores go over all of its frames: the
results of a window are not exactly those of the whole video.
"""

from __future__ import annotations

from visdeploy.manifest import Preprocessing, Window
from visdeploy_training.inference import InferenceSettings
from visdeploy_training.methods.tevit.config import SIZE_MULTIPLE, TeViTConfig


def inference_settings(config: TeViTConfig) -> InferenceSettings:
    """Settings of the runtime for a network of this configuration."""
    keep_shape = config.shortest_edge > 0
    overlap = min(config.clip_overlap, config.window - 1)
    return InferenceSettings(
        preprocessing=Preprocessing(
            channel_order="rgb",
            mean=list(config.pixel_mean),
            std=list(config.pixel_std),
            resize="shortest_edge" if keep_shape else "exact",
            interpolation="opencv_bilinear" if keep_shape else "pil_bilinear",
            height=config.shortest_edge if keep_shape else config.height,
            width=config.longest_edge if keep_shape else config.width,
            pad_divisor=SIZE_MULTIPLE,
        ),
        decode={},
        tracking={"overlap": overlap},
        window=Window(mode="clip", length=config.window, stride=config.window - overlap),
        any_length=True,
    )
