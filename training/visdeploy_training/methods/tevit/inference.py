"""Description of the graph of TeViT, derived from its configuration.

The published implementation processes a whole video as one clip. Here this applies to videos of up to `window` frames;
longer videos are divided into overlapping windows. The messenger shift wraps around the ends of a clip, and attention
and scores depend on all of its frames, so the results of a window are not exactly those of the whole video.
"""

from __future__ import annotations

from visdeploy.manifest import Dim, GraphSpec, Preprocessing, TensorSpec, Window
from visdeploy_training.inference import fixed, frame_dims
from visdeploy_training.methods.tevit.config import MASK_SIZE, SIZE_MULTIPLE, TeViTConfig


def inference_settings(config: TeViTConfig) -> GraphSpec:
    """Return inputs, outputs, preprocessing and window of a network with this configuration."""
    keep_shape = config.shortest_edge > 0
    overlap = min(config.clip_overlap, config.window - 1)
    preprocessing = Preprocessing(
        channel_order="rgb",
        mean=list(config.pixel_mean),
        std=list(config.pixel_std),
        resize="shortest_edge" if keep_shape else "exact",
        interpolation="opencv_bilinear" if keep_shape else "pil_bilinear",
        height=config.shortest_edge if keep_shape else config.height,
        width=config.longest_edge if keep_shape else config.width,
        pad_divisor=SIZE_MULTIPLE,
    )
    dims = {
        **frame_dims(preprocessing, multiple=SIZE_MULTIPLE, smallest=SIZE_MULTIPLE),
        "pairs": fixed(config.max_results),
    }
    frames: int | str = 1
    if config.window > 1:  # a size with a single value is no symbol of the graph
        frames = "frames"
        dims[frames] = Dim(minimum=1, typical=config.window, maximum=config.window)
    return GraphSpec(
        preprocessing=preprocessing,
        window=Window(mode="clip", length=config.window, stride=config.window - overlap),
        dims=dims,
        inputs=[
            TensorSpec(name="frames", dtype="float32", shape=[frames, 3, "height", "width"], role="frames"),
            TensorSpec(name="size", dtype="int64", shape=[2], role="size"),
        ],
        outputs=_outputs(frames),
    )


def _outputs(frames: int | str) -> list[TensorSpec]:
    """Return the outputs in the order of `ClipStep`; pairs of a query and a class are in descending order of score."""
    side = 2 * MASK_SIZE
    return [
        TensorSpec(name="scores", dtype="float32", shape=[frames, "pairs"], role="decode", measure="ranking"),
        TensorSpec(name="labels", dtype="int64", shape=["pairs"], role="decode", measure="identity"),
        TensorSpec(name="queries", dtype="int64", shape=["pairs"], role="decode", measure="identity"),
        TensorSpec(name="boxes", dtype="float32", shape=[frames, "pairs", 4], role="decode"),
        TensorSpec(name="mask_logits", dtype="float32", shape=[frames, "pairs", side, side], role="decode"),
    ]
