"""Step graph of VISOLO: from one frame and the memory to detections and the next memory."""

from __future__ import annotations

from visdeploy_export.step import StepGraph
from visdeploy_training.methods.visolo import METHOD
from visdeploy_training.model import VISModel


def build(model: VISModel) -> StepGraph:
    """Return the step graph of a VISOLO network in evaluation mode. Rows and columns are dynamic."""
    return StepGraph(METHOD.online_step(model), METHOD.inference(model.config))
