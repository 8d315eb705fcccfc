"""VISOLO's training goldens: targets, predictions, losses, gradient norms."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations
from typing import Any

import numpy as np
import torch

from visdeploy_training.methods.visolo import VISOLO
from visdeploy_training.methods.visolo.losses import visolo_losses
from visdeploy_training.methods.visolo.targets import ClipTargets, assign_clip, tracking_target

from .core import Store
from .seeded import seeded_frames


def read_targets(store: Store, train: Mapping[str, Any]) -> list[ClipTargets]:
    height, width = train["height"], train["width"]
    clips = []
    for b in range(len(train["image_clips"])):
        masks, labels = [], []
        for f in range(train["num_frames"]):
            key = f"target/b{b}/f{f}"
            packed = store.take(f"{key}/masks_packed")
            masks.append(np.unpackbits(packed, axis=1, count=height * width).reshape(-1, height, width))
            labels.append(store.take(f"{key}/classes"))
            # an id of -1 says that the row's mask is empty; identity is the row
            ids = store.take(f"{key}/ids")
            store.row(f"target/f{f}/ids", float(((ids < 0) != ~masks[-1].any(axis=(1, 2))).sum()), 0.0)
        clips.append(ClipTargets(torch.from_numpy(np.stack(masks)).bool(), torch.from_numpy(np.stack(labels))))
    return clips


def check_assignment(store: Store, targets: list[ClipTargets], model: VISOLO) -> None:
    """Compare the stored rows as sets, because their order has no meaning."""
    grid, columns = model.config.grid, model.config.grid[1]
    owners = [assign_clip(t, grid, eps=model.config.sampling_eps) for t in targets]
    cells, classes, areas = {}, set(), {}
    pairs = set()
    for b, owner in enumerate(owners):
        for f, cell in (owner >= 0).nonzero().tolist():
            row = int(owner[f, cell])
            cells[b, cell, f] = row
            classes.add((b, int(targets[b].labels[f, row]), f, cell // columns, cell % columns))
            areas[b, cell, f] = int(targets[b].masks[f, row].sum())
        for p, (u, v) in enumerate(combinations(range(len(owner)), 2)):
            pairs |= {(b, p, i, j) for i, j in tracking_target(owner[u], owner[v]).nonzero().tolist()}
    for key, seen in (("gt/mask_cells", set(cells)), ("gt/class_nonzero", classes), ("gt/track_nonzero", pairs)):
        store.row(key, float(len({tuple(r) for r in store.take(key).tolist()} ^ seen)), 0.0)
    order = [tuple(r) for r in store.take("gt/mask_cells").tolist()]
    store.exact("gt/mask_cell_area", np.array([areas.get(k, -1) for k in order]))


def check_train(store: Store, train: Mapping[str, Any], model: VISOLO) -> None:
    config, tolerance = model.config, store.golden.tolerance
    targets = read_targets(store, train)
    check_assignment(store, targets, model)
    frames = [seeded_frames(c, train["num_frames"], train["height"], train["width"]) for c in train["image_clips"]]
    images = torch.from_numpy(np.stack(frames)).permute(0, 1, 4, 2, 3).float()
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (config.pixel_mean, config.pixel_std))
    model.train()
    output = model((images - mean) / std)
    atol, rtol = tolerance["float_atol"], tolerance["float_rtol"]
    for name, value in zip(("cats_logits", "kernels", "masks", "track_logits"), output, strict=True):
        store.close(f"pred/{name}", value, atol=atol, rtol=rtol)
    losses = visolo_losses(output, targets, config)
    for key in store.keys(r"loss/\w+"):
        name = key.removeprefix("loss/")
        if name in losses:
            store.close(key, losses[name].double(), atol=0.0, rtol=tolerance["loss_rtol"])
    sum(losses.values()).backward()
    check_gradients(store, model)


def check_gradients(store: Store, model: VISOLO) -> None:
    rtol = store.golden.tolerance["grad_norm_rtol"]
    trained = {f"model.{n}": p for n, p in model.named_parameters() if p.requires_grad}
    frozen = {f"model.{n}" for n, p in model.named_parameters() if not p.requires_grad}
    names, stored = store.take("grad/names").tolist(), store.take("grad/norms")
    store.row("grad/names", float(len(set(names) ^ set(trained))), 0.0)
    store.row("frozen_names", float(len(set(store.take("frozen_names").tolist()) ^ frozen)), 0.0)
    seen = np.array([float(trained[n].grad.double().norm()) if n in trained else np.inf for n in names])
    store.row("grad/norms", float(np.abs(seen / stored - 1).max()), rtol, note="relative")
    total = float(np.sqrt((seen**2).sum()))
    store.row("grad/total_norm", abs(total / float(store.take("grad/total_norm")) - 1), rtol, note="relative")
