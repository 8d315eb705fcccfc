"""Description of the graph of VISOLO, derived from its configuration."""

from __future__ import annotations

from visdeploy.manifest import Dim, GraphSpec, Preprocessing, StateSpec, TensorSpec, Window
from visdeploy_training.inference import frame_dims
from visdeploy_training.methods.visolo.config import VISOLOConfig


def inference_settings(config: VISOLOConfig) -> GraphSpec:
    """Return inputs, outputs, state, preprocessing and decoder parameters of a network with this configuration."""
    preprocessing = Preprocessing(
        channel_order="rgb",
        mean=list(config.pixel_mean),
        std=list(config.pixel_std),
        resize="exact",
        height=config.height,
        width=config.width,
    )
    most = config.max_detections
    return GraphSpec(
        preprocessing=preprocessing,
        window=Window(mode="online"),
        dims={
            **frame_dims(preprocessing, multiple=config.size_multiple, smallest=config.size_multiple),
            "n": Dim(minimum=0, typical=min(10, most), maximum=most),
        },
        inputs=[TensorSpec(name="frame", dtype="float32", shape=[1, 3, "height", "width"], role="frames")],
        outputs=_outputs(config),
        state=memory_specs(config),
        decode={"overlap_threshold": config.overlap_threshold},
        tracking={"affinity_threshold": config.tracking_threshold},
    )


def _outputs(config: VISOLOConfig) -> list[TensorSpec]:
    """Return the outputs that are not state, in the order of `OnlineStep`; the number of detections n may be 0."""
    cells, classes, track = config.cells, config.num_classes, config.track_dim
    logits: list[int | str] = ["n", "height/4", "width/4"]
    return [
        TensorSpec(name="scores", dtype="float32", shape=["n"], role="decode", measure="score"),
        TensorSpec(name="labels", dtype="int64", shape=["n"], role="proof", measure="exact"),
        TensorSpec(name="cells", dtype="int64", shape=["n"], role="decode", measure="identity"),
        TensorSpec(name="class_scores", dtype="float32", shape=["n", classes], role="decode"),
        TensorSpec(name="masks", dtype="uint8", shape=["n", "height", "width"], role="decode", measure="mask"),
        TensorSpec(name="overlaps", dtype="float32", shape=["n", "n"], role="decode", measure="area"),
        TensorSpec(name="query", dtype="float32", shape=["n", track], role="decode"),
        TensorSpec(name="reference", dtype="float32", shape=["n", track], role="decode"),
        TensorSpec(name="cell_scores", dtype="float32", shape=[cells, classes], role="proof"),
        TensorSpec(name="grid_weight", dtype="float32", shape=[cells], role="proof"),
        TensorSpec(name="mask_logits", dtype="float32", shape=logits, role="proof"),
    ]


def memory_specs(config: VISOLOConfig) -> list[StateSpec]:
    """Return the state tensors, in the order of `Memory`, which describes them."""
    slots, cells, width = config.memory_slots, config.cells, config.head_width
    return [
        StateSpec(input="mem_ref", output="next_mem_ref", dtype="float32", shape=[slots, config.track_dim, cells]),
        StateSpec(input="mem_cat", output="next_mem_cat", dtype="float32", shape=[slots, width, cells]),
        StateSpec(input="mem_ker", output="next_mem_ker", dtype="float32", shape=[slots, width, cells]),
        StateSpec(input="mem_frame", output="next_mem_frame", dtype="int64", shape=[slots], initial=-1),
        StateSpec(input="step", output="next_step", dtype="int64", shape=[1]),
    ]
