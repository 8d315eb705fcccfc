"""Post-processing of the dense maps of one frame to detections, as in the published implementation of VISOLO.

The steps are:

1. take the best class of each grid cell;
2. multiply its score by the grid weight (score reweighting), and keep cells above the score threshold;
3. compute the mask of each candidate cell, upsample it to the input size, and binarise it;
4. multiply the score by the mask score, the mean probability inside the mask;
5. sort by score, and keep `nms_pre` candidates;
6. apply Matrix NMS;
7. keep candidates above the update threshold;
8. sort by score, and keep `max_detections` candidates.

The code consists of tensor operations with a data-dependent number of rows. The exported graph and the evaluation
during training use it. A dummy candidate with an empty mask is always appended, so that no tensor has zero rows. In the
published implementation an empty mask has the score NaN. Its effects on other candidates are reproduced here with
flags, without NaN arithmetic.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from visdeploy_training.matrix_nms import descending_order, matrix_nms_decay, pairwise_iou
from visdeploy_training.methods.visolo.config import VISOLOConfig


class Detections(NamedTuple):
    """Detections of one frame in descending order of score; n may be 0, C is the number of classes.

    Attributes:
        scores: `[n]` float, after grid weight, mask score and NMS; used only for sorting and filtering.
        labels: `[n]` int64.
        cells: `[n]` int64, `row * columns + column`.
        class_scores: `[n, C]` float, sigmoid scores without reweighting.
        masks: `[n, H, W]` bool, at the size of the network input.
        overlaps: `[n, n]` float, pairwise intersections in pixels, with the areas on the diagonal.
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
    """Candidates before and after Matrix NMS, sorted by the score before it (m rows, the dummy last).

    Attributes:
        source: `[m]` int64, row in the candidate masks.
        real: `[m]` bool; False for the dummy and for candidates beyond `nms_pre`.
        empty: `[m]` bool, whether the mask is empty (score NaN in the published implementation).
        scores: `[m]` float before NMS, 0 where empty.
        decayed: `[m]` float after NMS.
        labels: `[m]` int64.
        intersections: `[m, m]` float, in pixels.
    """

    source: Tensor
    real: Tensor
    empty: Tensor
    scores: Tensor
    decayed: Tensor
    labels: Tensor
    intersections: Tensor


class Candidates(NamedTuple):
    """Candidates of a frame in ascending order of cell, the dummy last (m rows).

    Attributes:
        cells: `[m]` int64.
        logits: `[m, h, w]` float, mask logits.
        masks: `[m, H, W]` bool; the mask of the dummy is empty.
        ranked: The same candidates before and after Matrix NMS.
    """

    cells: Tensor
    logits: Tensor
    masks: Tensor
    ranked: Ranked


def candidate_cells(weighted: Tensor, threshold: float) -> Tensor:
    """Return the cells `[m]` with a score of at least `threshold`, in ascending order, then the dummy (cell 0).

    If cell 0 is the only candidate, there is none: the published implementation tests the sum of the cell indices.
    """
    valid = weighted >= threshold
    valid = valid & valid[1:].any()
    return torch.cat([valid.nonzero().squeeze(1), torch.zeros(1, dtype=torch.int64, device=weighted.device)])


def rank(scores: Tensor, labels: Tensor, prob: Tensor, masks: Tensor, config: VISOLOConfig) -> Ranked:
    """Compute mask scores, sort, and apply Matrix NMS (steps 4 to 6).

    Args:
        scores: `[m]` class score times grid weight; the last row is the dummy.
        labels: `[m]` int64.
        prob: `[m, H, W]` mask probabilities.
        masks: `[m, H, W]` bool; the mask of the dummy is empty.
        config: Configuration with thresholds.
    """
    count = scores.shape[0]
    index = torch.arange(count, device=scores.device)
    flat = masks.flatten(1).to(prob.dtype)
    inside = (prob.flatten(1) * flat).sum(dim=1)
    intersections = torch.matmul(flat, flat.transpose(0, 1))
    areas = intersections.diagonal()
    empty = areas < 0.5
    scored = torch.where(empty, torch.zeros_like(scores), scores * inside / areas.clamp(min=1.0))
    # an empty mask sorts first, as NaN in the published implementation, and counts towards nms_pre; the dummy is last
    key = torch.where(index == count - 1, -1.0, torch.where(empty, 2.0, scored))
    order = descending_order(key)
    intersections = intersections[order][:, order]
    labels, empty, scored = labels[order], empty[order], scored[order]
    real = (index < count - 1) & (index < config.nms_pre)
    # candidates beyond nms_pre are last and therefore do not decay the others
    decay = matrix_nms_decay(pairwise_iou(intersections), labels, kernel=config.nms_kernel, sigma=config.nms_sigma)
    return Ranked(order, real, empty, scored, scored * decay, labels, intersections)


def select(ranked: Ranked, config: VISOLOConfig) -> tuple[Tensor, Tensor]:
    """Select rows of `ranked` (steps 7 and 8): `[n]` int64 in descending order of score, and their scores `[n]`."""
    keep = ranked.real & ~ranked.empty & (ranked.decayed >= config.update_threshold)
    if config.drop_frame_with_empty_masks:
        # in the published implementation, the IoU 0/0 of two empty masks makes every score of the frame NaN
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
    """Compute the candidates (steps 1 to 6); arguments as for `detect`."""
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
    """Compute the detections of one frame with N grid cells and C classes.

    Args:
        class_scores: `[N, C]` float, sigmoid scores.
        kernels: `[mask_width, N]` float.
        mask_features: `[mask_width, h, w]` float at stride 4.
        grid_weight: `[N]` float; ones in the first frame.
        config: Configuration with thresholds.
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
