"""Step graph of TPR: from one frame and the pyramid of the previous frame to detections and the next pyramid."""

from __future__ import annotations

from visdeploy_export.step import StepGraph
from visdeploy_training.methods.tpr import METHOD
from visdeploy_training.model import VISModel


def build(model: VISModel) -> StepGraph:
    """Return the step graph of a TPR network in evaluation mode. Rows and columns are dynamic."""
    return StepGraph(METHOD.online_step(model), METHOD.inference(model.config))
