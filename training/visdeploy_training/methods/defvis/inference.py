"""Description of the graph of DefVIS, derived from its configuration."""

from __future__ import annotations

from visdeploy.manifest import GraphSpec, Preprocessing, TensorSpec, Window
from visdeploy_training.inference import frame_dims
from visdeploy_training.methods.defvis.config import DefVISConfig

SMALLEST = 64
"""Minimum height and width in pixels, so that maps of the deepest stage have more than one row and column."""


def inference_settings(config: DefVISConfig) -> GraphSpec:
    """Return inputs, outputs, preprocessing, window and decoder parameters of a network with this configuration.

    If the backbone accepts any size, the aspect ratio of frames is kept, as in the published implementation.
    """
    any_size = config.size_multiple == 1
    overlap = min(config.clip_overlap, config.num_frames - 1)
    preprocessing = Preprocessing(
        channel_order="rgb",
        mean=list(config.pixel_mean),
        std=list(config.pixel_std),
        resize="shortest_edge" if any_size else "exact",
        rounding="down",
        height=config.height,
        width=config.longest_edge if any_size else config.width,
    )
    frames = config.num_frames
    return GraphSpec(
        preprocessing=preprocessing,
        window=Window(mode="clip", length=frames, stride=frames - overlap),
        dims=frame_dims(preprocessing, multiple=config.size_multiple, smallest=SMALLEST),
        inputs=[TensorSpec(name="frames", dtype="float32", shape=[frames, 3, "height", "width"], role="frames")],
        outputs=_outputs(config),
        decode={"frame_score_threshold": config.frame_score_threshold},
    )


def _outputs(config: DefVISConfig) -> list[TensorSpec]:
    """Return the outputs in the order of `ClipStep`; they contain all slots, with or without an object."""
    slots, frames, ids = config.slots, config.num_frames, config.num_classes + 1
    mask: list[int | str] = [slots, frames, "ceil(height/4)", "ceil(width/4)"]
    return [
        TensorSpec(name="class_scores", dtype="float32", shape=[slots, frames, ids], role="decode"),
        TensorSpec(name="boxes", dtype="float32", shape=[slots, frames, 4], role="proof"),
        TensorSpec(name="mask_logits", dtype="float32", shape=mask, role="decode"),
    ]
