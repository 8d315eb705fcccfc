"""Losses of VIShv: embeddings as in STEm-Seg (Athar et al., ECCV 2020, section 3.2), semantic classes, flow."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from visdeploy_training.clip import ClipTargets, check_targets
from visdeploy_training.losses import lovasz_hinge
from visdeploy_training.methods.vishv.config import VIShvConfig
from visdeploy_training.methods.vishv.embedding import bandwidths
from visdeploy_training.methods.vishv.flow import bits_per_dim
from visdeploy_training.methods.vishv.network import Heads, VIShvOutput
from visdeploy_training.methods.vishv.targets import QuarterTargets, frame_unions, quarter_targets


class EmbeddingTerms(NamedTuple):
    """Terms of the embedding loss without weights, each a scalar.

    Attributes:
        lovasz: Mean over the objects of the Lovász hinge of the membership of all pixels.
        smoothness: Mean over the clips of the variation of the raw variance within an object.
        seediness: Distance of the seediness from the membership, or from 0 in the background.
    """

    lovasz: Tensor
    smoothness: Tensor
    seediness: Tensor


def vishv_losses(output: VIShvOutput, targets: Sequence[ClipTargets], config: VIShvConfig) -> dict[str, Tensor]:
    """Compute the weighted losses: of the flow alone in the first phase of a training, otherwise all.

    Args:
        output: Training output of the network.
        targets: Ground truth of each clip.
        config: Weights, and dimensions of the embedding.

    Returns:
        Map from name to scalar; the total loss is the sum.

    Raises:
        DataError: Targets and output do not match, or a label is out of range.
    """
    check_targets(targets, output.size, num_classes=config.num_classes)
    device_type = targets[0].masks.device.type
    losses: dict[str, Tensor] = {}
    with torch.autocast(device_type, enabled=False):
        if output.heads is not None:
            reduced = [quarter_targets(clip) for clip in targets]
            terms = embedding_terms(output.heads, reduced, config.free_dim_stds)
            losses["loss_lovasz"] = config.lovasz_weight * terms.lovasz
            losses["loss_smoothness"] = config.smoothness_weight * terms.smoothness
            losses["loss_seediness"] = config.seediness_weight * terms.seediness
            if output.heads.semantic is not None:
                found = semantic_losses(output.heads.semantic.float(), reduced, config)
                losses |= {name: config.semantic_weight * value for name, value in found.items()}
        if output.flow is not None:
            losses["loss_flow"] = config.flow_weight * flow_loss(output, targets, config)
    return losses


def embedding_terms(heads: Heads, targets: Sequence[QuarterTargets], free_dim_stds: Sequence[float]) -> EmbeddingTerms:
    """Compute the terms of the embedding loss of a batch.

    Args:
        heads: Output of the heads.
        targets: Targets of each clip.
        free_dim_stds: Standard deviation of a cluster in each free dimension.
    """
    values, variances, seediness = (
        each.float() for each in (heads.embeddings.values, heads.embeddings.variances, heads.seediness)
    )
    zero = (values.sum() + variances.sum() + seediness.sum()) * 0
    lovasz, smoothness, seeds, objects = zero, zero, zero, 0
    free = values.new_tensor([1 / std**2 for std in free_dim_stds])
    for i, target in enumerate(targets):
        masks = target.masks.flatten(1)
        if not len(masks):
            continue  # the published loss leaves out the background of clips without objects
        pixels, raw, seed = values[i].flatten(1), variances[i].flatten(1), seediness[i].flatten()
        objects += len(masks)
        clip_smoothness = zero
        for mask in masks:
            logits, own = _membership(pixels, raw, mask, free), raw[:, mask]
            lovasz = lovasz + lovasz_hinge(2 * logits - 1, mask)
            seeds = seeds + (seed[mask] - logits[mask].detach()).square().mean()
            clip_smoothness = clip_smoothness + (own - own.mean(dim=1, keepdim=True)).square().mean()
        smoothness = smoothness + clip_smoothness / len(masks)
        background = ~masks.any(dim=0)
        if background.any():
            # ignored pixels count in the denominator, as in the published loss
            known = (~target.ignore.flatten()[background]).float()
            seeds = seeds + (seed[background].square() * known).mean()
    return EmbeddingTerms(lovasz / max(objects, 1), smoothness / len(targets), seeds / (objects + 1))


def _membership(pixels: Tensor, raw: Tensor, mask: Tensor, free: Tensor) -> Tensor:
    """Return the probability that each pixel belongs to an object, `[P]`.

    Args:
        pixels: Embeddings `[E, P]`.
        raw: Raw variances `[B, P]`.
        mask: Pixels of the object, `[P]` bool.
        free: Bandwidths of the free dimensions, `[F]`.
    """
    centre = pixels[:, mask].mean(dim=1, keepdim=True)
    width = torch.cat([bandwidths(raw[:, mask]).mean(dim=1), free])
    return (-0.5 * ((pixels - centre).square() * width[:, None]).sum(dim=0)).exp()


def semantic_losses(semantic: Tensor, targets: Sequence[QuarterTargets], config: VIShvConfig) -> dict[str, Tensor]:
    """Compute the losses of the semantic head: cross-entropy of all pixels, and of the foreground of known ones.

    Args:
        semantic: Logits `[B, C, T, h, w]`.
        targets: Targets of each clip.
        config: Number of classes.
    """
    wanted = torch.stack([target.semantic for target in targets])
    losses = {"loss_semantic": F.cross_entropy(semantic[:, : config.num_classes + 1], wanted)}
    if config.foreground_channel:
        known = torch.stack([~target.ignore for target in targets]).float().flatten(1)
        logits, labels = semantic[:, -1].flatten(1), (wanted > 0).float().flatten(1)
        entropy = F.binary_cross_entropy_with_logits(logits, labels, reduction="none")
        losses["loss_foreground"] = ((entropy * known).sum(dim=1) / known.sum(dim=1).clamp(min=1)).mean()
    return losses


def flow_loss(output: VIShvOutput, targets: Sequence[ClipTargets], config: VIShvConfig) -> Tensor:
    """Compute the bits per value of the appearance embedding; without a rest of frames that fill no chunk."""
    log_p, logdet, values = flow_terms(output, targets, config)
    return bits_per_dim(log_p, logdet, values)


def flow_terms(output: VIShvOutput, targets: Sequence[ClipTargets], config: VIShvConfig) -> tuple[Tensor, Tensor, int]:
    """Return log-density `[chunk]` and log-determinant (scalar), both means over the chunks, and values per frame."""
    if output.flow is None or output.flow_input is None:
        raise TypeError("the network has no flow")
    frames = output.flow_input.float()
    unions = frame_unions(targets) if config.flow_conditional else None
    size = min(config.flow_chunk, len(frames))
    starts = range(0, len(frames) - size + 1, size)
    results = [output.flow(frames[i : i + size], None if unions is None else unions[i : i + size]) for i in starts]
    log_p = torch.stack([each.log_p for each in results]).mean(dim=0)
    logdet = torch.stack([each.logdet.mean() for each in results]).mean()
    return log_p, logdet, frames[0].numel()
