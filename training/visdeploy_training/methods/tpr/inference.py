"""Description of the graph of TPR, derived from its configuration."""

from __future__ import annotations

from visdeploy.manifest import Dim, GraphSpec, Preprocessing, StateSpec, TensorSpec, Window
from visdeploy_training.inference import frame_dims
from visdeploy_training.methods.tpr.config import SIZE_MULTIPLE, TPRConfig
from visdeploy_training.methods.tpr.output import STRIDES

SMALLEST = 160
"""Smallest side of the exported graph's input. The tracer of torch treats a side of one cell, as p7 has below, as
constant. Frames with an aspect ratio above 4.9 therefore cannot be processed at the published size."""


def inference_settings(config: TPRConfig) -> GraphSpec:
    """Return inputs, outputs, state, preprocessing and decoder parameters of a network with this configuration."""
    preprocessing = Preprocessing(
        channel_order=config.channel_order,
        mean=list(config.pixel_mean),
        std=list(config.pixel_std),
        resize="shortest_edge",
        height=config.shortest_edge,
        width=config.longest_edge,
        pad_divisor=SIZE_MULTIPLE,
    )
    # ties for the last place exceed max_detections; the best candidates of all levels are the limit
    most = max(config.max_detections, config.nms_pre * len(STRIDES))
    return GraphSpec(
        preprocessing=preprocessing,
        window=Window(mode="online"),
        dims={
            **frame_dims(preprocessing, multiple=SIZE_MULTIPLE, smallest=SMALLEST),
            "n": Dim(minimum=0, typical=min(10, most), maximum=most),
        },
        inputs=[TensorSpec(name="frame", dtype="float32", shape=[1, 3, "height", "width"], role="frames")],
        outputs=_outputs(config),
        state=pyramid_specs(config),
        decode={"mask_threshold": config.mask_threshold},
        tracking={
            "score_weight": config.score_weight,
            "iou_weight": config.iou_weight,
            "label_weight": config.label_weight,
            "rescale_first_frame_memory": config.rescale_first_frame_memory,
            "max_objects": config.max_objects,
        },
    )


def gated_blocks(config: TPRConfig) -> int:
    """Return the number of gated blocks that a frame passes: two per level in the alignment, and those of routing."""
    levels = len(STRIDES)
    count = 2 * levels
    if config.cpr == "routing":
        # after p3, p4 and p5 the remaining levels are routed, after p6 and p7 the last three
        count += sum(depth * max(levels - i, 3) for i, depth in enumerate(config.cpr_depths))
    return count


def _outputs(config: TPRConfig) -> list[TensorSpec]:
    """Return the outputs that are not state, in the order of `OnlineStep`; the number of detections n may be 0."""
    side = config.mask_size
    return [
        TensorSpec(name="scores", dtype="float32", shape=["n"], role="decode"),
        TensorSpec(name="labels", dtype="int64", shape=["n"], role="decode", measure="exact"),
        TensorSpec(name="boxes", dtype="float32", shape=["n", 4], role="decode"),
        TensorSpec(name="masks", dtype="float32", shape=["n", side, side], role="decode"),
        TensorSpec(name="embeddings", dtype="float32", shape=["n", config.track_dim], role="decode"),
        TensorSpec(name="cells", dtype="int64", shape=["n"], role="proof", measure="identity"),
        TensorSpec(
            name="open_gates",
            dtype="float32",
            shape=[gated_blocks(config)],
            role="proof",
            measure="tpr.open_gates",
        ),
    ]


def pyramid_specs(config: TPRConfig) -> list[StateSpec]:
    """Return the state tensors: the pyramid of the previous frame, and whether there was one."""
    levels = []
    for number, stride in enumerate(STRIDES, start=3):
        sides: list[int | str] = [
            f"{side}/{stride}" if stride <= SIZE_MULTIPLE else f"ceil({side}/{stride})" for side in ("height", "width")
        ]
        shape = [1, config.channels, *sides]
        levels.append(StateSpec(input=f"mem_p{number}", output=f"next_mem_p{number}", dtype="float32", shape=shape))
    return [*levels, StateSpec(input="started", output="next_started", dtype="int64", shape=[1])]
