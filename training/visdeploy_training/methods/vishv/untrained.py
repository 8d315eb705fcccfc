"""Initial weights with which an untrained VIShv network finds objects."""

from __future__ import annotations

from math import log2, pi
from typing import cast

import torch
from torch import Tensor, nn

from visdeploy_training.methods.vishv.config import SIZE_MULTIPLE, SMALLEST
from visdeploy_training.methods.vishv.decoder import Decoder
from visdeploy_training.methods.vishv.embedding import BANDWIDTH_SCALE
from visdeploy_training.methods.vishv.network import VIShv
from visdeploy_training.model import VISModel

REACH = 1.386
"""Distance from a centre, in units of the bandwidth, at which the membership `exp(-d/2)` is one half."""

SATURATION = 30.0
"""Standard deviation of the outputs of the free dimensions, before the hyperbolic tangent.

Where an output changes its sign, its rounding error is that of a value of this size. With 100, the error of the
embedding exceeded 1e-3 in a network with a ResNet-101.
"""
WIDE = -6.0
"""Raw variance of clusters that are larger than the clip."""


def show_objects(model: VISModel, count: int) -> None:
    """Modify weights so that the pixels of a noise clip are foreground and form about `count` clusters; see `Method`.

    In networks with free dimensions, these are saturated, so that clusters are the combinations of their signs; few
    pixels are then so close to a threshold that rounding decides. In others, clusters are parts of the clip.
    """
    if not isinstance(model, VIShv):
        raise TypeError(f"expected a VIShv network, not {type(model).__name__}")
    config, head = model.config, model.embedding_head
    side = max(SMALLEST, -(-config.shortest_edge // SIZE_MULTIPLE) * SIZE_MULTIPLE)
    mode = model.training
    model.eval()
    with torch.inference_mode():
        levels = model.levels(torch.randn(1, config.window, 3, side, side))
        features = head.decode(levels)
        _scale(head.conv_embedding, features, 0.2)
        _scale(head.conv_variance, features, 0.1)
        bias = cast(Tensor, head.conv_variance.bias)
        if config.free_dims:
            _centre(head.conv_embedding, features)
            head.conv_embedding.weight[: config.bandwidth_dims].mul_(0.2)
            signs = min(config.free_dims, max(1, round(log2(max(count, 2)))))
            head.conv_embedding.weight[config.bandwidth_dims :][:signs].mul_(SATURATION)
            bias.fill_(WIDE)
        else:
            radius = (2**3 / (4 / 3 * pi * max(count, 1))) ** (1 / 3)
            bias.fill_((REACH / radius) ** 2 / BANDWIDTH_SCALE).log_()
        if head.conv_seediness is not None:
            _towards(head.conv_seediness, features, 2.5)
        if model.offset_decoder is not None:
            coarse = model.offset_decoder.conv1_add[0](levels[-1])
            _scale(cast(nn.Conv3d, model.offset_decoder.conv1_add[1]), coarse, 0.05)
        for other in (model.seediness_head, model.semseg_head):
            if other is not None:
                _towards(other.conv_out, cast(Decoder, other).decode(levels), 2.5)
    model.train(mode)


def _scale(conv: nn.Conv3d, x: Tensor, spread: float) -> None:
    """Scale the weights so that the outputs for `x` have this standard deviation."""
    conv.weight.mul_(spread / conv(x).std().clamp(min=1e-20))


def _centre(conv: nn.Conv3d, x: Tensor) -> None:
    """Change the weights so that every output has the mean 0 for `x`, and a standard deviation of 1."""
    weight, centre = conv.weight[:, :, 0, 0, 0], x.mean(dim=(0, 2, 3, 4))
    weight.sub_((weight @ centre)[:, None] * centre / centre.square().sum().clamp(min=1e-20))
    weight.div_(conv(x).std(dim=(0, 2, 3, 4))[:, None].clamp(min=1e-20))


def _towards(conv: nn.Conv3d, x: Tensor, mean: float) -> None:
    """Change the weights of the last output so that it has this mean for `x`, and a standard deviation of about 1."""
    weight, centre = conv.weight[-1, :, 0, 0, 0], x.mean(dim=(0, 2, 3, 4))
    weight.sub_(centre * (weight @ centre) / centre.square().sum().clamp(min=1e-20))
    weight.div_(conv(x)[:, -1].std().clamp(min=1e-20))
    weight.add_(mean * centre / centre.square().sum().clamp(min=1e-20))
