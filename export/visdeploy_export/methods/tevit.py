"""Step graph of TeViT: from one clip of any length to the raw results of its best pairs of query and class."""

from __future__ import annotations

from visdeploy_export.step import StepGraph
from visdeploy_training.methods.tevit import METHOD
from visdeploy_training.model import VISModel

TRACED_FRAMES = 3
"""Frames of the clip for tracing. It is short, because the graph does not depend on the length."""


def build(model: VISModel) -> StepGraph:
    """Return the step graph of a TeViT network in evaluation mode. Frames, rows and columns are dynamic."""
    frames = min(TRACED_FRAMES, model.config.window)
    return StepGraph(METHOD.online_step(model), METHOD.inference(model.config), traced={"frames": frames})
