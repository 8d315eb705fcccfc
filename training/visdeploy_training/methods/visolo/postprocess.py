"""From the dense maps of one frame to its detections: spec section 7, steps 1 to 8.

Pure tensor code with a data-dependent number of rows, used by the exported graph and by evaluation during training.
One dummy candidate with an empty mask is always appended, so that no tensor has zero rows on the way; upstream's
NaN effects (Q1, Q2, single empty masks) are reproduced with flags, without NaN arithmetic.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from visdeploy_training.matrix_nms import descending_order, matrix_nms_decay, pairwise_iou
from visdeploy_training.methods.visolo.config import VISOLOConfig


class Detections(NamedTuple):
    """Detections of one frame, best first; n may be 0, N is the number of cells, C of classes.

    Attributes:
        scores: `[n]` float, after grid weight, mask score and NMS; orders and filters, no more.
        labels: `[n]` int64.
        cells: `[n]` int64, `row * columns + column`.
        class_scores: `[n, C]` float, sigmoid vectors without any reweighting.
        masks: `[n, H, W]` bool, at the size of the network input.
        overlaps: `[n, n]` float, pairwise intersections in pixels, areas on the diagonal.
        mask_logits: `[n, H/4, W/4]` float.
    """

    scores: Tensor
    labels: Tensor
    cells: Tensor
    class_scores: Tensor
    masks: Tensor
    overlaps: Tensor
    mask_logits: Tensor


class Ranked(NamedTuple):
    """The candidates around Matrix NMS, in its order (m rows, the dummy last).

    Attributes:
        source: `[m]` int64, row in the candidate masks.
        real: `[m]` bool; False for the dummy, and for what `nms_pre` cut off.
        empty: `[m]` bool, the mask is empty (upstream: its score is NaN).
        scores: `[m]` float before NMS, 0 where empty.
        decayed: `[m]` float after NMS.
        labels: `[m]` int64.
        intersections: `[m, m]` float, pixels.
    """

    source: Tensor
    real: Tensor
    empty: Tensor
    scores: Tensor
    decayed: Tensor
    labels: Tensor
    intersections: Tensor


class Candidates(NamedTuple):
    """The candidates of a frame in increasing cell order, the dummy last (m rows).

    Attributes:
        cells: `[m]` int64.
        logits: `[m, h, w]` float, mask logits.
        masks: `[m, H, W]` bool; the dummy's is empty.
        ranked: The same candidates around Matrix NMS.
    """

    cells: Tensor
    logits: Tensor
    masks: Tensor
    ranked: Ranked


def candidate_cells(weighted: Tensor, threshold: float) -> Tensor:
    """Cells `[m]` with a score of at least `threshold` from `[N]` scores, increasing, then the dummy (cell 0).

    Quirk Q1: when cell 0 is the only one, there is none.
    """
    valid = weighted >= threshold
    valid = valid & valid[1:].any()
    return torch.cat([valid.nonzero().squeeze(1), torch.zeros(1, dtype=torch.int64, device=weighted.device)])


def rank(scores: Tensor, labels: Tensor, prob: Tensor, masks: Tensor, config: VISOLOConfig) -> Ranked:
    """Steps 4 to 6: mask score, order, Matrix NMS.

    Args:
        scores: `[m]` class score times grid weight; the last row is the dummy.
        labels: `[m]` int64.
        prob: `[m, H, W]` mask probabilities.
        masks: `[m, H, W]` bool; the dummy's is empty.
        config: Thresholds.
    """
    count = scores.shape[0]
    index = torch.arange(count, device=scores.device)
    flat = masks.flatten(1).to(prob.dtype)
    inside = (prob.flatten(1) * flat).sum(dim=1)
    intersections = torch.matmul(flat, flat.transpose(0, 1))
    areas = intersections.diagonal()
    empty = areas < 0.5
    scored = torch.where(empty, torch.zeros_like(scores), scores * inside / areas.clamp(min=1.0))
    # upstream's NaN sorts first, and takes a place among the nms_pre; the dummy goes last
    key = torch.where(index == count - 1, -1.0, torch.where(empty, 2.0, scored))
    order = descending_order(key)
    intersections = intersections[order][:, order]
    labels, empty, scored = labels[order], empty[order], scored[order]
    real = (index < count - 1) & (index < config.nms_pre)
    # what nms_pre cut off stands behind all others and so decays none of them
    decay = matrix_nms_decay(pairwise_iou(intersections), labels, kernel=config.nms_kernel, sigma=config.nms_sigma)
    return Ranked(order, real, empty, scored, scored * decay, labels, intersections)


def select(ranked: Ranked, config: VISOLOConfig) -> tuple[Tensor, Tensor]:
    """Steps 7 and 8: rows of `ranked` that stay, best first, `[n]` int64, and their scores `[n]`."""
    keep = ranked.real & ~ranked.empty & (ranked.decayed >= config.update_threshold)
    if config.drop_frame_with_empty_masks:
        # quirk Q2: 0/0 between two empty masks makes every score of the frame NaN
        keep = keep & ((ranked.real & ranked.empty).sum() < 2)
    key = torch.where(keep, ranked.decayed, -1.0)
    order = descending_order(key)
    values = key[order]
    place = torch.arange(key.shape[0], device=key.device)
    chosen = ((values >= 0) & (place < config.max_detections)).nonzero().squeeze(1)
    return order[chosen], values[chosen]


def candidates(
    class_scores: Tensor, kernels: Tensor, mask_features: Tensor, grid_weight: Tensor, config: VISOLOConfig
) -> Candidates:
    """Steps 1 to 6; arguments as for `detect`."""
    best, labels = class_scores.max(dim=1)
    weighted = best * grid_weight
    cells = candidate_cells(weighted, config.score_threshold)
    logits = torch.matmul(kernels[:, cells].transpose(0, 1), mask_features.flatten(1))
    logits = logits.reshape(-1, mask_features.shape[1], mask_features.shape[2])
    up = F.interpolate(logits.unsqueeze(0), scale_factor=4.0, mode="bilinear", align_corners=False)
    prob = up.squeeze(0).sigmoid()
    real = torch.arange(cells.shape[0], device=cells.device) < cells.shape[0] - 1
    masks = (prob > config.mask_threshold) & real[:, None, None]
    return Candidates(cells, logits, masks, rank(weighted[cells], labels[cells], prob, masks, config))


def detect(
    class_scores: Tensor, kernels: Tensor, mask_features: Tensor, grid_weight: Tensor, config: VISOLOConfig
) -> Detections:
    """Detections of one frame.

    Args:
        class_scores: `[N, C]` float, sigmoid.
        kernels: `[mask_width, N]` float.
        mask_features: `[mask_width, h, w]` float at stride 4.
        grid_weight: `[N]` float; ones in the first frame.
        config: Thresholds.
    """
    cells, logits, masks, ranked = candidates(class_scores, kernels, mask_features, grid_weight, config)
    rows, scores = select(ranked, config)
    source = ranked.source[rows]
    return Detections(
        scores,
        ranked.labels[rows],
        cells[source],
        class_scores[cells[source]],
        masks[source],
        ranked.intersections[rows][:, rows],
        logits[source],
    )
