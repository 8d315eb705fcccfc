"""Initial weights with which an untrained VISOLO finds objects."""

from __future__ import annotations

import torch

from visdeploy_training.methods.visolo.online import OnlineStep
from visdeploy_training.methods.visolo.weights import PREDICTOR
from visdeploy_training.model import VISModel


def show_objects(model: VISModel, count: int) -> None:
    """Shift the class bias so that `count` cells of a noise image exceed the score threshold; see `Method`."""
    step, config = OnlineStep(model), model.config
    with torch.inference_mode():
        frame = torch.randn(1, 3, config.height, config.width)
        outputs = dict(zip(step.output_names, step(frame, *step.initial_state().values()), strict=True))
        best = torch.logit(outputs["cell_scores"]).amax(1).sort(descending=True).values
        threshold = torch.logit(torch.tensor(config.score_threshold))
        model.get_parameter(f"{PREDICTOR}.bias").add_(threshold - best[min(count, len(best) - 1)])
