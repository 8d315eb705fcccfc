"""What visdeploy's export asks of a method: the step graph of a network."""

from __future__ import annotations

from recurrent_segmenter.method import METHOD
from visdeploy_export.step import StepGraph
from visdeploy_training.model import VISModel


def build(model: VISModel) -> StepGraph:
    """The step graph of a network in evaluation mode."""
    return StepGraph(METHOD.online_step(model), METHOD.inference(model.config))
