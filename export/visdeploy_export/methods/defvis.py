"""DefVIS's step graph: one clip in, raw results of all slots out (specification sections 2 to 4)."""

from __future__ import annotations

import torch

from visdeploy.manifest import TensorSpec
from visdeploy_export.step import StepGraph
from visdeploy_training.methods.defvis import ClipStep
from visdeploy_training.methods.defvis.config import DefVISConfig
from visdeploy_training.methods.defvis.inference import inference_settings
from visdeploy_training.model import VISModel

SMALLEST = 64
"""Rows and columns below which a map of the deepest stage would have a single row or column."""


def build(model: VISModel) -> StepGraph:
    """The step graph of a DefVIS network in evaluation mode; the number of frames is the weights' own."""
    step, config = ClipStep(model), model.config
    settings = inference_settings(config)
    multiple = config.size_multiple
    rows, columns = (
        multiple * torch.export.Dim(name, min=max(2, SMALLEST // multiple))
        if multiple > 1
        else torch.export.Dim(name, min=SMALLEST)
        for name in ("rows", "columns")
    )
    return StepGraph(
        module=step,
        inputs=(TensorSpec(name="frames", dtype="float32", shape=[config.num_frames, 3, "height", "width"]),),
        outputs=_outputs(config),
        state=(),
        example=(torch.zeros(config.num_frames, 3, config.height, config.width),),
        dynamic_shapes=({2: rows, 3: columns},),
        preprocessing=settings.preprocessing,
        window=settings.window,
        decode=settings.decode,
        tracking=settings.tracking,
        size_multiple=multiple,
    )


def _outputs(config: DefVISConfig) -> tuple[TensorSpec, ...]:
    """In the order of `ClipStep.output_names`; every slot is there, whether it shows an object or not."""
    slots, frames, ids = config.slots, config.num_frames, config.num_classes + 1
    return (
        TensorSpec(name="class_scores", dtype="float32", shape=[slots, frames, ids]),
        TensorSpec(name="boxes", dtype="float32", shape=[slots, frames, 4]),
        TensorSpec(name="mask_logits", dtype="float32", shape=[slots, frames, "mask_height", "mask_width"]),
    )
