"""Stage of the cascade: spatiotemporal query interaction (TeViT, Yang et al., CVPR 2022), dynamic convolution, outputs.

Dynamic convolution and box refinement are those of QueryInst (Fang et al., ICCV 2021).
"""

from __future__ import annotations

import math
from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from visdeploy_training.attention import PackedAttention
from visdeploy_training.boxes import to_centres, to_corners
from visdeploy_training.methods.tevit.config import BOX_SIZE, TeViTConfig

DELTA_STDS = (0.5, 0.5, 1.0, 1.0)
MOST_GROWTH = abs(math.log(16 / 1000))
CLASS_LAYERS, BOX_LAYERS = 1, 3
CLASS_PRIOR = 0.01


class StageOutput(NamedTuple):
    """Output of a stage for N images with P queries.

    Attributes:
        logits: Class logits `[N, P, num_classes]`.
        deltas: Box refinements `[N, P, 4]`.
        queries: Queries of the next stage `[N, P, C]`.
        attended: Queries after the attention, for the mask head, `[N, P, C]`.
    """

    logits: Tensor
    deltas: Tensor
    queries: Tensor
    attended: Tensor


class Attention(nn.Module):
    """Multi-head self-attention with the name `attn`."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.attn = PackedAttention(dim, heads)

    def forward(self, x: Tensor) -> Tensor:
        """Transform `[..., N, C]` to the same shape."""
        return cast(Tensor, self.attn(x, x, x))


class DynamicConv(nn.Module):
    """Two 1x1 convolutions of RoI features with weights computed from each query.

    Args:
        dim: Channels C of features and queries.
        inner: Channels between the two convolutions.
        cells: Number of positions of the features to merge into one vector; None keeps the positions.
    """

    def __init__(self, dim: int, inner: int, *, cells: int | None) -> None:
        super().__init__()
        self.sizes = (dim, inner)
        self.dynamic_layer = nn.Linear(dim, 2 * dim * inner)
        self.norm_in = nn.LayerNorm(inner)
        self.norm_out = nn.LayerNorm(dim)
        self.fc_layer = nn.Linear(cells * dim, dim) if cells is not None else None
        self.fc_norm = nn.LayerNorm(dim) if cells is not None else None

    def forward(self, queries: Tensor, features: Tensor) -> Tensor:
        """Map queries `[R, C]` and their features `[R, C, h, w]` to `[R, C]`, or `[R, h * w, C]` without `cells`."""
        dim, inner = self.sizes
        into, out_of = self.dynamic_layer(queries).split(dim * inner, dim=1)
        x = features.flatten(2).transpose(1, 2)
        x = F.relu(self.norm_in(torch.bmm(x, into.unflatten(1, (dim, inner)))))
        x = F.relu(self.norm_out(torch.bmm(x, out_of.unflatten(1, (inner, dim)))))
        if self.fc_layer is None or self.fc_norm is None:
            return x
        return F.relu(self.fc_norm(self.fc_layer(x.flatten(1))))


class FeedForward(nn.Module):
    """Linear layer, ReLU, linear layer, with the names of mmdet."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Sequential(nn.Linear(dim, hidden), nn.ReLU()), nn.Linear(hidden, dim))

    def forward(self, x: Tensor) -> Tensor:
        """Return the residual branch of `[..., C]`, with the same shape."""
        return cast(Tensor, self.layers(x))


class STQIHead(nn.Module):
    """Stage with spatiotemporal query interaction.

    The same attention is applied first over the queries of each frame, then over the frames of each query.
    """

    def __init__(self, config: TeViTConfig) -> None:
        super().__init__()
        dim = config.hidden_dim
        self.attention = Attention(dim, config.num_heads)
        self.attention_norm = nn.LayerNorm(dim)
        self.instance_interactive_conv = DynamicConv(dim, config.dynamic_dim, cells=BOX_SIZE**2)
        self.instance_interactive_conv_norm = nn.LayerNorm(dim)
        self.ffn = FeedForward(dim, config.feedforward_dim)
        self.ffn_norm = nn.LayerNorm(dim)
        self.cls_fcs = _layers(dim, CLASS_LAYERS)
        self.reg_fcs = _layers(dim, BOX_LAYERS)
        self.fc_cls = nn.Linear(dim, config.num_classes)
        self.fc_reg = nn.Linear(dim, 4)
        init_matrices(self)
        nn.init.constant_(self.fc_cls.bias, -math.log((1 - CLASS_PRIOR) / CLASS_PRIOR))

    def forward(self, queries: Tensor, features: Tensor, frames: int) -> StageOutput:
        """Compute the output of the stage.

        Args:
            queries: `[N, P, C]`, clip after clip.
            features: RoI features of the queries `[N * P, C, 7, 7]`.
            frames: Number of images per clip.
        """
        x = self.attention_norm(queries + self.attention(queries))
        tracks = x.unflatten(0, (-1, frames)).transpose(1, 2)  # [B, P, T, C]
        tracks = self.attention_norm(tracks + self.attention(tracks))
        attended = tracks.transpose(1, 2).flatten(0, 1)
        seen = self.instance_interactive_conv(attended.flatten(0, 1), features)
        x = self.instance_interactive_conv_norm(attended + seen.unflatten(0, attended.shape[:2]))
        x = self.ffn_norm(x + self.ffn(x))
        return StageOutput(self.fc_cls(self.cls_fcs(x)), self.fc_reg(self.reg_fcs(x)), x, attended)


def refine(boxes: Tensor, deltas: Tensor) -> Tensor:
    """Shift boxes by fractions of their size and scale them, without clipping to the image.

    Args:
        boxes: `[..., 4]` left, top, right, bottom.
        deltas: Refinements of a stage, same shape.
    """
    change = deltas.to(boxes.dtype) * torch.tensor(DELTA_STDS, dtype=boxes.dtype, device=boxes.device)
    old = to_centres(boxes)
    centre = old[..., :2] + old[..., 2:] * change[..., :2]
    size = old[..., 2:] * change[..., 2:].clamp(-MOST_GROWTH, MOST_GROWTH).exp()
    return to_corners(torch.cat([centre, size], dim=-1))


def init_matrices(module: nn.Module) -> None:
    """Initialise all parameters with more than one dimension by Xavier, as in the published implementation."""
    for parameter in module.parameters():
        if parameter.dim() > 1:
            nn.init.xavier_uniform_(parameter)


def _layers(dim: int, count: int) -> nn.Sequential:
    units = [[nn.Linear(dim, dim, bias=False), nn.LayerNorm(dim), nn.ReLU()] for _ in range(count)]
    return nn.Sequential(*[module for unit in units for module in unit])
