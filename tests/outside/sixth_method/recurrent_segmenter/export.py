"""Step graph of a network, for the export."""

from __future__ import annotations

from recurrent_segmenter.method import METHOD
from visdeploy_export.step import StepGraph
from visdeploy_training.model import VISModel


def build(model: VISModel) -> StepGraph:
    """Return the step graph of a network in evaluation mode."""
    return StepGraph(METHOD.online_step(model), METHOD.inference(model.config))
