"""Initial weights with which an untrained DefVIS finds objects."""

from __future__ import annotations

from visdeploy_training.model import VISModel


def show_objects(model: VISModel, count: int) -> None:
    """Set biases so that every slot predicts an object with a non-empty mask, whatever `count` is; see `Method`."""
    model.get_parameter("class_embed.bias").data[[0, -1]] = -5.0  # the unused class and no object
    if model.config.mask_prior > 0:
        names = [name for name, _ in model.named_parameters() if name.startswith("insmask_head.")]
        model.get_parameter(names[-1]).data.fill_(0.1)  # the bias of the last layer
