"""DefVIS's clip goldens: preprocessing, every stage of the network, raw outputs, final results."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from visdeploy.masks import Mask
from visdeploy.methods.clip import ClipInstance
from visdeploy.methods.defvis import DefVISDecoder
from visdeploy.streaming.preprocessing import Preprocessor
from visdeploy_plugins.torch_ops.ms_deform_attn_fused_reference import attention_weights, sampling_locations
from visdeploy_training.methods.defvis import ClipStep, DefVIS, DefVISConfig, DefVISOutput
from visdeploy_training.methods.defvis.geometry import resize_padding
from visdeploy_training.methods.defvis.inference import inference_settings

from .core import Store
from .recording import Recorder
from .seeded import seeded_frames

STAGE_RTOL, SCORES_ATOL, PIXELS = 1e-4, 1e-4, 1e-3
ENCODER, DECODER = "transformer.encoder.layers", "transformer.decoder.layers"
MASK_STAGES = ("gn1", "gn2", "gn3", "gn4", "conv_offset", "dcn")


def stage(store: Store, details: Mapping[str, Any], key: str, value: Tensor) -> None:
    """Compare one array and the statistics of the whole tensor."""
    entry = details["arrays"][key]
    limit = STAGE_RTOL * max(1.0, entry.get("stats", {}).get("absmax", 1.0))
    if list(value.shape) != entry["full_shape"]:
        store.row(key, np.inf, 1.0, note=f"shape {tuple(value.shape)}")
    store.close(key, value, atol=limit)
    if "stats" in entry:
        wide = value.detach().double()
        seen = {"mean": wide.mean(), "std": wide.std(correction=0), "absmax": wide.abs().max()}
        worst = max(abs(float(v) - entry["stats"][name]) for name, v in seen.items())
        store.row(key, worst, limit, note="statistics")


def read_clip(store: Store, details: Mapping[str, Any], config: DefVISConfig) -> tuple[Tensor, Tensor | None]:
    """Return network input `[1, T, 3, H, W]` and padding mask of a case, from the preprocessing of the runtime."""
    clip, padded = details["clip"], details["config"]["padded_to"]
    video = seeded_frames(clip["name"], clip["T"], clip["H"], clip["W"])
    order = np.arange(config.num_frames) % clip["T"]
    store.exact("frame_indices", order)
    spec = inference_settings(config).preprocessing
    plain = Preprocessor(spec.model_copy(update={"mean": [0.0] * 3, "std": [1.0] * 3}))
    store.exact("resized_frame0", plain(video[order[0]])[0].transpose(1, 2, 0).astype(np.uint8))
    frames = torch.from_numpy(np.concatenate([Preprocessor(spec)(video[i]) for i in order]))
    padding = None
    if padded:
        height, width = frames.shape[-2:]
        frames = F.pad(frames, (0, padded[1] - width, 0, padded[0] - height))
        padding = torch.ones(1, len(order), *padded, dtype=torch.bool)
        padding[..., :height, :width] = False
    stage(store, details, "input", frames)
    return frames[None], padding


def rows_of(value: Tensor, config: DefVISConfig) -> Tensor:
    """Convert `[B, S, T, ...]` to published rows `[B, S * T, ...]`: slot-major with groups, otherwise frame-major."""
    return (value if config.instance_groups else value.transpose(1, 2)).flatten(1, 2)


def check_stages(
    store: Store, details: Mapping[str, Any], model: DefVIS, clip: Tensor, padding: Tensor | None
) -> DefVISOutput:
    """Run the network once and compare everything on the way."""
    layers = range(model.config.encoder_layers)
    names = {"backbone", "input_proj", "transformer", "bbox_attention", f"{ENCODER}.0.self_attn.output_proj"}
    names |= {f"{ENCODER}.{i}" for i in layers} | {f"{DECODER}.0.self_attn", f"{DECODER}.0.multihead_attn"}
    names |= {f"mask_head.{s}" for s in (*MASK_STAGES, "gn5")} | {f"insmask_head.{i}" for i in (0, 2, 5, 8, 9)}
    with Recorder(model, names) as recorder:
        output: DefVISOutput = model(clip, padding)
    seen = recorder.values
    values = _frame_stages(seen, padding) | _encoder_stages(seen, model)
    values |= {f"enc{i}_out": seen[f"{ENCODER}.{i}"] for i in layers}
    values["memory_tokens"] = seen[f"{ENCODER}.{layers[-1]}"]
    for key, name in (("dec0_self_attn_out", "self_attn"), ("dec0_cross_attn_out", "multihead_attn")):
        values[key] = seen[f"{DECODER}.0.{name}"][0].transpose(0, 1)
    slots = model.arrange(seen["transformer"][1])
    values["hs"] = torch.stack([rows_of(layer, model.config) for layer in slots])
    for i, prefix in ((-1, "pred"), (0, "aux0"), (4, "aux4")):
        values[f"{prefix}_logits"] = rows_of(output.logits[i], model.config)
        values[f"{prefix}_boxes"] = rows_of(output.boxes[i], model.config)
    values["pred_masks"] = rows_of(output.masks, model.config)
    values |= _mask_stages(store, seen, model.config)
    for key, value in values.items():
        if key in details["arrays"]:
            stage(store, details, key, value)
        else:
            store.exact(key, value)
    return output


def _frame_stages(seen: Mapping[str, Any], padding: Tensor | None) -> dict[str, Tensor]:
    values = {name: seen["backbone"][name] for name in ("res2", "res3", "res4", "res5")}
    values["input_proj"] = seen["input_proj"]
    if padding is not None:
        values["res5_padding_mask"] = resize_padding(padding[0], *values["res5"].shape[-2:])
    return values


def _encoder_stages(seen: Mapping[str, Any], model: DefVIS) -> dict[str, Tensor]:
    """Return the input of the encoder, and the parts of its first layer."""
    frames, levels, _ = seen["transformer/inputs"]
    tokens = seen[f"{ENCODER}.0/input"]
    pixels = levels.position[:, : frames.shape[1] * frames.shape[3] * frames.shape[4]]
    attention = model.transformer.encoder.layers[0].self_attn
    offsets, logits = attention.samples(tokens + levels.position)
    name = f"{ENCODER}.0.self_attn.output_proj"
    return {
        "pos_embed": pixels.transpose(1, 2)
        .reshape(1, frames.shape[2], frames.shape[1], *frames.shape[3:])
        .transpose(1, 2),
        "enc_src": tokens,
        "enc_pos": levels.position,
        "enc_reference_points": levels.reference,
        "enc_spatial_shapes": levels.shapes,
        "enc_level_start_index": levels.starts,
        "enc0_value": attention.values(tokens, levels.padding),
        "enc0_sampling_locations": sampling_locations(levels.shapes, levels.reference, offsets),
        "enc0_attention_weights": attention_weights(logits),
        "enc0_msda_output": seen[f"{name}/input"],
        "enc0_attn_output_proj": seen[name],
    }


def _mask_stages(store: Store, seen: Mapping[str, Any], config: DefVISConfig) -> dict[str, Tensor]:
    """Return the stored calls of the mask head, each for one slot and frame, or without groups all slots of a frame."""
    calls, frames = store.take("mask_head_calls").tolist(), config.num_frames
    lead = (config.slots, frames)

    def call(value: Tensor, number: int) -> Tensor:
        """Return `[n_f, ...]` of one call, from `[S * T, ...]`."""
        slots = value.unflatten(0, lead)
        return slots[number // frames, number % frames].unsqueeze(0) if config.instance_groups else slots[:, number]

    attention = seen["bbox_attention"][0].unflatten(-1, seen["input_proj"].shape[-2:]).flatten(0, 1)
    values = {"bbox_attention": torch.stack([call(attention, c).unsqueeze(0) for c in calls])}
    values["mh_lay1"] = call(seen["mask_head.gn1/input"], calls[0]).unsqueeze(0)
    values |= {f"mh_{s}": call(seen[f"mask_head.{s}"], calls[0]).unsqueeze(0) for s in MASK_STAGES}
    out = F.relu(seen["mask_head.gn5"])
    values["mh_out"] = torch.stack([call(out, c) for c in calls[:2]])
    values |= {f"insmask_stage{i}": seen[f"insmask_head.{i}"][:1] for i in (0, 2, 5, 8)}
    values["insmask_first"] = seen["insmask_head.9"][:1]
    return values


def decoded(
    outputs: Mapping[str, np.ndarray], config: DefVISConfig, size: Mapping[str, int]
) -> dict[int, ClipInstance]:
    """Return the results of the runtime's decoder by slot.

    Upstream also reports slots whose best id is the unused 0, which the decoder drops: for it, all ids move up by one
    behind a new id 0 that no frame ever votes for.
    """
    settings = inference_settings(config)
    classes = [f"id {i}" for i in range(config.num_classes + 1)]
    decoder = DefVISDecoder(classes, window=settings.window, decode=settings.decode, tracking=settings.tracking)
    scores = np.pad(outputs["class_scores"], ((0, 0), (0, 0), (1, 0)))
    found = {}
    for slot in range(config.slots):
        alone = {"class_scores": scores[slot : slot + 1], "mask_logits": outputs["mask_logits"][slot : slot + 1]}
        for instance in decoder.read(alone, **size):
            found[slot] = instance
    return found


@torch.no_grad()
def check_results(
    store: Store, details: Mapping[str, Any], case: Mapping[str, Any], model: DefVIS, frames: Tensor
) -> None:
    """Check the post-processing with the exported function and the decoder of the runtime."""
    clip, config = details["clip"], model.config
    step = ClipStep(model).eval()
    outputs = {k: v.numpy() for k, v in zip(step.output_names, step(frames[0]), strict=True)}
    size = {"length": clip["T"], "height": clip["H"], "width": clip["W"]}
    found = decoded(outputs, config, size)
    scores = outputs["class_scores"][:, : clip["T"]]
    store.close("post_frame_scores", scores.max(-1).T, atol=SCORES_ATOL)
    store.exact("post_frame_labels", scores.argmax(-1).T)
    store.exact("post_slots", np.array(list(found)))
    store.close("post_scores", np.array([f.votes[:, -1].mean() for f in found.values()]), atol=SCORES_ATOL)
    store.exact("post_labels", np.array([category(f) for f in found.values()]))
    masks = np.zeros((clip["T"], config.slots, clip["H"], clip["W"]), bool)
    for slot, instance in found.items():
        for t, mask in enumerate(instance.masks):
            masks[t, slot] = False if mask is None else mask.decode()
    limit = PIXELS * masks[:, 0].size
    store.exact("post_masks_shape", np.array(masks.shape))
    stored = np.unpackbits(store.take("post_masks_bits"), axis=-1, count=clip["W"]).astype(bool)
    store.row("post_masks_bits", float((stored != masks).sum(axis=(0, 2, 3)).max()), limit)
    area = np.abs(masks.sum(axis=(2, 3)) - store.take("post_mask_area"))
    store.row("post_mask_area", float(area.sum(axis=0).max()), limit)
    _check_threshold(store, outputs, config, size)
    if "results_json" in case:
        _check_json(store, case["results_json"], found, limit)


def category(instance: ClipInstance) -> int:
    """Return the id that most frames vote for, the smallest on a tie."""
    return int(instance.votes[:, 1:-1].sum(0).argmax())


def _check_threshold(
    store: Store, outputs: Mapping[str, np.ndarray], config: DefVISConfig, size: Mapping[str, int]
) -> None:
    """Check a second threshold for the frames of the reported slots; frames with empty masks are always absent."""
    threshold = float(store.take("post_alt_frame_threshold"))
    found = decoded(outputs, dataclasses.replace(config, frame_score_threshold=threshold), size)
    kept = np.array([[mask is not None for mask in f.masks] for f in found.values()]).T
    shown = store.arrays["post_mask_area"][:, list(found)] > 0
    clear = np.abs(np.array([f.votes[:, -1] for f in found.values()]).T - threshold) > 1e-5
    wrong = (kept != (store.take("post_alt_frame_kept") & shown)) & clear
    store.row("post_alt_frame_kept", float(wrong.sum()), 0.0)


def _check_json(store: Store, file: str, found: Mapping[int, ClipInstance], limit: float) -> None:
    """Check the file of the published script, which contains empty masks where we have none."""
    entries = json.loads((store.golden.folder / file).read_text(encoding="utf-8"))
    store.row(f"{file}: entries", float(abs(len(entries) - len(found))), 0.0)
    for entry, instance in zip(entries, found.values(), strict=False):
        store.row(f"{file}: score", abs(entry["score"] - float(instance.votes[:, -1].mean())), SCORES_ATOL)
        store.row(f"{file}: category_id", float(entry["category_id"] != category(instance)), 0.0)
        wrong = 0
        for segmentation, mask in zip(entry["segmentations"], instance.masks, strict=True):
            theirs = None if segmentation is None else Mask.from_coco(segmentation)
            if theirs is None or mask is None:
                wrong += (theirs.area if theirs else 0) + (mask.area if mask else 0)
            else:
                wrong += int((theirs.decode() != mask.decode()).sum())
        store.row(f"{file}: segmentations", float(wrong), limit)
