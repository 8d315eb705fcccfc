"""Initial weights with which an untrained TPR network finds objects."""

from __future__ import annotations

import torch

from visdeploy_training.methods.tpr.config import SIZE_MULTIPLE
from visdeploy_training.methods.tpr.network import TPR
from visdeploy_training.model import VISModel

CLASSIFIER = "proposal_generator.fcos_head.cls_logits"


def show_objects(model: VISModel, count: int) -> None:
    """Modify weights so that about `count` candidates of a noise image exceed the score threshold; see `Method`."""
    if not isinstance(model, TPR):
        raise TypeError(f"expected a TPR network, not {type(model).__name__}")
    config, head = model.config, model.proposal_generator.fcos_head
    side = -(-config.shortest_edge // SIZE_MULTIPLE) * SIZE_MULTIPLE
    with torch.inference_mode():
        # larger weights, so that locations differ, and distances of several strides
        head.cls_logits.weight.mul_(10)
        model.get_parameter("proposal_generator.fcos_head.bbox_pred.bias").add_(2.0)
        for name, parameter in model.named_parameters():
            if name.endswith("gate_conv.weight"):
                parameter.mul_(8)  # otherwise activations are close to 0, and rounding decides which gates are open
        found = head(model.backbone(torch.randn(1, 3, side, side)))
        centre = torch.cat([each.flatten(1).sigmoid() for each in found.centreness], dim=1)[0]
        logits = torch.cat([each.flatten(2) for each in found.class_logits], dim=2)[0]
        needed = torch.logit((config.score_threshold / centre).clamp(max=1 - 1e-6))
        excess = (logits - needed).amax(dim=0).sort(descending=True).values
        model.get_parameter(f"{CLASSIFIER}.bias").sub_(excess[min(count, len(excess) - 1)])
