"""Method for the training: `METHOD`, and the pure step function with its specification."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recurrent_segmenter.config import STRIDES, VARIANTS, RecurrentSegmenterConfig
from recurrent_segmenter.decoder import DIRECTION
from recurrent_segmenter.losses import losses
from recurrent_segmenter.network import RecurrentSegmenter, State
from visdeploy.errors import ConfigError
from visdeploy.manifest import Dim, GraphSpec, Preprocessing, StateSpec, TensorSpec, Window
from visdeploy_training.inference import frame_dims
from visdeploy_training.method import Method
from visdeploy_training.model import VISModel


class OnlineStep(nn.Module):
    """One frame and the state in, detections and the next state out; batch 1.

    Args:
        model: The network; its weights are shared, not copied.
    """

    def __init__(self, model: VISModel) -> None:
        super().__init__()
        self.model = model

    def forward(
        self, frame: Tensor, size: Tensor, near: Tensor, far: Tensor, memory: Tensor, step: Tensor
    ) -> tuple[Tensor, ...]:
        """Return the outputs and the next state in the order of `inference_settings`."""
        output, after = self.model.step(frame, State(near[None], far[None], memory[None], step))
        class_scores, mask_logits = output.class_logits[0].sigmoid(), output.mask_logits[0]
        scores, labels = class_scores.max(dim=1)
        slots = (scores >= self.model.config.score_threshold).nonzero().squeeze(1)
        enlarged = F.interpolate(mask_logits[None], scale_factor=float(STRIDES[0]), mode="bilinear")[0]
        masks = (enlarged > 0)[slots].to(torch.uint8)
        found = (scores[slots], labels[slots], slots, class_scores[slots], masks, size.clone(), output.code[0])
        return (*found, mask_logits[slots], after.near[0], after.far[0], after.memory[0], after.step)


def inference_settings(config: RecurrentSegmenterConfig) -> GraphSpec:
    """Return the graph of a network of this configuration, and how it is run."""
    preprocessing = Preprocessing(
        channel_order="rgb",
        mean=list(config.pixel_mean),
        std=list(config.pixel_std),
        resize="shortest_edge",
        height=config.height,
        width=config.width,
        pad_divisor=STRIDES[-1],
    )
    return GraphSpec(
        preprocessing=preprocessing,
        window=Window(mode="online"),
        dims={
            **frame_dims(preprocessing, multiple=STRIDES[-1], smallest=2 * STRIDES[-1]),
            "n": Dim(minimum=0, typical=config.slots, maximum=config.slots),
            "memory": Dim(minimum=0, typical=config.memory_frames, maximum=config.memory_frames),
        },
        inputs=[
            TensorSpec(name="frame", dtype="float32", shape=[1, 3, "height", "width"], role="frames"),
            TensorSpec(name="size", dtype="int64", shape=[2], role="size"),
        ],
        outputs=[
            TensorSpec(name="scores", dtype="float32", shape=["n"], role="decode"),
            TensorSpec(name="labels", dtype="int64", shape=["n"], role="decode", measure="exact"),
            TensorSpec(name="slots", dtype="int64", shape=["n"], role="decode", measure="identity"),
            TensorSpec(name="class_scores", dtype="float32", shape=["n", config.num_classes], role="decode"),
            TensorSpec(name="masks", dtype="uint8", shape=["n", "height", "width"], role="decode", measure="mask"),
            TensorSpec(name="content", dtype="int64", shape=[2], role="decode", measure="exact"),
            TensorSpec(name="code", dtype="float32", shape=[config.channels], role="proof", measure=DIRECTION),
            TensorSpec(name="mask_logits", dtype="float32", shape=["n", "height/8", "width/8"], role="proof"),
        ],
        state=[
            _state("near", [config.channels, "height/8", "width/8"]),
            _state("far", [config.channels, "height/16", "width/16"]),
            _state("memory", ["memory", config.channels]),
            StateSpec(input="step", output="next_step", dtype="int64", shape=[1]),
        ],
        tracking={"max_gap": config.max_gap},
    )


def _state(name: str, shape: list[int | str]) -> StateSpec:
    return StateSpec(input=name, output=f"next_{name}", dtype="float32", shape=shape)


def _load_backbone(model: VISModel, path: Path | None) -> None:
    raise ConfigError("recurrent_segmenter has no ImageNet weights", expected="pretrained: false")


METHOD = Method(
    name="recurrent_segmenter",
    variants=VARIANTS,
    build=RecurrentSegmenter,
    load_backbone=_load_backbone,
    official=None,
    losses=losses,
    online_step=OnlineStep,
    inference=inference_settings,
)
