"""Golden data of TPR's clips in the network: every stage of a frame, from the backbone to the detections."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from visdeploy_training.methods.tpr import TPR
from visdeploy_training.methods.tpr.detect import attention_at, candidates, suppress
from visdeploy_training.methods.tpr.head import Predictions
from visdeploy_training.methods.tpr.output import STRIDES

from .core import Store
from .recording import Recorder

ALIGN = "temporal_align"
LEVELS = [f"p{i + 3}" for i in range(len(STRIDES))]


def compare(store: Store, name: str, value: Tensor, *, atol: float = 0.0, of_largest: float = 0.0) -> None:
    """Compare a full tensor with an array that may be stored in part (`@cK`, `@hwK`) or not at all.

    Args:
        store: The recording.
        name: Name without the suffix of a part.
        value: The full tensor.
        atol: Largest difference.
        of_largest: The same as a fraction of the largest recorded value.
    """
    for key in store.keys(re.escape(name) + r"(@(c|hw)\d+)?"):
        suffix = key[len(name) :]
        part = _part(value, suffix)
        recorded, whole = store.arrays.get(f"stats/{name}"), value
        if recorded is None and f"stats/{key}" in store:
            recorded, whole = store.arrays[f"stats/{key}"], part
        largest = float(np.abs(store.arrays[key]).max(initial=0.0) if recorded is None else recorded[2])
        limit = atol or of_largest * max(largest, 1e-6)
        store.close(key, part, atol=limit)
        for stats in {f"stats/{name}", f"stats/{key}"} & store.unused:
            wide = whole.detach().double()
            seen = [wide.mean(), wide.std(correction=0), wide.abs().max(), wide.numel()] if wide.numel() else [0.0] * 4
            store.close(stats, np.array([float(each) for each in seen]), atol=limit)


def _part(value: Tensor, suffix: str) -> Tensor:
    match = re.fullmatch(r"@(c|hw)(\d+)", suffix)
    if match is None:
        return value
    step = int(match[2])
    if match[1] == "hw":
        return value[..., ::step, ::step]
    return value[:, ::step] if value.dim() > 1 else value[::step]


def check_stages(
    store: Store, t: int, model: TPR, frame: Tensor, pyramid: Sequence[Tensor], recorder: Recorder, of_largest: float
) -> None:
    """Compare everything from the input to the heads.

    Args:
        store: The recording.
        t: Frame.
        model: The network.
        frame: Its input.
        pyramid: Aligned pyramid of the frame.
        recorder: What its modules took and gave.
        of_largest: Largest difference of a map, as a fraction of its largest value.
    """
    values = {"net_input": frame}
    maps = recorder.values["backbone.bottom_up"]
    stage = "stage" if model.config.swin else "res"
    values |= {f"bottom_up/{stage}{i}": maps[f"res{i}"] for i in range(2, 6) if f"res{i}" in maps}
    plain = model.backbone(frame, finest=True)
    values |= {f"fpn/p{i}": level for i, level in enumerate(plain, start=len(LEVELS) + 3 - len(plain))}
    values["bases"] = recorder.values["basis_module"]
    assert model.track_head is not None
    values["track_map"] = model.track_head(pyramid)
    predictions: Predictions = recorder.values["proposal_generator.fcos_head"]
    for i, level in enumerate(LEVELS):
        key = f"fcos/{level}"
        values[f"{key}/cls_logits"], values[f"{key}/ltrb_in_strides"] = (each[i] for each in predictions[:2])
        values[f"{key}/centerness"] = predictions.centreness[i]
        values[f"{key}/top_feats"] = model.top_layer(predictions.towers[i])
    if t:
        values |= {f"aligned/{level}": pyramid[i] for i, level in enumerate(LEVELS)}
        values |= dict(_alignment(recorder))
        values |= dict(_routing(recorder, model))
        for i, level in enumerate(LEVELS):
            for block in (1, 2):
                gate = _nth(recorder, f"{ALIGN}.align_tower.{block}.gate", i)
                active = np.array([int((gate > 0).sum()), gate.numel()])
                store.exact(f"f{t}/dacr/{level}/bottleneck{block}_active", active)
    for name, value in values.items():
        compare(store, f"f{t}/{name}", value, of_largest=of_largest)
    _check_candidates(store, t, model, predictions)


def _nth(recorder: Recorder, name: str, call: int) -> Tensor:
    return torch.as_tensor(recorder.values[f"{name}#{call}" if call else name])


def _alignment(recorder: Recorder) -> Iterator[tuple[str, Tensor]]:
    """Yield the stages of the alignment of every level; its modules are called once for each."""
    tower = f"{ALIGN}.align_tower"
    named = {
        "offset_gen": f"{ALIGN}.offset_gen",
        "fuse2_1_ref": f"{ALIGN}.fuse2_1",
        "fuse2_2_query": f"{ALIGN}.fuse2_2",
        "tower0_offset_raw": f"{tower}.0.offset",
        "tower0_dcn1x1": f"{tower}.0",
        "tower1_bottleneck": f"{tower}.1",
        "tower2_bottleneck": f"{tower}.2",
        "bottleneck1_gate": f"{tower}.1.gate",
        "bottleneck2_gate": f"{tower}.2.gate",
    }
    for i, level in enumerate(LEVELS):
        key = f"dacr/{level}"
        for name, module in named.items():
            yield f"{key}/{name}", _nth(recorder, module, i)
        outer = _nth(recorder, f"{ALIGN}.gate", i).sigmoid()
        yield f"{key}/outer_gate", outer
        query = _aligned_query(recorder, i)
        yield f"{key}/aligned_feature", outer * query + (1 - outer) * _nth(recorder, f"{tower}.2", i)


def _aligned_query(recorder: Recorder, level: int) -> Tensor:
    """Return the second half of the input of the offsets: the map of the current frame before its alignment."""
    name = f"{ALIGN}.offset_gen"
    joined: Tensor = recorder.values[f"{name}#{level}/input" if level else f"{name}/input"]
    return joined[:, joined.shape[1] // 2 :]


def _routing(recorder: Recorder, model: TPR) -> Iterator[tuple[str, Tensor]]:
    """Yield the results of every routing layer, and the gated parts of the first one."""
    for i, depth in enumerate(model.config.cpr_depths):
        for j in range(depth):
            found = recorder.values[f"{ALIGN}.fuse_subnets.{i}.{j}"]
            for position, level in enumerate(found):
                yield f"cpr/subnet{i}/layer{j}/out{position}", level
    if model.config.cpr == "sepc":
        return
    first, levels = f"{ALIGN}.fuse_subnets.0.0", len(LEVELS)
    for position in range(levels):
        gate = _nth(recorder, f"{first}.depth_module.gate", position)
        yield f"cpr/subnet0/layer0/depth_gate/lvl{position}", gate
    # the first branch carries a level to the next coarser one, the second branch to the next finer one
    for branch, source in ((0, range(levels - 1)), (1, range(1, levels))):
        name = f"{first}.dynamic_convs.{branch}"
        for call, position in enumerate(source):
            yield f"cpr/subnet0/layer0/dynconv{branch}/in{position}", _nth(recorder, name, call)
    # each branch has one level that nothing reads; the published implementation computes it all the same
    for branch, position, other in ((0, levels - 1, 1), (1, 0, 0)):
        name = f"{first}.dynamic_convs.{other}"
        call = levels - 2 if branch == 0 else 0
        unread = recorder.values[f"{name}#{call}/input" if call else f"{name}/input"]
        module = model.get_submodule(f"{first}.dynamic_convs.{branch}")
        yield f"cpr/subnet0/layer0/dynconv{branch}/in{position}", module(unread)


def _check_candidates(store: Store, t: int, model: TPR, predictions: Predictions) -> None:
    """Compare the candidates before the suppression, and where the remaining ones come from."""
    limits, config = store.golden.tolerance, model.config
    every = candidates(predictions, config)
    order = every.scores.argsort(descending=True, stable=True)
    store.exact(f"f{t}/pre_nms/count", np.array([len(order)]))
    pre = f"f{t}/pre_nms"
    compare(store, f"{pre}/boxes_by_score", every.boxes[order], atol=limits["boxes"]["abs_pixels"])
    compare(store, f"{pre}/scores_by_score", every.scores[order], atol=limits["scores"]["abs"])
    if f"{pre}/classes_by_score" in store:
        store.exact(f"{pre}/classes_by_score", every.labels[order])
    found = suppress(every, config)
    shapes = [logits.shape[2:] for logits in predictions.class_logits]
    ends = np.cumsum([rows * columns for rows, columns in shapes])
    location = found.cells.numpy() // config.num_classes
    level = np.searchsorted(ends, location, side="right")
    store.exact(f"f{t}/det/fpn_levels", level)
    index = location - (np.concatenate([[0], ends])[level])
    columns, stride = np.array([s[1] for s in shapes])[level], np.array(STRIDES)[level]
    points = np.stack([index % columns * stride + stride // 2, index // columns * stride + stride // 2], axis=1)
    compare(store, f"f{t}/det/locations", torch.from_numpy(points.astype(np.float32)), atol=1e-6)
    top = model.top_layer
    attention = attention_at(predictions.towers, found, top.weight, top.bias)
    compare(store, f"f{t}/det/top_feat", attention, of_largest=limits["r50_float_maps"]["max_abs_over_absmax"] * 10)


def check_detections(store: Store, t: int, outputs: Mapping[str, Tensor]) -> None:
    """Compare the detections of the exported step."""
    limits, key = store.golden.tolerance, f"f{t}/det"
    compare(store, f"{key}/boxes_network", outputs["boxes"], atol=limits["boxes"]["abs_pixels"])
    compare(store, f"{key}/scores", outputs["scores"], atol=limits["scores"]["abs"])
    store.exact(f"{key}/classes", outputs["labels"].numpy())
    compare(store, f"{key}/mask_prob", outputs["masks"][:, None], atol=limits["mask_prob"]["abs"])
    largest = limits["swin_float_maps"]["max_abs_over_absmax"]
    compare(store, f"{key}/embeddings", outputs["embeddings"], of_largest=largest)
