"""Step graph of DefVIS: from one clip to the raw results of all slots."""

from __future__ import annotations

from visdeploy_export.step import StepGraph
from visdeploy_training.methods.defvis import METHOD
from visdeploy_training.model import VISModel


def build(model: VISModel) -> StepGraph:
    """Return the step graph of a DefVIS network in evaluation mode. The number of frames is fixed by the weights."""
    return StepGraph(METHOD.online_step(model), METHOD.inference(model.config))
