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
from visdeploy.preprocess import Preprocessor
from visdeploy_training.methods.defvis import ClipStep, DefVIS, DefVISConfig, DefVISOutput
from visdeploy_training.methods.defvis.geometry import resize_padding
from visdeploy_training.methods.defvis.inference import inference_settings
from visdeploy_training.methods.defvis.postprocess import SlotResult, decode_clip

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
    """Network input `[1, T, 3, H, W]` and padding mask of a case, through the runtime's preprocessing."""
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
    """`[B, S, T, ...]` as upstream's rows `[B, S * T, ...]`: slot-major with groups, frame-major without."""
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
    """What goes into the encoder, and its first layer in parts."""
    frames, levels, _ = seen["transformer/inputs"]
    tokens = seen[f"{ENCODER}.0/input"]
    pixels = levels.position[:, : frames.shape[1] * frames.shape[3] * frames.shape[4]]
    attention = model.transformer.encoder.layers[0].self_attn
    locations, weights = attention.sampling(tokens + levels.position, levels)
    name = f"{ENCODER}.0.self_attn.output_proj"
    return {
        "pos_embed": pixels.transpose(1, 2)
        .reshape(1, frames.shape[2], frames.shape[1], *frames.shape[3:])
        .transpose(1, 2),
        "enc_src": tokens,
        "enc_pos": levels.position,
        "enc_reference_points": levels.reference.expand(-1, -1, len(levels.shapes), -1),
        "enc_spatial_shapes": levels.shapes,
        "enc_level_start_index": levels.starts,
        "enc0_value": attention.values(tokens, levels.padding),
        "enc0_sampling_locations": locations,
        "enc0_attention_weights": weights,
        "enc0_msda_output": seen[f"{name}/input"],
        "enc0_attn_output_proj": seen[name],
    }


def _mask_stages(store: Store, seen: Mapping[str, Any], config: DefVISConfig) -> dict[str, Tensor]:
    """The stored calls of the mask head: one slot and frame each with groups, all slots of a frame without."""
    calls, frames = store.take("mask_head_calls").tolist(), config.num_frames
    lead = (config.slots, frames)

    def call(value: Tensor, number: int) -> Tensor:
        """`[n_f, ...]` of one call, from `[S * T, ...]`."""
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


@torch.no_grad()
def check_results(
    store: Store, details: Mapping[str, Any], case: Mapping[str, Any], model: DefVIS, frames: Tensor
) -> None:
    """Section 4, through the exported function and the method's post-processing."""
    clip, config = details["clip"], model.config
    step = ClipStep(model).eval()
    outputs = dict(zip(step.output_names, step(frames[0]), strict=True))
    parts = (outputs["class_scores"], outputs["mask_logits"])
    size = {"length": clip["T"], "height": clip["H"], "width": clip["W"]}
    found = list(decode_clip(*parts, config, **size))
    scores, labels = parts[0][:, : clip["T"]].max(dim=-1)
    store.close("post_frame_scores", scores.T, atol=SCORES_ATOL)
    store.exact("post_frame_labels", labels.T)
    store.exact("post_slots", np.array([f.slot for f in found]))
    store.close("post_scores", np.array([f.score for f in found]), atol=SCORES_ATOL)
    store.exact("post_labels", np.array([f.category for f in found]))
    threshold = float(store.take("post_alt_frame_threshold"))
    changed = dataclasses.replace(config, frame_score_threshold=threshold)
    kept = torch.stack([f.kept for f in decode_clip(*parts, changed, **size)], dim=1)
    chosen = scores[[f.slot for f in found]].T
    clear = (chosen - threshold).abs() > 1e-5
    wrong = (kept != torch.from_numpy(store.take("post_alt_frame_kept"))) & clear
    store.row("post_alt_frame_kept", float(wrong.sum()), 0.0)
    _check_masks(store, found, config.slots, (clip["T"], clip["H"], clip["W"]))
    if "results_json" in case:
        _check_json(store, case["results_json"], found)


def _check_masks(store: Store, found: list[SlotResult], slots: int, size: tuple[int, int, int]) -> None:
    """At most a small share of the pixels of a slot may differ."""
    length, height, width = size
    masks = np.zeros((length, slots, height, width), bool)
    for result in found:
        masks[:, result.slot] = result.masks.numpy()
    store.exact("post_masks_shape", np.array(masks.shape))
    stored = np.unpackbits(store.take("post_masks_bits"), axis=-1, count=width).astype(bool)
    limit = PIXELS * length * height * width
    store.row("post_masks_bits", float((stored != masks).sum(axis=(0, 2, 3)).max()), limit)
    area = np.abs(masks.sum(axis=(2, 3)) - store.take("post_mask_area"))
    store.row("post_mask_area", float(area.sum(axis=0).max()), limit)


def _check_json(store: Store, file: str, found: list[SlotResult]) -> None:
    """The file that upstream's own script wrote."""
    entries = json.loads((store.golden.folder / file).read_text(encoding="utf-8"))
    store.row(f"{file}: entries", float(abs(len(entries) - len(found))), 0.0)
    for entry, result in zip(entries, found, strict=False):
        store.row(f"{file}: score", abs(entry["score"] - result.score), SCORES_ATOL)
        store.row(f"{file}: category_id", float(entry["category_id"] != result.category), 0.0)
        masks = [None if s is None else Mask.from_coco(s).decode() for s in entry["segmentations"]]
        store.row(
            f"{file}: frames",
            float(sum((m is not None) != bool(k) for m, k in zip(masks, result.kept, strict=True))),
            0.0,
        )
        wrong = sum(int((m != r.numpy()).sum()) for m, r in zip(masks, result.masks, strict=True) if m is not None)
        store.row(f"{file}: segmentations", float(wrong), PIXELS * result.masks.numel())
