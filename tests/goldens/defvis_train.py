"""DefVIS's training goldens: matches, losses and gradients, of the whole network and of given predictions."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from visdeploy_training.matching import match_one_to_one
from visdeploy_training.methods.defvis import VARIANTS, DefVIS, DefVISConfig, DefVISOutput
from visdeploy_training.methods.defvis.losses import (
    Matches,
    criterion,
    loss_weight,
    match_layers,
    matching_cost,
)
from visdeploy_training.methods.defvis.targets import ObjectTargets
from visdeploy_training.methods.defvis.weights import OFFICIAL

from .core import Store

LOSS_RTOL, LOSS_ATOL, NORM_RTOL, GRADIENT_RTOL, CRITERION_RTOL = 1e-3, 1e-5, 5e-3, 2e-3, 1e-3
NOISE = 1e-8


def read_targets(store: Store, config: DefVISConfig) -> ObjectTargets:
    """Read the objects, stored in rows `object * T + frame`."""
    frames = config.num_frames
    shape = tuple(store.take("target_masks_shape").tolist())
    masks = np.unpackbits(store.take("target_masks_bits"), axis=-1, count=shape[2]).astype(bool).reshape(shape)
    ids = torch.from_numpy(store.take("target_labels")).view(-1, frames)
    store.exact("target_valid", (ids > 0).flatten())
    boxes = torch.from_numpy(store.take("target_boxes")).view(-1, frames, 4)
    return ObjectTargets(ids, boxes, torch.from_numpy(masks).view(-1, frames, *shape[1:]))


def check_matches(store: Store, keys: tuple[str, str], match: Matches, config: DefVISConfig) -> None:
    """Compare the matched rows as sorted pairs, because their order has no meaning."""
    frames, slots = config.num_frames, config.slots
    source = match.slot * frames + match.frame if config.instance_groups else match.frame * slots + match.slot
    pairs = sorted(zip(source.tolist(), (match.object * frames + match.frame).tolist(), strict=True))
    stored = sorted(zip(*(store.take(k).tolist() for k in keys), strict=True))
    for key in keys:
        store.row(key, float(len(set(pairs) ^ set(stored)) + abs(len(pairs) - len(stored))), 0.0)


def logged(output: DefVISOutput, targets: ObjectTargets, matches: Sequence[Sequence[Matches]]) -> dict[str, Tensor]:
    """Compute from the matches the two values that the published code only logs."""
    last = len(matches) - 1
    values: dict[str, Tensor] = {}
    for layer in range(len(matches)):
        logits = output.logits[layer, 0]
        counted = (logits.argmax(dim=-1) != logits.shape[-1] - 1).sum()
        name = "cardinality_error" + ("" if layer == last else f"_{layer}")
        values[name] = (counted - targets.ids.numel()).abs().float()
    match = matches[last][0]
    right = output.logits[last, 0, match.slot, match.frame].argmax(dim=-1) == targets.ids[match.object, match.frame]
    values["class_error"] = 100 - 100 * right.float().sum() / max(1, right.numel())
    return values


def compare_losses(
    store: Store,
    prefix: str,
    output: DefVISOutput,
    targets: ObjectTargets,
    matches: Sequence[Sequence[Matches]],
    config: DefVISConfig,
) -> Tensor:
    """Compare every stored loss of one set of matches, and return the weighted sum."""
    losses = criterion(output, [targets], matches, config)
    total = torch.stack([loss_weight(name, config) * value for name, value in losses.items()]).sum()
    values = losses | logged(output, targets, matches) | {"total": total}
    for key in store.keys(rf"{prefix}/\w+"):
        name = key.removeprefix(f"{prefix}/")
        if name in values:
            store.close(key, values.pop(name), rtol=LOSS_RTOL, atol=LOSS_ATOL)
    store.row(f"{prefix}: losses of ours that are not stored", float(len(values)), 0.0)
    return total


def vistr_matches(output: DefVISOutput, targets: ObjectTargets, config: DefVISConfig) -> list[list[Matches]]:
    """Index as VisTR: the valid flags are those of the object with the number of the pair, not of the matched one."""
    found = []
    for logits, boxes in zip(output.logits, output.boxes, strict=True):
        slots, objects = match_one_to_one(matching_cost(logits[0], boxes[0], targets, config))
        pair, frame = targets.valid[: len(slots)].nonzero(as_tuple=True)
        found.append([Matches(slots[pair], objects[pair], frame)])
    return found


def check_losses(
    store: Store, details: Mapping[str, Any], model: DefVIS, output: DefVISOutput, *, gradients: bool
) -> None:
    """Compare the losses of the output of the network, and its gradients."""
    config = model.config
    check_weights(store, details["loss_weights"], config)
    targets = read_targets(store, config)
    matches = match_layers(output, [targets], config)
    check_matches(store, ("loss_match_src", "loss_match_tgt"), matches[-1][0], config)
    check_matches(store, ("loss_match_aux0_src", "loss_match_aux0_tgt"), matches[0][0], config)
    total = compare_losses(store, "loss", output, targets, matches, config)
    if gradients:
        total.backward(retain_graph=True)  # type: ignore[no-untyped-call]
        check_gradients(store, model)
    prefix = "loss_vistr_matcher"
    if f"{prefix}/total" in store:
        matches = vistr_matches(output, targets, config)
        check_matches(store, (f"{prefix}_match_src", f"{prefix}_match_tgt"), matches[-1][0], config)
        check_matches(store, (f"{prefix}_match_aux0_src", f"{prefix}_match_aux0_tgt"), matches[0][0], config)
        compare_losses(store, prefix, output, targets, matches, config)


def check_weights(store: Store, stored: Mapping[str, float], config: DefVISConfig) -> None:
    """Compare the weights of all losses that are computed."""
    wrong = [k for k, v in stored.items() if loss_weight(k, config) != v]
    store.row("loss weights", float(len(wrong)), 0.0)


def check_gradients(store: Store, model: DefVIS) -> None:
    names = store.take("grad_names").tolist()
    ours = {int(v): k for k, v in OFFICIAL.rename({n: torch.tensor(i) for i, n in enumerate(names)}).items()}
    parameters = {n: p for n, p in model.named_parameters() if p.requires_grad}
    store.row("grad_names", float(len(set(ours.values()) ^ set(parameters))), 0.0)
    found = {n: parameters[ours[i]].grad.double() for i, n in enumerate(names)}
    norms, stored = np.array([float(g.norm()) for g in found.values()]), store.take("grad_norms")
    total = float(np.sqrt((norms**2).sum()))
    # the first decoder layer's queries are all zero before its self-attention, so its weights have no gradient but
    # rounding: what is below this share of the whole must only be so here too
    noise = stored < NOISE * total
    store.row("grad_norms", float(np.abs(norms / stored - 1)[~noise].max()), NORM_RTOL, note="relative")
    store.row("grad_norms", float(norms[noise].max(initial=0)), NOISE * total, note=f"{noise.sum()} only rounding")
    store.row("grad_total_norm", abs(total / float(store.take("grad_total_norm")) - 1), NORM_RTOL, note="relative")
    # a mean is off by at most the norm of the difference over the root of the number of entries
    room = [float(n) / g.numel() ** 0.5 for n, g in zip(stored, found.values(), strict=True)]
    means = np.array([float(g.mean()) for g in found.values()])
    store.row("grad_means", float((np.abs(means - store.take("grad_means")) / room).max()), NORM_RTOL, note="of norm")
    for key in store.keys(r"grad/.*"):
        gradient = found[key.removeprefix("grad/")].flatten()
        wanted = store.arrays[key]
        store.close(key, gradient[: len(wanted)], atol=GRADIENT_RTOL * float(np.abs(wanted).max()))


def check_criterion(store: Store, case: Mapping[str, Any]) -> None:
    """Compare matcher and losses alone, on given predictions of all layers."""
    base = VARIANTS[f"{case['variant']}_r50"]
    config = dataclasses.replace(base, num_frames=case["num_frames"])
    if case["slots"] != config.slots or case["vistr_valid_indexing"]:
        raise SystemExit(f"the adapter does not know this criterion case: {case}")
    layers = range(config.decoder_layers)
    given = {
        name: torch.from_numpy(store.take(name)).requires_grad_()
        for name in ["pred_masks", *(f"{kind}_{i}" for i in layers for kind in ("logits", "boxes"))]
    }
    output = DefVISOutput(
        torch.stack([slots_of(given[f"logits_{i}"], config) for i in layers]),
        torch.stack([slots_of(given[f"boxes_{i}"], config) for i in layers]),
        slots_of(given["pred_masks"], config),
    )
    targets = read_targets(store, config)
    store.row("targets", float(abs(len(targets.ids) - case["targets"])), 0.0)
    matches = match_layers(output, [targets], config)
    for i in layers:
        check_matches(store, (f"match_src_{i}", f"match_tgt_{i}"), matches[i][0], config)
    compare_losses(store, "loss", output, targets, matches, config).backward()  # type: ignore[no-untyped-call]
    for name, value in given.items():
        key = f"grad_{name}"
        gradient = torch.zeros_like(value) if value.grad is None else value.grad
        limit = CRITERION_RTOL * float(np.abs(store.arrays[key]).max())
        store.close(key, gradient, atol=max(limit, 1e-12))


def slots_of(rows: Tensor, config: DefVISConfig) -> Tensor:
    """Convert the published rows `[B, S * T, ...]` to `[B, S, T, ...]`."""
    if config.instance_groups:
        return rows.unflatten(1, (config.slots, config.num_frames))
    return rows.unflatten(1, (config.num_frames, config.slots)).transpose(1, 2)
