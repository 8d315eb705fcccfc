"""TeViT's training goldens: matching, losses, gradients and the statistics of the mask heads."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from visdeploy.streaming.preprocessing import Preprocessor
from visdeploy_training.methods.tevit import TeViT, TeViTOutput
from visdeploy_training.methods.tevit.inference import inference_settings
from visdeploy_training.methods.tevit.losses import (
    Matches,
    criterion,
    mask_targets,
    match_stages,
    matching_cost,
    positives,
    truths,
)
from visdeploy_training.methods.tevit.targets import ObjectTargets

from .core import Store
from .seeded import seeded_frames
from .tevit_clip import stage

LOSS_RTOL, MASK_BITS, NORM_RTOL, NORM_SHARE = 1e-4, 5e-3, 1e-2, 1e-3
LOSS_ATOL = 1e-6  # the accuracy may be 0


def check_training(store: Store, details: Mapping[str, Any], model: TeViT) -> None:
    """Compare one forward and backward pass of two clips of different sizes."""
    config = model.config
    clips, sizes, shapes = read_clips(store, details, model)
    targets = [read_targets(store, i, details["clip_length"], clips.shape[3:]) for i in range(details["num_clips"])]
    model.train()
    for module in model.backbone.modules():
        if hasattr(module, "rate"):
            module.rate = 0.0
    output: TeViTOutput = model.forward_padded(clips, sizes)
    store.exact("train/img_shape", np.array([[int(s[1]), int(s[0]), 3] for s in output.sizes]))
    store.exact("train/pad_shape", np.array([[*clip, 3] for clip in shapes]))
    asked: dict[int, Tensor] = {}

    def masks(number: int, images: Tensor, queries: Tensor) -> Tensor:
        asked[number] = output.masks(number, images, queries)
        return asked[number]

    matches = match_stages(output, targets, config)
    losses = criterion(output._replace(masks=masks), targets, matches, config)
    for i, found in enumerate(matches):
        check_stage(store, i, output, targets, found, asked[i], config)
    total = torch.stack(list(losses.values())).sum()
    values = {name: float(value.detach()) for name, value in losses.items()} | accuracies(output, targets, matches)
    wanted = [values[name] for name in details["loss_names"]]
    store.close("train/loss_values", np.array(wanted), atol=LOSS_ATOL, rtol=LOSS_RTOL)
    store.close("train/loss_total", total[None], atol=0.0, rtol=LOSS_RTOL)
    store.row("losses", float(len(values.keys() ^ set(details["loss_names"]))), 0.0)
    total.backward()  # type: ignore[no-untyped-call]
    check_gradients(store, details["grad_param_names"], model)
    for key in store.keys(r"train/after/.*"):
        stage(store, key, model.roi_head.get_buffer(key.removeprefix("train/after/")))


def read_clips(store: Store, details: Mapping[str, Any], model: TeViT) -> tuple[Tensor, Tensor, list[tuple[int, int]]]:
    """Read both clips, padded to one size, `[B, T, 3, H, W]`, rows and columns of their content, and of the batch."""
    found, sizes = [], []
    for clip in details["clips"]:
        longest, shortest = clip["resize_long_short"]
        config = dataclasses.replace(model.config, longest_edge=longest, shortest_edge=shortest)
        process = Preprocessor(inference_settings(config).preprocessing)
        video = seeded_frames(clip["name"], clip["num_frames"], clip["height"], clip["width"])
        found.append(torch.from_numpy(np.concatenate([process(frame) for frame in video])))
        sizes.append(process.content_size(clip["height"], clip["width"]))
    shapes = [(x.shape[2], x.shape[3]) for x in found]
    rows, columns = (max(shape[axis] for shape in shapes) for axis in (0, 1))
    clips = torch.zeros(len(found), details["clip_length"], 3, rows, columns)
    for clip, (height, width), x in zip(clips, shapes, found, strict=True):
        clip[..., :height, :width] = x
    stage(store, "train/input", clips)
    return clips, torch.tensor(sizes), shapes


def read_targets(store: Store, clip: int, frames: int, size: Sequence[int]) -> ObjectTargets:
    """Read the objects in ascending order of id; masks are stored without the padding to the size of the other clip."""

    def take(frame: int, name: str) -> np.ndarray:
        return store.take(f"train/target/clip{clip}/frame{frame}/{name}")

    ids = [take(t, "ids").tolist() for t in range(frames)]
    order = sorted({i for each in ids for i in each})
    labels = torch.zeros(len(order), frames, dtype=torch.int64)
    present = torch.zeros(len(order), frames, dtype=torch.bool)
    boxes, masks = torch.zeros(len(order), frames, 4), torch.zeros(len(order), frames, *size, dtype=torch.bool)
    for t, here in enumerate(ids):
        rows = [order.index(i) for i in here]
        labels[rows, t] = torch.from_numpy(take(t, "labels").astype(np.int64))
        boxes[rows, t] = torch.from_numpy(take(t, "boxes").astype(np.float32))
        present[rows, t] = True
        key = f"train/target/clip{clip}/frame{t}/masks_packed"
        width = store.golden.manifest["arrays"][store.file][key]["unpacked_shape"][2]
        stored = np.unpackbits(store.take(key), axis=-1, count=width).astype(bool)
        masks[rows, t, : stored.shape[1], :width] = torch.from_numpy(stored)
    return ObjectTargets(labels, present, boxes, masks)


def check_stage(
    store: Store,
    number: int,
    output: TeViTOutput,
    targets: Sequence[ObjectTargets],
    matches: Sequence[Matches],
    masks: Tensor,
    config: Any,
) -> None:
    """Compare costs, assignments, mask targets and predictions of one stage."""
    name = f"train/stage{number}"
    logits, boxes = output.logits[number], output.boxes[number]
    stage(store, f"{name}/cls_logits", logits.flatten(0, 1))
    stage(store, f"{name}/mask_logits", masks)
    for clip, target in enumerate(targets):
        cost = matching_cost(logits[clip], boxes[clip], output.sizes[clip], target, config)
        stage(store, f"{name}/match_cost_clip{clip}", cost)
    assigned = np.zeros(logits.shape[:3], np.int64)
    for clip, (target, match) in enumerate(zip(targets, matches, strict=True)):
        place = places(store, clip, target)
        assigned[clip, match.frame, match.query] = place[match.object, match.frame]
    store.exact(f"{name}/assigned_gt_inds_1based", assigned.reshape(-1, assigned.shape[2]))
    cut = mask_targets(truths("masks", targets, matches), positives(boxes, matches).detach()).numpy()
    stored = np.unpackbits(store.take(f"{name}/mask_targets_packed"), axis=-1, count=cut[0].size).astype(bool)
    store.row(f"{name}/mask_targets_packed", float((stored.reshape(cut.shape) != cut).sum()), MASK_BITS * cut.size)


def places(store: Store, clip: int, target: ObjectTargets) -> Tensor:
    """Return the index of every object among the targets of each frame, from 1: `[K, T]`, 0 where it is absent."""
    ids = [store.arrays[f"train/target/clip{clip}/frame{t}/ids"].tolist() for t in range(target.present.shape[1])]
    order = sorted({i for each in ids for i in each})
    return torch.tensor([[each.index(i) + 1 if i in each else 0 for each in ids] for i in order])


def accuracies(
    output: TeViTOutput, targets: Sequence[ObjectTargets], matches: Sequence[Sequence[Matches]]
) -> dict[str, float]:
    """Return the share of positives whose best class is correct, in percent, which the published code only logs."""
    found = {}
    for i, stage_matches in enumerate(matches):
        best = positives(output.logits[i], stage_matches).argmax(dim=1)
        right = (best == truths("labels", targets, stage_matches)).float().mean()
        found[f"stage{i}_pos_acc"] = float(100 * right)
    return found


def check_gradients(store: Store, names: Sequence[str], model: TeViT) -> None:
    parameters = dict(model.named_parameters())
    store.row("train/grad_norms", float(len(set(names) ^ set(parameters))), 0.0, note="names")
    norms = np.array([float(parameters[n].grad.double().norm()) for n in names])
    stored = store.take("train/grad_norms").astype(np.float64)
    large = stored > NORM_SHARE * stored.max()
    relative = np.abs(norms / np.maximum(stored, 1e-30) - 1)
    store.row("train/grad_norms", float(relative[large].max()), NORM_RTOL, note="relative")
    store.row("train/grad_norms", float(np.abs(norms - stored)[~large].max()), NORM_RTOL * NORM_SHARE * stored.max())
    total = float(np.sqrt((norms**2).sum()))
    stored_total = float(store.take("train/grad_norm_total").item())
    store.row("train/grad_norm_total", abs(total / stored_total - 1), NORM_RTOL, note="relative")
