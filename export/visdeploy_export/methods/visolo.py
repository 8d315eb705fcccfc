"""VISOLO's step graph: one frame and the memory in, detections and the next memory out."""

from __future__ import annotations

from visdeploy_export.step import StepGraph
from visdeploy_training.methods.visolo import METHOD
from visdeploy_training.model import VISModel


def build(model: VISModel) -> StepGraph:
    """The step graph of a VISOLO network in evaluation mode; rows and columns are free."""
    return StepGraph(METHOD.online_step(model), METHOD.inference(model.config))
