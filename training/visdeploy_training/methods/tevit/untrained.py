"""TeViT without training, made to find objects."""

from __future__ import annotations

from visdeploy_training.model import VISModel


def show_objects(model: VISModel, count: int) -> None:
    """Spread the proposals and let the stages move them little; a clip has `max_results` objects. See `Method`."""
    boxes = model.get_parameter("rpn_head.init_proposal_bboxes.weight")
    boxes.data.uniform_(0.1, 0.6)  # over the image and the levels: fresh ones are all the whole image
    for name, parameter in model.named_parameters():
        if name.endswith("fc_reg.weight"):
            parameter.data.mul_(0.1)  # fresh stages move boxes so far that one bit becomes a pixel
