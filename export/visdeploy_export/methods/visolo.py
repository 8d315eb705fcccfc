"""VISOLO's step graph: example inputs, dynamic sizes, and what the manifest says (specification sections 5 to 10)."""

from __future__ import annotations

from typing import cast

import torch

from visdeploy.manifest import DType, StateSpec, TensorSpec, Window
from visdeploy_export.step import StepGraph
from visdeploy_training.methods.visolo import OnlineStep
from visdeploy_training.methods.visolo.config import VISOLOConfig
from visdeploy_training.methods.visolo.inference import inference_settings
from visdeploy_training.model import VISModel


def build(model: VISModel) -> StepGraph:
    """The step graph of a VISOLO network in evaluation mode."""
    step, config = OnlineStep(model), model.config
    settings = inference_settings(config)
    frame = torch.zeros(1, 3, config.height, config.width)
    multiple = config.size_multiple
    rows, columns = (multiple * torch.export.Dim(name, min=2) for name in ("rows", "columns"))
    state = tuple(
        StateSpec(
            input=s.name, output=f"next_{s.name}", dtype=cast(DType, s.dtype), shape=list(s.shape), initial=s.initial
        )
        for s in step.state_specs
    )
    return StepGraph(
        module=step,
        inputs=(TensorSpec(name="frame", dtype="float32", shape=[1, 3, "height", "width"]),),
        outputs=_outputs(config),
        state=state,
        example=(frame, *step.initial_state().values()),
        dynamic_shapes=({2: rows, 3: columns}, *(None for _ in state)),
        preprocessing=settings.preprocessing,
        window=Window(mode="online"),
        decode=settings.decode,
        tracking=settings.tracking,
        size_multiple=multiple,
    )


def _outputs(config: VISOLOConfig) -> tuple[TensorSpec, ...]:
    """Outputs besides the state, in the order of `OnlineStep.output_names`; n detections, possibly none."""
    cells, classes, track = config.cells, config.num_classes, config.track_dim
    return (
        TensorSpec(name="scores", dtype="float32", shape=["n"], measure="score"),
        TensorSpec(name="labels", dtype="int64", shape=["n"], measure="exact"),
        TensorSpec(name="cells", dtype="int64", shape=["n"], measure="identity"),
        TensorSpec(name="class_scores", dtype="float32", shape=["n", classes]),
        TensorSpec(name="masks", dtype="uint8", shape=["n", "height", "width"], measure="mask"),
        TensorSpec(name="overlaps", dtype="float32", shape=["n", "n"], measure="area"),
        TensorSpec(name="query", dtype="float32", shape=["n", track]),
        TensorSpec(name="reference", dtype="float32", shape=["n", track]),
        TensorSpec(name="cell_scores", dtype="float32", shape=[cells, classes]),
        TensorSpec(name="grid_weight", dtype="float32", shape=[cells]),
        TensorSpec(name="mask_logits", dtype="float32", shape=["n", "mask_height", "mask_width"]),
    )
