"""Golden data of VISOLO: clips, training, post-processing cases, tracker cases."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from visdeploy.manifest import Window
from visdeploy.methods.visolo import VisoloDecoder, suppress_overlaps
from visdeploy_training.methods.visolo import VARIANTS, VISOLO, VISOLOConfig
from visdeploy_training.methods.visolo.postprocess import candidates, select
from visdeploy_training.methods.visolo.weights import OFFICIAL

from .core import Golden, StateDict, Store
from .visolo_clip import check_clip
from .visolo_train import check_train

FIELDS = {
    "NUM_CLASSES": ("num_classes", int),
    "GRID_NUM": ("grid", tuple),
    "TRACKING_THR": ("tracking_threshold", float),
    "SCORE_THR": ("score_threshold", float),
    "MASK_THR": ("mask_threshold", float),
    "UPDATE_THR": ("update_threshold", float),
    "KERNEL": ("nms_kernel", str),
    "SIGMA": ("nms_sigma", float),
    "NMS_PRE": ("nms_pre", int),
    "MASK_WEIGHT": ("mask_weight", float),
    "FOCAL_LOSS_ALPHA": ("focal_alpha", float),
    "FOCAL_LOSS_GAMMA": ("focal_gamma", float),
    "DICE_LOSS_EPS": ("dice_eps", float),
    "SAMPLING_EPS": ("sampling_eps", float),
    "PIXEL_MEAN": ("pixel_mean", tuple),
    "PIXEL_STD": ("pixel_std", tuple),
    "FREEZE_AT": ("freeze_at", int),
}
FIXED = {"INDIM": 1024, "NORM": "GN", "FORMAT": "RGB"}
KNOWN = {*FIELDS, *FIXED, "OUTDIM", "BACKBONE"}


def configure(manifest: Mapping[str, Any], values: Mapping[str, Any]) -> VISOLOConfig:
    """Return the manifest's configuration as ours; what this port cannot do is an error, not ignored."""
    unknown = set(values) - KNOWN
    wrong = {k: values[k] for k, v in FIXED.items() if values.get(k, v) != v}
    if unknown or wrong:
        raise SystemExit(f"the manifest asks for what the adapter does not know: {unknown or wrong}")
    shapes = {p["name"]: p["shape"] for p in manifest["params"]}
    changes = {ours: kind(values[theirs]) for theirs, (ours, kind) in FIELDS.items() if theirs in values}
    width = int(values.get("OUTDIM", 256))
    track_dim = shapes["model.Tracking_branch.track_Q_conv2.weight"][0]
    return dataclasses.replace(VARIANTS["r50"], head_width=width, mask_width=width, track_dim=track_dim, **changes)


def network(golden: Golden, config: VISOLOConfig) -> VISOLO:
    """Return our network with the seeded weights, renamed in the same way as an official checkpoint."""

    def resize(name: str, shape: tuple[int, ...]) -> tuple[int, ...]:
        classes = name.removeprefix("model.") in OFFICIAL.class_tensors
        return (config.num_classes, *shape[1:]) if classes else shape

    state: StateDict = golden.weights(resize)
    aliases = golden.manifest.get("aliases", {})
    for alias, name in aliases.items():
        state |= {alias + k.removeprefix(name): v for k, v in state.items() if k.startswith(name)}
    model = VISOLO(config)
    model.load_state_dict(OFFICIAL.rename(state), strict=True)
    return model.eval()


def run(golden: Golden) -> None:
    manifest = golden.manifest
    for clip in manifest.get("clips", []):
        if (store := golden.open(clip["file"])) is not None:
            config = configure(manifest, clip.get("config", manifest["config"]))
            # where the bounded memory of the product equals the unbounded one
            slots = max(config.memory_slots, (clip["num_frames"] - 4) // 5 + 3)
            config = dataclasses.replace(config, memory_slots=slots)
            check_clip(store, clip, network(golden, config))
            golden.close(store)
    train = manifest.get("train")
    if train and (store := golden.open(train["file"])) is not None:
        values = {**train.get("config", manifest["config"]), "NUM_CLASSES": train["num_classes"]}
        check_train(store, train, network(golden, configure(manifest, values)))
        golden.close(store)
    config = configure(manifest, manifest["config"])
    for file, check in (("postprocess_cases.npz", check_postprocess), ("tracker_cases.npz", check_tracker)):
        if (store := golden.open(file, cases=True)) is not None:
            for case in sorted({k.split("/")[0] for k in store.arrays}):
                check(store, case, config)
            golden.close(store)


@torch.no_grad()
def check_postprocess(store: Store, case: str, config: VISOLOConfig) -> None:
    """Check the post-processing alone, on synthetic maps."""
    limits = store.golden.tolerance["postprocess_cases"]
    values = json.loads(str(store.take(f"{case}/params_json")))
    config = dataclasses.replace(config, **_case_options(values))
    maps = {k: torch.from_numpy(store.take(f"{case}/pred_{k}")) for k in ("masks", "kernels", "cats")}
    scores = maps["cats"].flatten(1).T
    weight = torch.ones(scores.shape[0])
    if f"{case}/grid_weight" in store:
        weight = torch.from_numpy(store.take(f"{case}/grid_weight")).flatten()
    cells, _, masks, ranked = candidates(scores, maps["kernels"].flatten(1), maps["masks"], weight, config)
    if f"{case}/nms_in_label" in store:
        real = ranked.real
        empty = ranked.empty[real]
        areas = ranked.intersections.diagonal()[real]
        void = empty | (empty.sum() >= 2)
        store.exact(f"{case}/nms_in_label", ranked.labels[real])
        store.close(f"{case}/nms_in_area", areas, atol=limits["mask_pixels_per_mask"])
        score = torch.where(empty, torch.nan, ranked.scores[real])
        store.close(f"{case}/nms_in_score", score, atol=limits["scores_atol"])
        decayed = torch.where(void, torch.nan, ranked.decayed[real])
        store.close(f"{case}/nms_out_score", decayed, atol=limits["scores_atol"])
    rows, score = select(ranked, config)
    overlaps = ranked.intersections[rows][:, rows]
    kept = torch.from_numpy(suppress_overlaps(overlaps.numpy(), config.overlap_threshold))
    store.exact(f"{case}/is_none", bool(len(kept) == 0))
    if f"{case}/label" in store:
        source = ranked.source[rows][kept]
        store.exact(f"{case}/label", ranked.labels[rows][kept])
        store.exact(f"{case}/cell", cells[source])
        store.close(f"{case}/score", score[kept], atol=limits["scores_atol"])
        store.masks(f"{case}/masks", masks[source], per_mask=limits["mask_pixels_per_mask"])


def _case_options(values: Mapping[str, Any]) -> dict[str, Any]:
    names = {
        "score_thr": "score_threshold", "mask_thr": "mask_threshold", "update_thr": "update_threshold",
        "kernel": "nms_kernel", "sigma": "nms_sigma", "nms_pre": "nms_pre",
    }  # fmt: skip
    unknown = set(values) - set(names)
    if unknown:
        raise SystemExit(f"unknown options of a post-processing case: {unknown}")
    return {names[k]: v for k, v in values.items()}


def check_tracker(store: Store, case: str, config: VISOLOConfig) -> None:
    """Check tracking and class decision alone, with the decoder of the runtime and given detections."""
    limits = store.golden.tolerance["tracker_cases"]
    query, reference = store.take(f"{case}/q"), store.take(f"{case}/r")
    frames = int(store.take(f"{case}/T"))
    height, width = (int(v) for v in store.take(f"{case}/mask_shape"))
    presence: list[tuple[int, int]] = []
    vectors = [store.arrays[k] for t in range(frames) if (k := f"{case}/f{t}/class_scores") in store]
    classes = [f"c{i}" for i in range(vectors[0].shape[1] if vectors else 1)]
    tracking = {"affinity_threshold": config.tracking_threshold}
    decoder = VisoloDecoder(classes, window=Window(mode="online"), decode={}, tracking=tracking, keep_tracks=True)
    for t in range(frames):
        frame = f"{case}/f{t}"
        count = int(store.take(f"{frame}/count"))
        cells, scores = np.zeros(0, np.int64), np.zeros((0, len(classes)), np.float32)
        masks = np.zeros((0, height, width), np.uint8)
        if count:
            cells = store.take(f"{frame}/cell")
            scores = store.take(f"{frame}/class_scores")
            packed = store.take(f"{frame}/masks")
            masks = np.unpackbits(packed, axis=1, count=height * width).reshape(count, height, width)
            # the label and score of single frames do not affect tracks
            store.take(f"{frame}/label"), store.take(f"{frame}/score")
        outputs = {
            "masks": masks, "overlaps": np.diag(np.ones(count, np.float32)), "cells": cells, "class_scores": scores,
            "query": query[t][cells].astype(np.float32), "reference": reference[t][cells].astype(np.float32),
        }  # fmt: skip
        decoder.step(outputs, index=t, timestamp=0.0, height=height, width=width)
        found = decoder.last.association
        if count:
            store.exact(f"{frame}/track_id", found.track_ids)
        presence += [(int(i), t) for i in found.track_ids]
        store.exact(f"{frame}/lost_before_append", found.lost.reshape(-1, 3))
        store.exact(f"{frame}/num_tracks", found.num_tracks)
    tracks = decoder.summaries()
    store.exact(f"{case}/is_none", not tracks)
    if tracks:
        dense = np.zeros((len(tracks), frames), bool)
        dense[tuple(np.array(presence).T)] = True
        store.close(f"{case}/final_scores", np.array([t.score for t in tracks]), atol=limits["final_scores_atol"])
        store.exact(f"{case}/final_labels", np.array([t.label for t in tracks]))
        store.exact(f"{case}/final_presence", dense)
