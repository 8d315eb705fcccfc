"""Description of the graph of VIShv, derived from its configuration."""

from __future__ import annotations

from visdeploy.manifest import GraphSpec, Preprocessing, TensorSpec, Window
from visdeploy_training.inference import frame_dims
from visdeploy_training.methods.vishv.config import SIZE_MULTIPLE, SMALLEST, VIShvConfig


def inference_settings(config: VIShvConfig) -> GraphSpec:
    """Return inputs, outputs, preprocessing, window and decoder parameters of a network with this configuration."""
    overlap = min(config.clip_overlap, config.window - 1)
    preprocessing = Preprocessing(
        channel_order=config.channel_order,
        mean=list(config.pixel_mean),
        std=list(config.pixel_std),
        resize="shortest_edge",
        rounding="half_even",
        interpolation="float_bilinear",
        height=config.shortest_edge,
        width=config.longest_edge,
        pad_divisor=SIZE_MULTIPLE,
    )
    return GraphSpec(
        preprocessing=preprocessing,
        window=Window(
            mode="clip",
            length=config.window,
            stride=config.window - overlap,
            short_video="repeat_first_frame",
        ),
        dims=frame_dims(preprocessing, multiple=SIZE_MULTIPLE, smallest=SMALLEST),
        inputs=[TensorSpec(name="frames", dtype="float32", shape=[config.window, 3, "height", "width"], role="frames")],
        outputs=_outputs(config),
        decode={
            "min_seediness": config.min_seediness,
            "primary_threshold": config.primary_threshold,
            "secondary_threshold": config.secondary_threshold,
            "max_clusters": config.max_clusters,
            "free_dim_stds": list(config.free_dim_stds),
            "seediness_threshold": config.seediness_threshold,
            "output": config.output,
            "max_tracks": config.max_tracks,
        },
    )


def output_names(config: VIShvConfig) -> tuple[str, ...]:
    """Return the names of the outputs, in order."""
    semantic = ("class_logits", "foreground_logits") if config.semantic else ()
    return ("embeddings", "bandwidths", "seediness", *semantic)


def _outputs(config: VIShvConfig) -> list[TensorSpec]:
    """Return the outputs in the order of `ClipStep`."""
    side = ("height", "width") if config.resize_embeddings else ("height/4", "width/4")
    channels: dict[str, list[int | str]] = {
        "embeddings": [config.embedding_dims],
        "bandwidths": [config.bandwidth_dims],
        "class_logits": [config.num_classes + 1],
    }
    return [
        TensorSpec(
            name=name,
            dtype="float32",
            shape=[config.window, *channels.get(name, []), *side],
            role="decode",
            measure="vishv.clusters" if name == "seediness" else "absolute",
        )
        for name in output_names(config)
    ]
