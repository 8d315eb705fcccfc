"""Detections of one frame: candidates, suppression, masks and embeddings, as part of the exported graph.

The published implementation computes the attention maps (`top_layer`) and the embeddings at all locations. Here they
are computed at the locations of the remaining detections only, with equal results: for R50 at 384x640 this saves about
17 of 90 billion multiplications per frame.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import nms

from visdeploy_training.methods.tpr.config import TPRConfig
from visdeploy_training.methods.tpr.head import Predictions
from visdeploy_training.methods.tpr.output import MAP_STRIDE, STRIDES


class Candidates(NamedTuple):
    """Pairs of a location and a class, with k rows.

    Attributes:
        scores: `[k]`, square root of the product of class probability and centre-ness.
        labels: `[k]` int64.
        boxes: Left, top, right, bottom in pixels of the input, not clipped, `[k, 4]`.
        places: `[k]` int64, position of the location in the rows of `patches`.
        widths: `[k]` int64, distance between vertically adjacent locations in these rows.
        cells: `[k]` int64, number of the pair: `location * num_classes + class`.
    """

    scores: Tensor
    labels: Tensor
    boxes: Tensor
    places: Tensor
    widths: Tensor
    cells: Tensor

    def take(self, rows: Tensor) -> Candidates:
        """Return the candidates of these rows."""
        return Candidates(*(each.index_select(0, rows) for each in self))


def candidates(predictions: Predictions, config: TPRConfig) -> Candidates:
    """Return the candidates of one image above the score threshold: the best `nms_pre` of each level, sorted by level.

    Args:
        predictions: Predictions for a batch of one image.
        config: Configuration with the thresholds.
    """
    found, places, cells = [], 0, 0
    for level, stride in enumerate(STRIDES):
        logits, distances = predictions.class_logits[level][0], predictions.distances[level][0]
        classes, rows, columns = logits.shape
        product = logits.sigmoid() * predictions.centreness[level][0].sigmoid()
        flat = product.flatten(1).transpose(0, 1).flatten()
        # filled up with zeros, which the threshold removes, so that there are always enough candidates
        best = torch.cat([flat, flat.new_zeros(config.nms_pre)]).topk(config.nms_pre)
        index = best.indices.clamp(max=classes * rows * columns - 1)
        location, label = index // classes, index % classes
        y = location // columns
        x = location - y * columns  # the exporter has no remainder by a symbolic size
        centre = torch.stack([x, y, x, y], dim=1).to(flat.dtype) * stride + stride // 2
        sides = distances.flatten(1).index_select(1, location).transpose(0, 1) * stride
        boxes = centre + sides * sides.new_tensor([-1.0, -1.0, 1.0, 1.0])
        width = columns + 2  # of the rows with padding
        place = places + (y + 1) * width + x + 1
        found.append((best.values, label, boxes, place, torch.full_like(place, 1) * width, cells + index))
        places, cells = places + (rows + 2) * width, cells + classes * rows * columns
    every = Candidates(*(torch.cat(part) for part in zip(*found, strict=True)))
    kept = every.take((every.scores > config.score_threshold).nonzero().squeeze(1))
    return kept._replace(scores=kept.scores.sqrt())


def suppress(every: Candidates, config: TPRConfig) -> Candidates:
    """Apply non-maximum suppression within each class; return at most `max_detections` and ties for the last place.

    Args:
        every: Candidates in any order.
        config: Configuration with the thresholds.

    Returns:
        The remaining candidates in descending order of score.
    """
    boxes = every.boxes
    # Classes are moved apart, so that one suppression serves all. Boxes may begin left of the image or above it.
    ends = torch.cat([boxes.flatten(), boxes.new_zeros(1)])
    apart = ends.max() - ends.min() + 1
    rows = nms(boxes + (every.labels.to(boxes.dtype) * apart)[:, None], every.scores, config.nms_threshold)
    kept = every.take(rows)
    last = torch.cat([kept.scores, kept.scores.new_zeros(config.max_detections)])[config.max_detections - 1]
    return kept.take((kept.scores >= last).nonzero().squeeze(1))


def patches(towers: Sequence[Tensor]) -> Tensor:
    """Return the features of all locations of one image with a border of zeros around each level, as rows `[P, C]`."""
    return torch.cat([F.pad(tower[0], (1, 1, 1, 1)).flatten(1) for tower in towers], dim=1).transpose(0, 1)


def attention_at(towers: Sequence[Tensor], found: Candidates, weight: Tensor, bias: Tensor) -> Tensor:
    """Compute a 3x3 convolution of the towers at the locations of candidates only.

    Args:
        towers: Features `[1, C, H_l, W_l]` of each level.
        found: k candidates.
        weight: `[O, C, 3, 3]`.
        bias: `[O]`.

    Returns:
        `[k, O]`.
    """
    rows = patches(towers)
    shifts = [(dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)]
    near = torch.cat([rows.index_select(0, found.places + dy * found.widths + dx) for dy, dx in shifts], dim=1)
    return torch.matmul(near, weight.permute(2, 3, 1, 0).flatten(0, 2)) + bias


def embeddings_at(features: Tensor, boxes: Tensor) -> Tensor:
    """Return the features of one image `[C, H / 8, W / 8]` in the cells of the centres of boxes, `[k, C]`.

    The centre may be outside the image; the nearest cell is used then.
    """
    rows, columns = features.shape[1:]
    centre = torch.div((boxes[:, :2] + boxes[:, 2:]) / 2, MAP_STRIDE, rounding_mode="floor").long()
    x, y = centre[:, 0].clamp(0, columns - 1), centre[:, 1].clamp(0, rows - 1)
    return features.flatten(1).index_select(1, y * columns + x).transpose(0, 1)
