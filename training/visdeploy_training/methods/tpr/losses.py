"""Losses of TPR: detection and masks of BlendMask, association, and the budget of the gated blocks.

Detection as in FCOS (Tian et al., ICCV 2019), masks as in BlendMask (Chen et al., CVPR 2020), association and budget as
in Temporal Pyramid Routing (Li et al., TPAMI 2023); the details are those of the published implementation.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from visdeploy_training.clip import ClipTargets, check_targets
from visdeploy_training.losses import mean_over_processes, sigmoid_focal_loss
from visdeploy_training.methods.tpr.blending import blend, crop_bases, mask_targets
from visdeploy_training.methods.tpr.config import TPRConfig
from visdeploy_training.methods.tpr.detect import embeddings_at
from visdeploy_training.methods.tpr.output import BASE_STRIDE, MAP_STRIDE, TPROutput
from visdeploy_training.methods.tpr.targets import (
    PairTargets,
    Positives,
    assign,
    find_positives,
    image_targets,
    pair_targets,
    side_distances,
    single_frames,
)

CENTRENESS_FLOOR, HULL_EPS = 1e-6, 1e-7


def tpr_losses(output: TPROutput, targets: Sequence[ClipTargets], config: TPRConfig) -> dict[str, Tensor]:
    """Compute all weighted losses of a batch; training minimises their sum.

    Args:
        output: Output of the network in training, for B pairs of a query and a reference frame, or for the frames of
            all clips as B single images (image stage).
        targets: Targets of each clip.
        config: Configuration with weights.

    Returns:
        `loss_fcos_cls`, `loss_fcos_loc`, `loss_fcos_ctr`, `loss_mask`; in the video stage `loss_match` and
        `loss_budget`; in the image stage `loss_semantic` if the network has a semantic head. Float32 scalars.

    Raises:
        DataError: Targets and output differ in number of clips, of frames or in size, or a label is out of range.
    """
    batch, _, rows, columns = output.bases.shape
    video = config.stage == "video"
    clips = targets if video else [frame for clip in targets for frame in single_frames(clip)]
    size = (BASE_STRIDE * rows, BASE_STRIDE * columns)
    check_targets(clips, (batch, 2 if video else 1, *size), num_classes=config.num_classes)
    found = [pair_targets(clip) if video else image_targets(clip) for clip in clips]
    return criterion(output, found, config)


def criterion(output: TPROutput, targets: Sequence[PairTargets], config: TPRConfig) -> dict[str, Tensor]:
    """Compute all weighted losses of a batch from the targets of its pairs or images; see `tpr_losses`."""
    with torch.autocast(output.bases.device.type, enabled=False):
        shapes = [(each.shape[2], each.shape[3]) for each in output.class_logits]
        owners = assign(shapes, [t.boxes for t in targets], radius=config.centre_radius)
        found = find_positives(owners)
        boxes = torch.cat([t.boxes for t in targets])
        rows = object_rows(found, targets)
        truth = side_distances(found.points, boxes[rows]) / found.strides[:, None]
        weights = centreness(truth)
        count = max(1.0, mean_over_processes(float(len(rows)), output.bases))
        norm = max(CENTRENESS_FLOOR, mean_over_processes(float(weights.sum()), output.bases))
        losses = {
            "loss_fcos_cls": class_loss(output.class_logits, found, targets, config) / count,
            "loss_fcos_loc": (weights * box_loss(found.gather(output.distances), truth)).sum() / norm,
            "loss_fcos_ctr": _entropy(found.gather(output.centreness)[:, 0], weights).sum() / count,
            "loss_mask": (weights * mask_loss(output, found, rows, targets, config)).sum() / norm,
        }
        if config.stage == "video":
            losses["loss_match"] = match_loss(output, found, targets)
            losses["loss_budget"] = config.budget_weight * output.soft_cost.float().mean()
        elif output.semantic is not None:
            losses["loss_semantic"] = config.semantic_weight * semantic_loss(output.semantic, targets, config)
        return losses


def _entropy(logits: Tensor, targets: Tensor) -> Tensor:
    return F.binary_cross_entropy_with_logits(logits, targets, reduction="none")


def object_rows(found: Positives, targets: Sequence[PairTargets]) -> Tensor:
    """Return the positions `[P]` of the positives' objects among the objects of all images, one image after another."""
    counts = torch.tensor([0, *(len(t.boxes) for t in targets)], device=found.image.device)
    return counts.cumsum(dim=0)[found.image] + found.object


def centreness(distances: Tensor) -> Tensor:
    """Return how near locations are to the centres of their boxes (FCOS, equation 3).

    Args:
        distances: `[P, 4]` to the left, top, right and bottom, positive.

    Returns:
        `[P]` float32 in 0..1, 1 at the centre.
    """
    left, top, right, bottom = distances.unbind(dim=1)
    across = torch.minimum(left, right) / torch.maximum(left, right)
    down = torch.minimum(top, bottom) / torch.maximum(top, bottom)
    return (across * down).sqrt()


def class_loss(logits: Sequence[Tensor], found: Positives, targets: Sequence[PairTargets], config: TPRConfig) -> Tensor:
    """Compute the focal loss, summed over all locations and classes of the batch."""
    labels = torch.cat([t.labels for t in targets])[object_rows(found, targets)]
    sums = []
    for level, each in enumerate(logits):
        wanted = torch.zeros_like(each, dtype=torch.float32)
        here = found.level == level
        wanted[found.image[here], labels[here], found.row[here], found.column[here]] = 1.0
        sums.append(sigmoid_focal_loss(each, wanted, alpha=config.focal_alpha, gamma=config.focal_gamma).sum())
    return torch.stack(sums).sum()


def box_loss(distances: Tensor, truth: Tensor) -> Tensor:
    """Compute `1 - GIoU` of boxes given by the distances from the same locations, without reduction.

    As published, 1 is added to the areas of intersection and union in their ratio, in square strides.

    Args:
        distances: `[P, 4]` to the left, top, right and bottom in strides.
        truth: Same shape.

    Returns:
        `[P]` float32.
    """

    def area(sides: Tensor) -> Tensor:
        return (sides[:, 0] + sides[:, 2]) * (sides[:, 1] + sides[:, 3])

    intersection = area(torch.minimum(distances, truth))
    union = area(distances) + area(truth) - intersection
    hull = area(torch.maximum(distances, truth)) + HULL_EPS
    return 1 - ((intersection + 1) / (union + 1) - (hull - union) / hull)


def mask_loss(
    output: TPROutput, found: Positives, rows: Tensor, targets: Sequence[PairTargets], config: TPRConfig
) -> Tensor:
    """Compute the mean cross entropy `[P]` of the masks of positives, cropped to the true boxes of their objects."""
    crops = crop_bases(output.bases, targets, config.mask_size)
    truth = torch.cat([mask_targets(t.masks, t.boxes, config.mask_size) for t in targets])
    logits = blend(crops[rows], found.gather(output.attention), config)
    return _entropy(logits, truth[rows].float()).mean(dim=(1, 2))


def match_loss(output: TPROutput, found: Positives, targets: Sequence[PairTargets]) -> Tensor:
    """Compute the cross entropy of associating predicted boxes of positives with the objects of the reference frame.

    The logit of a new object is 0. The loss is averaged over the positives of each image, then over images; an image
    without positives counts with 0.
    """
    sides = found.gather(output.distances).detach() * found.strides[:, None]
    boxes = torch.cat([found.points - sides[:, :2], found.points + sides[:, 2:]], dim=1)
    losses = []
    for image, truth in enumerate(targets):
        here = found.image == image
        query = embeddings_at(output.query_map[image], boxes[here]).float()
        reference = embeddings_at(output.reference_map[image], truth.reference_boxes).float()
        logits = F.pad(query @ reference.T, (1, 0))
        entropy = F.cross_entropy(logits, truth.pids[found.object[here]], reduction="sum")
        losses.append(entropy / max(1, len(query)))
    return torch.stack(losses).mean()


def semantic_loss(logits: Tensor, targets: Sequence[PairTargets], config: TPRConfig) -> Tensor:
    """Compute the focal loss of the auxiliary semantic head, divided by the number of positives.

    BlendMask adds such a loss without giving its details; these are ours. A cell is positive for a class if the pixel
    at its centre is inside the mask of an object of this class.

    Args:
        logits: `[B, C, H / 8, W / 8]`.
        targets: Objects of each image.
        config: Configuration with the parameters of the focal loss.

    Returns:
        Float32 scalar.
    """
    wanted = torch.zeros_like(logits, dtype=torch.float32)
    centre = MAP_STRIDE // 2
    for image, truth in enumerate(targets):
        cells = truth.masks[:, centre::MAP_STRIDE, centre::MAP_STRIDE]
        for label, cell in zip(truth.labels.tolist(), cells, strict=True):
            wanted[image, label][cell] = 1.0
    count = max(1.0, mean_over_processes(float(wanted.sum()), logits))
    return sigmoid_focal_loss(logits, wanted, alpha=config.focal_alpha, gamma=config.focal_gamma).sum() / count
