"""Initial weights with which an untrained TPR network finds objects."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from visdeploy_training.fpn import NamedConv
from visdeploy_training.methods.tpr.backbone import Pyramid
from visdeploy_training.methods.tpr.config import SIZE_MULTIPLE
from visdeploy_training.methods.tpr.network import TPR
from visdeploy_training.model import VISModel

CLASSIFIER = "proposal_generator.fcos_head.cls_logits"


def show_objects(model: VISModel, count: int) -> None:
    """Modify weights so that about `count` candidates of a noise image exceed the score threshold; see `Method`.

    In the video stage, the image is the second of a stream, whose pyramid is aligned.
    """
    if not isinstance(model, TPR):
        raise TypeError(f"expected a TPR network, not {type(model).__name__}")
    config, head = model.config, model.proposal_generator.fcos_head
    side = -(-config.shortest_edge // SIZE_MULTIPLE) * SIZE_MULTIPLE
    with torch.inference_mode():
        first, image = torch.randn(2, 1, 3, side, side)
        _scale(model.backbone, image)
        # larger weights, so that locations differ, and distances of several strides
        head.cls_logits.weight.mul_(10)
        model.get_parameter("proposal_generator.fcos_head.bbox_pred.bias").add_(2.0)
        for name, parameter in model.named_parameters():
            if name.endswith("gate_conv.weight"):
                parameter.mul_(8)  # otherwise activations are close to 0, and rounding decides which gates are open
        levels = model.backbone(image)
        if model.temporal_align is not None:
            levels = model.temporal_align(model.backbone(first), levels)
        found = head(levels)
        centre = torch.cat([each.flatten(1).sigmoid() for each in found.centreness], dim=1)[0]
        logits = torch.cat([each.flatten(2) for each in found.class_logits], dim=2)[0]
        needed = torch.logit((config.score_threshold / centre).clamp(max=1 - 1e-6))
        excess = (logits - needed).amax(dim=0).sort(descending=True).values
        model.get_parameter(f"{CLASSIFIER}.bias").sub_(excess[min(count, len(excess) - 1)])


def _scale(body: Pyramid, image: Tensor) -> None:
    """Scale the last convolution of each level so that its map has a standard deviation of 1.

    The maps of an untrained backbone are so close to 0 that rounding would decide about gates and samples.
    """
    outputs = [cast(NamedConv, each).conv for each in body.fpn.fpn_convs]
    # p7 is computed from p6, and p6 from p5 if the backbone is a Swin Transformer
    parts: list[list[nn.Conv2d]] = [outputs, [body.top_block.p6], [body.top_block.p7]]
    done = 0
    for part in parts:
        levels = body(image, finest=True)[done : done + len(part)]
        for conv, level in zip(part, levels, strict=True):
            conv.weight.div_(level.std(correction=0).clamp(min=1e-20))
        done += len(part)
