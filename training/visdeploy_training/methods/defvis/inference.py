"""DefVIS's graph and how it is run, as they follow from its configuration."""

from __future__ import annotations

from visdeploy.manifest import GraphSpec, Preprocessing, TensorSpec, Window
from visdeploy_training.inference import frame_dims
from visdeploy_training.methods.defvis.config import DefVISConfig

SMALLEST = 64
"""Rows and columns below which a map of the deepest stage would have a single row or column."""


def inference_settings(config: DefVISConfig) -> GraphSpec:
    """Inputs, outputs, preprocessing, window and decoder parameters of a network of this configuration.

    A backbone that takes any size keeps the aspect ratio, as the published implementation does.
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
    """In the order in which `ClipStep` gives them; every slot is there, whether it shows an object or not."""
    slots, frames, ids = config.slots, config.num_frames, config.num_classes + 1
    mask: list[int | str] = [slots, frames, "ceil(height/4)", "ceil(width/4)"]
    return [
        TensorSpec(name="class_scores", dtype="float32", shape=[slots, frames, ids], role="decode"),
        TensorSpec(name="boxes", dtype="float32", shape=[slots, frames, 4], role="proof"),
        TensorSpec(name="mask_logits", dtype="float32", shape=mask, role="decode"),
    ]
