"""VIShv's networks stage by stage: input, backbone, heads of every window, and the inputs of the decoder."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from visdeploy_training.methods.vishv import ClipStep, VIShv
from visdeploy_training.methods.vishv.embedding import flow_input

from .core import Store
from .recording import Recorder
from .seeded import seeded_frames
from .vishv_clusters import window_frames
from .vishv_tracks import check_clip, new_decoder, preprocessor

LAYERS = ("block_32x", "conv_16", "conv_8", "conv_4", "conv_embedding", "conv_variance")
MARGINS = [0, 10, 100]
"""Ranks of the pixels whose foreground probability is closest to one half."""
Sizes = Mapping[str, Any]


def network_input(clip: Sizes, frames: int, sizes: Sizes, config: Mapping[str, Any], pad: int = 32) -> Tensor:
    """Frames of a seeded clip, preprocessed by the runtime, `[T, 3, H, W]`."""
    images = seeded_frames(clip["name"], frames, clip["H"], clip["W"])
    mean, std = (config["INPUT"][key] for key in ("IMAGE_MEAN", "IMAGE_STD"))
    prepare = preprocessor(sizes, mean=mean, std=std, pad=pad)
    return torch.from_numpy(np.concatenate([prepare(image) for image in images]))


def scaled_size(height: int, width: int, sizes: Sizes) -> tuple[int, int]:
    """Height and width of a frame whose shorter side becomes `min_dim`, the longer one at most `max_dim`."""
    return preprocessor(sizes).content_size(height, width)


def close(store: Store, key: str, value: Any, limit: Mapping[str, float]) -> None:
    """Compare with a stored array that has every 2nd, 4th, 8th ... element of some axes."""
    full, stored = tuple(value.shape), store.arrays[key].shape
    steps = {str(i): _step(a, b) for i, (a, b) in enumerate(zip(full, stored, strict=True))}
    store.subsample = {**store.subsample, key: steps}
    store.close(key, value, **limit)


def _step(full: int, stored: int) -> int:
    return next((step for step in (1 << i for i in range(12)) if -(-full // step) == stored), 1)


@torch.no_grad()
def check_stages(store: Store, config: Mapping[str, Any], clip: Sizes, model: VIShv) -> None:
    """Compare the network on a clip, then everything that the runtime computes from its outputs."""
    name, tolerance = clip["name"], store.golden.tolerance
    resize = bool(clip.get("resize_embeddings"))
    model.config = replace(model.config, window=clip["window_length"], resize_embeddings=resize)
    frames = network_input(clip, clip["T"], clip, config)
    close(store, f"{name}/input_frame0", frames[0], tolerance["backbone"])
    close(store, f"{name}/input_last", frames[-1], tolerance["backbone"])
    check_backbone(store, name, model, frames)
    step, outputs = ClipStep(model).eval(), {}
    names = {f"embedding_head.{layer}" for layer in LAYERS} | {
        part for part in ("embedding_head", "offset_decoder", "semseg_head") if getattr(model, part) is not None
    }
    decoder = new_decoder(config, clip)
    for number, (window, _) in enumerate(window_frames(clip["T"], decoder.window)):
        with Recorder(model, names) as recorder:
            found = step(frames[window])
        arrays = {key: value.numpy() for key, value in zip(step.output_names, found, strict=True)}
        outputs[tuple(window)] = arrays
        check_window(store, f"{name}/win{number}", window, recorder.values, arrays, model)
    check_margin(store, name, outputs)
    # What follows from the outputs is compared by `vishv_tracks`, which takes these keys: fg_mask, fg_prob,
    # category_logits, argmax, track_*, png, and of each window cluster_*, associations*, unmatched_*.
    check_clip(store, config, clip, lambda window: outputs[tuple(window)])


def check_backbone(store: Store, name: str, model: VIShv, frames: Tensor) -> None:
    """Compare the stages and the pyramid of the frames that are stored."""
    limit = store.golden.tolerance["backbone"]
    stages = {"stem": "stem", **{f"layer{i}": f"res{i + 1}" for i in range(1, 5)}}
    keys = store.keys(rf"{re.escape(name)}/frame\d+/\w+")
    for number in sorted({int(key.split("/frame")[1].split("/")[0]) for key in keys}):
        with Recorder(model, {f"backbone.body.{stage}" for stage in stages.values()}) as recorder:
            levels = model.backbone(frames[number : number + 1])
        maps = {f"fpn{4 << i}": level for i, level in enumerate(levels)}
        maps |= {official: recorder.values[f"backbone.body.{stage}"] for official, stage in stages.items()}
        for stage, value in maps.items():
            if (key := f"{name}/frame{number}/{stage}") in store:
                close(store, key, value[0], limit)


def check_window(
    store: Store,
    key: str,
    window: list[int],
    values: Mapping[str, Any],
    arrays: Mapping[str, npt.NDArray[Any]],
    model: VIShv,
) -> None:
    """Compare the heads of one window."""
    limit = store.golden.tolerance["heads"]
    head = values["embedding_head"]
    parts = [head.values, head.variances] + ([] if head.seediness is None else [head.seediness])
    maps = {f"embedding_head.{layer}": values[f"embedding_head.{layer}"] for layer in LAYERS}
    maps["embedding_head"] = torch.cat(parts, dim=1)
    maps["seediness_head"] = torch.from_numpy(arrays["seediness"])[None, None]
    if model.offset_decoder is not None:
        maps["offset"] = values["offset_decoder"]
        maps["flow_input"] = flow_input(maps["offset"], model.config.flow_bits, straight_through=False)
    if model.semseg_head is not None:
        channels = f"{key}/semseg_head/channels"
        maps["semseg_head"] = values["semseg_head"][:, torch.from_numpy(store.take(channels))]
    for part, value in maps.items():
        if f"{key}/{part}" in store:
            close(store, f"{key}/{part}", value[0], limit)
    # of a repeated frame the last occurrence counts
    last = [i for i, t in enumerate(window) if t not in window[i + 1 :]]
    store.exact(f"{key}/frames", np.array([window[i] for i in last]))
    width = torch.from_numpy(arrays["bandwidths"][last]).transpose(0, 1)
    if model.config.resize_embeddings:
        # stored before the resizing
        width = 10 * head.variances[0][:, last].exp()
    close(store, f"{key}/bandwidths", width, limit)


def check_margin(store: Store, name: str, outputs: Mapping[tuple[int, ...], Mapping[str, npt.NDArray[Any]]]) -> None:
    """Compare how close the foreground probability comes to its threshold, a mean over all windows of a frame."""
    key = f"{name}/fg_margin"
    if key not in store:
        return
    logits: dict[int, list[npt.NDArray[Any]]] = {}
    for window, arrays in outputs.items():
        for place, t in enumerate(window):
            logits.setdefault(t, []).append(arrays["foreground_logits"][place])
    mean = torch.from_numpy(np.stack([np.mean(each, axis=0) for each in logits.values()]))
    found = (mean.sigmoid() - 0.5).abs().flatten().sort().values[MARGINS]
    store.close(key, found, atol=1e-5, rtol=1e-3)
