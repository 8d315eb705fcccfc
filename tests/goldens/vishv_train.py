"""VIShv's training goldens: targets, losses of both phases, gradient norms."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from visdeploy_training.clip import ClipTargets
from visdeploy_training.methods.vishv import VIShv, vishv_losses
from visdeploy_training.methods.vishv.losses import flow_terms
from visdeploy_training.methods.vishv.targets import quarter_targets

from .core import Store
from .vishv_stages import network_input

NAMES = {
    "optimised/embedding_loss": ("loss_lovasz", "loss_smoothness", "loss_seediness"),
    "optimised/offset_loss": ("loss_flow",),
    "optimised/foreground": ("loss_foreground",),
    "optimised/semantic_segmentation_loss": ("loss_semantic",),
    "logged/offset_loss": ("loss_flow",),
    "logged/lovasz_loss": ("loss_lovasz",),
    "logged/variance_smoothness_loss": ("loss_smoothness",),
    "logged/seediness_loss": ("loss_seediness",),
    "logged/semantic_segmentation_loss": ("loss_semantic",),
}
"""Stored values as sums of our losses."""


def check_train(store: Store, manifest: Mapping[str, Any], model: VIShv, names: Mapping[str, str]) -> None:
    """One forward and backward of each phase.

    Args:
        store: The recording.
        manifest: Its manifest, with the clips of the batch.
        model: The network with the seeded weights.
        names: Official name of a tensor to ours.
    """
    batch, config = manifest["loss_batch"], manifest["config"]
    size = store.take("loss/padded_size").tolist()
    clips, targets = read_batch(store, batch, config, size)
    store.exact("loss/padded_size", np.array(clips.shape))
    for i, target in enumerate(targets):
        reduced = quarter_targets(target)
        packed = np.packbits(reduced.masks.numpy().ravel())
        store.row(f"loss/seq{i}/masks_down", float(np.sum(packed != store.take(f"loss/seq{i}/masks_down"))), 0.0)
        store.exact(f"loss/seq{i}/masks_down/shape", np.array(reduced.masks.shape))
        if (key := f"loss/seq{i}/semseg_target") in store:
            store.exact(key, reduced.semantic.numpy())
    model.train()
    for phase in ("join", "flow"):
        if f"loss/{phase}/total" in store:
            model.start_iteration(model.config.flow_iterations if phase == "join" else 0)
            check_phase(store, f"loss/{phase}", model, clips, targets, names)
    model.eval()


def check_phase(
    store: Store, key: str, model: VIShv, clips: Tensor, targets: list[ClipTargets], names: Mapping[str, str]
) -> None:
    """Compare losses and gradients of one phase."""
    limit = store.golden.tolerance["losses"]
    model.zero_grad(set_to_none=True)
    output = model(clips)
    losses = vishv_losses(output, targets, model.config)
    for stored in store.keys(rf"{key}/(optimised|logged)/\w+"):
        leaf = stored.removeprefix(f"{key}/")
        value = sum(losses[name] for name in NAMES[leaf])
        if leaf == "logged/variance_smoothness_loss":
            value = value / model.config.smoothness_weight
        store.close(stored, value, **limit)
    total = torch.stack(list(losses.values())).sum()
    store.close(f"{key}/total", total, **limit)
    if output.flow is not None:
        with torch.no_grad():
            log_p, logdet, values = flow_terms(output, targets, model.config)
        store.close(f"{key}/flow_log_p", log_p, **limit)
        store.close(f"{key}/flow_logdet", logdet, **limit)
        store.exact(f"{key}/flow_n_pixel", np.array(values))
    total.backward()
    gradients = {name: p.grad for name, p in model.named_parameters()}
    # tensors without a counterpart are never used, and have no gradient
    found = [gradients[names[n]] if n in names else None for n in store.take("loss/param_names").tolist()]
    norms = np.array([-1.0 if g is None else float(g.double().norm()) for g in found])
    store.close(f"{key}/grad_norms", norms, **limit)


def read_batch(
    store: Store, batch: Mapping[str, Any], config: Mapping[str, Any], size: list[int]
) -> tuple[Tensor, list[ClipTargets]]:
    """Images `[B, T, 3, H, W]` and targets of the batch, padded to its size `[B, T, 3, H, W]`."""
    clips, targets = [], []
    for i, clip in enumerate(batch["seqs"]):
        images = network_input(clip, size[1], batch, config, pad=1)
        border = (0, size[4] - images.shape[3], 0, size[3] - images.shape[2])
        clips.append(F.pad(images, border))
        masks, ignore = (F.pad(unpack(store, f"loss/seq{i}/{part}"), border) for part in ("masks", "ignore"))
        categories = torch.from_numpy(store.take(f"loss/seq{i}/category_ids"))
        store.exact(f"loss/seq{i}/category_ids", np.array(clip["category_ids"]))
        labels = (categories - 1).expand(size[1], -1)
        targets.append(ClipTargets(masks.transpose(0, 1).contiguous(), labels, ignore))
    return torch.stack(clips), targets


def unpack(store: Store, key: str) -> Tensor:
    """Masks that are stored as bits, and their shape."""
    shape = tuple(store.take(f"{key}/shape"))
    bits = np.unpackbits(store.take(key), count=int(np.prod(shape)))
    return torch.from_numpy(bits.reshape(shape).astype(bool))
