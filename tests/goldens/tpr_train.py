"""TPR's training goldens: assignment, losses, mask logits, gradient norms."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from visdeploy_training.methods.tpr.blending import blend, crop_bases
from visdeploy_training.methods.tpr.losses import criterion, object_rows
from visdeploy_training.methods.tpr.output import STRIDES, TPROutput
from visdeploy_training.methods.tpr.targets import (
    PairTargets,
    Positives,
    assign,
    find_positives,
    side_distances,
)
from visdeploy_training.methods.tpr.weights import OFFICIAL

from .core import Golden, Store

SIZE_MULTIPLE, RADIUS = 32, 1.5
LTRB_ATOL = 1e-5
SAMPLES = 8
"""Computations of the gradients that measure the effect of rounding, that of the network itself included."""
MASK_LOGITS = "train/mask_logits_pos@c16"


def check_train(golden: Golden, store: Store, variant: Mapping[str, Any], model: Any) -> None:
    """One forward and backward of two pairs of different sizes.

    `variant` is the manifest, or its part for this variant; `model` has the seeded weights.
    """
    targets, clips = read_batch(store, len(variant["train_batch"]))
    positives = check_assignment(store, targets, (clips.shape[3], clips.shape[4]), model.config.num_classes)
    model.train()
    for module in model.modules():
        if hasattr(module, "rate"):  # drop path
            module.rate = 0.0
    output: TPROutput = model(clips)
    losses = criterion(output, targets, model.config)
    rtol = golden.tolerance["losses"]["rel"]
    for name, value in losses.items():
        store.close(f"train/loss/{name}", value.detach()[None], atol=0.0, rtol=rtol)
    total = torch.stack(list(losses.values())).sum()
    store.close("train/loss_total", total.detach()[None], atol=0.0, rtol=rtol)
    store.close("train/used_over_full_cost", output.used_cost.mean()[None], atol=0.0, rtol=rtol)
    check_mask_logits(store, output, targets, positives, model.config, maps_tolerance(golden, variant))
    total.backward()

    def samples() -> Iterator[dict[str, float]]:
        yield norms(model)
        for seed in range(SAMPLES - 1):
            nudged = nudge(model, seed)
            torch.stack(list(criterion(nudged(clips), targets, model.config).values())).sum().backward()
            yield norms(nudged)

    check_gradients(golden, store, variant, model, samples())


def norms(model: torch.nn.Module) -> dict[str, float]:
    """L2 norm of the gradient of every parameter that has one."""
    grads = {name: parameter.grad for name, parameter in model.named_parameters()}
    return {name: float(grad.double().norm()) for name, grad in grads.items() if grad is not None}


def nudge(model: torch.nn.Module, seed: int) -> Any:
    """Return a copy without gradients whose weights differ by up to four roundings of float32.

    Gates, samples at integer coordinates and ReLUs make some gradients jump: those of the offsets and gates differ by
    up to two tolerances between two float32 computations of the same network. Two implementations of a convolution
    differ by more than one rounding.
    """
    copied, generator = copy.deepcopy(model), torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in copied.parameters():
            parameter.grad = None
            parameter.mul_(1 + (torch.rand(parameter.shape, generator=generator) - 0.5) * 2**-20)
    return copied


def maps_tolerance(golden: Golden, variant: Mapping[str, Any]) -> float:
    """Largest difference of feature maps, as a fraction of their largest value."""
    family = "swin" if any("patch_embed" in each["name"] for each in variant["params"]) else "r50"
    return float(golden.tolerance[f"{family}_float_maps"]["max_abs_over_absmax"])


def read_batch(store: Store, count: int) -> tuple[list[PairTargets], torch.Tensor]:
    """Targets of the pairs, and their images as the network's input: BGR without the mean, padded."""
    mean = torch.tensor([103.53, 116.28, 123.675]).view(3, 1, 1)
    shapes = [store.take(f"train/target{i}/masks_shape").tolist()[1:] for i in range(count)]
    rows, columns = (-(-max(sides) // SIZE_MULTIPLE) * SIZE_MULTIPLE for sides in zip(*shapes, strict=True))
    clips, targets = [], []
    for i, (height, width) in enumerate(shapes):
        frames = [torch.from_numpy(store.take(f"train/target{i}/{n}_bgr_u8")) for n in ("query", "reference")]
        border = (0, columns - width, 0, rows - height)
        clips.append(F.pad(torch.stack(frames).float() - mean, border))
        targets.append(read_targets(store, f"train/target{i}", border, (height, width)))
    return targets, torch.stack(clips)


def read_targets(store: Store, key: str, border: tuple[int, ...], size: tuple[int, int]) -> PairTargets:
    """Targets of one pair; the stored positions in the reference must follow from the ids."""
    boxes, classes, references, pids = (
        torch.from_numpy(store.take(f"{key}/{name}")) for name in ("boxes", "classes", "ref_boxes", "gt_pids")
    )
    order = store.take(f"{key}/ref_instance_ids").tolist()
    places = [order.index(i) + 1 if i in order else 0 for i in store.take(f"{key}/instance_ids").tolist()]
    store.exact(f"{key}/gt_pids", np.array(places))
    packed = store.take(f"{key}/masks_packed")
    masks = np.unpackbits(packed, axis=1, count=size[0] * size[1]).reshape(-1, *size).astype(bool)
    return PairTargets(boxes, classes, F.pad(torch.from_numpy(masks), border), references, pids)


def check_assignment(store: Store, targets: list[PairTargets], size: tuple[int, int], background: int) -> Positives:
    """Labels of all locations, objects and distances of the positives; objects are counted over the batch."""
    shapes = [(-(-size[0] // stride), -(-size[1] // stride)) for stride in STRIDES]
    owners = assign(shapes, [t.boxes for t in targets], radius=RADIUS)
    found = find_positives(owners)
    labels, boxes = (torch.cat([getattr(t, name) for t in targets]) for name in ("labels", "boxes"))
    rows = object_rows(found, targets)
    distances = side_distances(found.points, boxes[rows]) / found.strides[:, None]
    for level, owner in enumerate(owners):
        here, key = found.level == level, f"train/assign/level{level}"
        place = (found.image[here], found.row[here], found.column[here])
        seen = torch.full_like(owner, background)
        seen[place] = labels[rows[here]]
        store.exact(f"{key}/labels", seen.flatten())
        # the stored index of background locations is arbitrary
        index = torch.from_numpy(store.take(f"{key}/gt_index_in_batch")).reshape(owner.shape).clone()
        index[place] = rows[here]
        store.exact(f"{key}/gt_index_in_batch", index.flatten())
        store.close(f"{key}/positive_ltrb_over_stride", distances[here], atol=LTRB_ATOL)
    return found


def check_mask_logits(
    store: Store, output: TPROutput, targets: list[PairTargets], found: Positives, config: Any, tolerance: float
) -> None:
    """Every 16th logit of the positives' masks; the statistics are those of the stored part."""
    with torch.no_grad():
        crops = crop_bases(output.bases, targets, config.mask_size)[object_rows(found, targets)]
        part = blend(crops, found.gather(output.attention), config).flatten(1)[:, ::16]
    mean, deviation, largest, count = store.take(f"stats/{MASK_LOGITS}").tolist()
    store.close(MASK_LOGITS, part, atol=tolerance * largest)
    wide = part.double()
    seen = np.array([float(wide.mean()), float(wide.std(correction=0)), float(wide.abs().max())])
    error = float(np.abs(seen - [mean, deviation, largest]).max())
    store.row(f"stats/{MASK_LOGITS}", error if wide.numel() == count else np.inf, tolerance * largest)


def check_gradients(
    golden: Golden, store: Store, variant: Mapping[str, Any], model: Any, samples: Iterable[dict[str, float]]
) -> None:
    """Norms of the gradients of all parameters; -1 is stored where there is none.

    Parameters that only the reference has, because they are unused, must have no gradient there. `samples` are norms by
    parameter, those of the network first; see `worst_norm`.
    """
    # conversion permutes elements, so that a tensor is recognised by a number in all of its elements
    official = list(golden.weights(details=variant).items())
    marked = {name: torch.full(value.shape, float(i)) for i, (name, value) in enumerate(official)}
    ours = {official[int(value.flatten()[0])][0]: name for name, value in OFFICIAL.rename(marked).items()}
    parameters = dict(model.named_parameters())
    names = store.take("train/grad/names").tolist()
    stored = dict(zip(names, store.take("train/grad/l2").astype(np.float64).tolist(), strict=True))
    trained = dict(zip(names, store.take("train/grad/requires_grad").tolist(), strict=True))
    known = {name: parameters.pop(ours[name]) for name in names if ours.get(name) in parameters}
    wrong = [name for name, parameter in known.items() if parameter.requires_grad != bool(trained[name])]
    extra = [name for name, parameter in parameters.items() if parameter.requires_grad]
    store.row("train/grad/names", float(len(extra)), 0.0)
    store.row("train/grad/requires_grad", float(len(wrong)), 0.0)
    named = ({name: sample.get(ours.get(name, ""), -1.0) for name in names} for sample in samples)
    name, excess = worst_norm(stored, named, golden.tolerance["grad_l2"])
    store.row("train/grad/l2", excess, 1.0, note=f"of tolerance, most for {name}")


def worst_norm(
    stored: Mapping[str, float], samples: Iterable[Mapping[str, float]], tolerance: Mapping[str, float]
) -> tuple[str, float]:
    """Return the parameter whose norm differs most, and its difference as a multiple of what is allowed.

    Gradients jump where a gate, a ReLU or a sample at an integer coordinate is close to its threshold, and rounding
    decides on which side it is. The recorded norm is one computation in float32, ours is another: two draws of the same
    distribution, of which `samples` are further draws. The range of a few draws does not contain the next one with
    certainty: each draw of the network itself that was held out as if it were the recording differed from the first one
    by up to 1.5 of the tolerance plus the range of four, and by up to 1.03 with the range of eight. Twice the range of
    eight leaves a margin. The recordings then differ by 0.71 and 0.45 of the limit, and 12 of 13 held-out draws by at
    most 0.70; in the other, a gate switched that was switched in no other draw. If that happens to our own network, it
    is part of the range.

    The limit of a norm is 0.2 % of it for the median parameter of the ResNet and 0.9 % at most. The Swin Transformer
    has larger activations: the limit is 1.3 % for the median parameter, and some gates, whose gradients nearly cancel,
    are hardly checked. Without the gradient of the budget, 7 parameters of the ResNet exceed the limit by up to 3
    times, and 11 of the Swin Transformer by up to 44 times; without that of the reference frame, 50 and 79 parameters
    exceed it, by up to 40 and 31 times.

    More draws only widen the range. They are therefore taken only while a norm exceeds its limit.

    Args:
        stored: Recorded norm of each parameter; negative without a gradient.
        samples: The same of our network, then of networks that differ from it by rounding.
        tolerance: Fields `rel`, a fraction of the recorded norm, and `abs`.
    """
    drawn: list[Mapping[str, float]] = []
    worst = ("", np.inf)
    for sample in samples:
        drawn.append(sample)
        excess = {}
        for name, norm in stored.items():
            several = [each[name] for each in drawn]
            limit = tolerance["abs"] + tolerance["rel"] * max(norm, 0.0) + 2 * (max(several) - min(several))
            excess[name] = abs(max(several[0], 0.0) - max(norm, 0.0)) / limit
        worst = max(excess.items(), key=lambda item: item[1])
        if worst[1] <= 1:
            break
    return worst[0], float(worst[1])
