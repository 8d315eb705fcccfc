"""Initial weights with which an untrained TeViT finds objects."""

from __future__ import annotations

from visdeploy_training.model import VISModel


def show_objects(model: VISModel, count: int) -> None:
    """Distribute the proposals over the image, and reduce box refinements; a clip has `max_results` objects.

    See `Method`.
    """
    boxes = model.get_parameter("rpn_head.init_proposal_bboxes.weight")
    boxes.data.uniform_(0.1, 0.6)  # many positions and pyramid levels; initially all proposals are the whole image
    for name, parameter in model.named_parameters():
        if name.endswith("fc_reg.weight"):
            parameter.data.mul_(0.1)  # initial weights move boxes so far that a rounding error becomes a pixel
