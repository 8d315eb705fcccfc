"""TeViT's step graph: one clip of any length in, raw results of its best pairs out."""

from __future__ import annotations

from visdeploy_export.step import StepGraph
from visdeploy_training.methods.tevit import METHOD
from visdeploy_training.model import VISModel

TRACED_FRAMES = 3
"""Frames of the clip that the graph is traced with; short, as all lengths give the same graph."""


def build(model: VISModel) -> StepGraph:
    """The step graph of a TeViT network in evaluation mode; frames, rows and columns are free."""
    frames = min(TRACED_FRAMES, model.config.window)
    return StepGraph(METHOD.online_step(model), METHOD.inference(model.config), traced={"frames": frames})
