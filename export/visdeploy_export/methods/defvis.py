"""DefVIS's step graph: one clip in, raw results of all slots out."""

from __future__ import annotations

from visdeploy_export.step import StepGraph
from visdeploy_training.methods.defvis import METHOD
from visdeploy_training.model import VISModel


def build(model: VISModel) -> StepGraph:
    """The step graph of a DefVIS network in evaluation mode; the number of frames is the weights' own."""
    return StepGraph(METHOD.online_step(model), METHOD.inference(model.config))
