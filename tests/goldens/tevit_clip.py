"""TeViT's clip goldens: preprocessing, every stage of the network, the exported function, final results."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from visdeploy.masks import Mask
from visdeploy.methods.clip import ClipInstance
from visdeploy.methods.tevit import TeViTDecoder
from visdeploy.streaming.preprocessing import Preprocessor
from visdeploy_training.methods.tevit import ClipStep, TeViT
from visdeploy_training.methods.tevit.head import refine
from visdeploy_training.methods.tevit.inference import inference_settings
from visdeploy_training.methods.tevit.network import roi_features

from .core import Store
from .recording import Recorder
from .seeded import seeded_frames

RTOL, NOISE = 2e-5, 20.0
SCORES_ATOL, BOXES_ATOL, PIXELS = 1e-5, 0.02, 1e-3
AREA, AREA_SHARE = 5, 0.01


def slices(entry: Mapping[str, Any]) -> dict[str, int]:
    """Return the steps of the stored slice by axis."""
    parts = entry.get("slice", "[]").strip("[]").split(",")
    steps = {str(axis): part.strip().lstrip(":") for axis, part in enumerate(parts)}
    return {axis: int(step) for axis, step in steps.items() if step}


def stage(store: Store, key: str, value: Tensor, *, entry_key: str | None = None) -> None:
    """Compare one array and the statistics of the whole tensor, by the manifest's rule."""
    entry = store.golden.manifest["arrays"][store.file][entry_key or key]
    store.subsample = {**store.subsample, key: slices(entry)}
    limit = max(RTOL * max(1.0, entry["absmax"]), NOISE * entry.get("f64_maxdiff", 0.0))
    if list(value.shape) != entry["shape"]:
        store.row(key, np.inf, 1.0, note=f"shape {tuple(value.shape)}")
    store.close(key, value, atol=limit)
    wide = value.detach().double()
    seen = {"mean": wide.mean(), "std": wide.std(correction=0), "absmax": wide.abs().max()}
    # the manifest's statistics have seven digits
    worst = max(abs(float(v) - entry[name]) / (limit + 1e-6 * abs(entry[name])) for name, v in seen.items())
    store.row(key, worst * limit, limit, note="statistics")


def check_clip(store: Store, clip: Mapping[str, Any], model: TeViT) -> None:
    """Run one clip and compare all that is stored of it."""
    prefix = clip.get("prefix", "")
    frames, size = read_clip(store, clip, model, prefix)
    values, features = network_stages(model, frames, size)
    outputs, masks = exported(model, frames, size)
    values |= masks
    for key in store.keys(re.escape(prefix) + r"(backbone|neck|rpn|head|mask)/.*"):
        stage(store, key, values[key.removeprefix(prefix)])
    check_final(store, clip, model, outputs, values, prefix)
    if "unit/rois" in store and not prefix:
        check_unit(store, features)


def read_clip(store: Store, clip: Mapping[str, Any], model: TeViT, prefix: str) -> tuple[Tensor, Tensor]:
    """Return frames `[T, 3, H, W]`, rows and columns of their content, from the preprocessing of the runtime."""
    height, width = clip["height"], clip["width"]
    video = seeded_frames(clip["name"], clip["num_frames"], height, width)
    spec = inference_settings(model.config).preprocessing
    process = Preprocessor(spec)
    frames = torch.from_numpy(np.concatenate([process(frame) for frame in video]))
    rows, columns = process.content_size(height, width)
    if f"{prefix}pre/input" in store:
        plain = Preprocessor(spec.model_copy(update={"mean": [0.0] * 3, "std": [1.0] * 3}))
        resized = np.concatenate([plain(frame) for frame in video])[:, :, :rows, :columns]
        store.exact("pre/resized_rgb_u8", resized.transpose(0, 2, 3, 1).astype(np.uint8))
        stage(store, "pre/input", frames)
        store.exact("pre/img_shape", np.array([rows, columns, 3]))
        store.exact("pre/pad_shape", np.array([*frames.shape[2:], 3]))
        scale = [columns / width, rows / height] * 2
        stage(store, "pre/scale_factor", torch.tensor(scale, dtype=torch.float32))
    return frames, torch.tensor([rows, columns])


@torch.no_grad()
def network_stages(model: TeViT, frames: Tensor, size: Tensor) -> tuple[dict[str, Tensor], list[Tensor]]:
    """Return all stored values between input and boxes by name."""
    count = range(model.config.num_stages)
    heads = [f"roi_head.bbox_head.{s}" for s in count]
    parts = ("attention_norm", "instance_interactive_conv", "fc_reg")
    names = {"backbone", "neck", "rpn_head", *heads, *(f"{h}.{part}" for h in heads for part in parts)}
    blocks = []
    if hasattr(model.backbone, "msg_tokens"):
        blocks = [f"backbone.layers.{i}" for i in range(4)]
        names |= {f"{b}.{part}" for b in blocks for part in ("0", "1.0", "1.1", "1.0.attn", "1.0.ffn")}
    with Recorder(model, names) as recorder:
        output = model(frames[None], size[None])
    seen = recorder.values
    values = {f"backbone/c{i}": seen["backbone"][f"res{i}"] for i in range(2, 6)}
    for i, name in enumerate(blocks):
        values |= {f"backbone/stage{i + 1}/{k}": v for k, v in _block_stages(seen, name).items()}
    values |= {f"neck/p{i + 2}": x for i, x in enumerate(seen["neck"])}
    boxes, _ = seen["rpn_head"]
    values |= {"rpn/boxes_xyxy_frame0": boxes[0], "rpn/imgs_whwh": output.sizes.expand(len(frames), -1)[:, None]}
    for s, head in enumerate(heads):
        _, roi, _ = seen[f"{head}/inputs"]
        result = seen[head]
        boxes = refine(boxes, result.deltas)
        values |= {
            f"head/stage{s}/{name}": value
            for name, value in {
                "roi_feat": roi,
                "attn_norm_spatial": seen[f"{head}.attention_norm"].transpose(0, 1),
                "attn_norm_temporal": seen[f"{head}.attention_norm#1"].flatten(0, 1).transpose(0, 1),
                "dynconv": seen[f"{head}.instance_interactive_conv"],
                "cls_logits": output.logits[s, 0],
                "delta": seen[f"{head}.fc_reg"],
                "obj_feats": result.queries,
                "attn_feats": result.attended,
                "boxes": output.boxes[s, 0],
            }.items()
        }
    return values, [x.contiguous() for x in seen["neck"]]


def _block_stages(seen: Mapping[str, Any], name: str) -> dict[str, Tensor]:
    """Return patch embedding and blocks of a stage of the messenger backbone, and the parts of the first block."""
    tokens, messengers, _ = seen[f"{name}.0"]
    pixels = tokens.shape[1]
    attended = torch.cat([tokens, messengers], dim=1) + seen[f"{name}.1.0.attn"]
    fed = attended + seen[f"{name}.1.0.ffn"]
    found = {
        "patch_embed": (tokens, messengers),
        "block0/attn": (attended[:, :pixels], attended[:, pixels:]),
        "block0/ffn_before_shift": (fed[:, :pixels], fed[:, pixels:]),
        "block0/out": seen[f"{name}.1.0"],
        "block1/out": seen[f"{name}.1.1"],
    }
    return {f"{part}/{kind}": x for part, pair in found.items() for kind, x in zip(("x", "msg"), pair, strict=True)}


@torch.no_grad()
def exported(model: TeViT, frames: Tensor, size: Tensor) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return the outputs of the exported function, and the stages of its mask head."""
    step = ClipStep(model).eval()
    head = f"model.roi_head.mask_head.{model.config.num_stages - 1}"
    with Recorder(step, {head, f"{head}.instance_interactive_conv", f"{head}.upsample"}) as recorder:
        outputs = dict(zip(step.output_names, step(frames, size), strict=True))
    seen = recorder.values
    return outputs, {
        "mask/roi_feat": seen[f"{head}/inputs"][1],
        "mask/dynconv": seen[f"{head}.instance_interactive_conv"],
        "mask/upsample": seen[f"{head}.upsample"],
        "mask/logits_all_classes": seen[head],
    }


def check_final(
    store: Store,
    clip: Mapping[str, Any],
    model: TeViT,
    outputs: Mapping[str, Tensor],
    values: Mapping[str, Tensor],
    prefix: str,
) -> None:
    """Check the post-processing with the exported function and the decoder of the runtime."""
    settings = inference_settings(model.config)
    classes = [f"class {i}" for i in range(model.config.num_classes)]
    decoder = TeViTDecoder(classes, window=settings.window, decode=settings.decode, tracking=settings.tracking)
    height, width, count = clip["height"], clip["width"], clip["num_frames"]
    found = decoder.read({k: v.numpy() for k, v in outputs.items()}, length=count, height=height, width=width)
    judged = [decoder.judge(each.votes.sum(0), count)[:2] for each in found]
    final = f"{prefix}final/"
    store.close(f"{final}scores", np.array([score for _, score in judged]), atol=SCORES_ATOL)
    store.exact(f"{final}labels", np.array([label for label, _ in judged]))
    store.exact(f"{final}query_index", outputs["queries"])
    boxes = outputs["boxes"] * torch.tensor([width, height, width, height])
    store.close(f"{final}boxes_xyxy_original_scale", boxes, atol=BOXES_ATOL)
    masks = dense(found, count, height, width)
    area = np.abs(masks.sum(axis=(2, 3)) - store.arrays[f"{final}mask_area"])
    room = np.maximum(AREA, AREA_SHARE * store.take(f"{final}mask_area"))
    store.row(f"{final}mask_area", float(area.max()), float(area.max() / max((area / room).max(), 1e-12)) or 1.0)
    if f"{final}masks_packed" in store:
        stored = np.unpackbits(store.take(f"{final}masks_packed"), axis=-1, count=width).astype(bool)
        store.row(f"{final}masks_packed", float((stored != masks).sum()), PIXELS * masks.size)
        last = model.config.num_stages - 1
        stage(store, f"{final}video_scores_all", values[f"head/stage{last}/cls_logits"].sigmoid().mean(dim=0))
        stage(store, f"{final}mask_logits_of_label", outputs["mask_logits"])
    if "results" in clip:
        check_json(store, clip["results"], judged, masks)


def dense(found: list[ClipInstance], count: int, height: int, width: int) -> np.ndarray:
    """Return `[T, R, h, w]` bool."""
    empty = np.zeros((height, width), bool)
    shown = [[empty if m is None else m.decode() for m in (each.masks[t] for each in found)] for t in range(count)]
    return np.array(shown)


def check_json(store: Store, file: str, judged: list[tuple[int, float]], masks: np.ndarray) -> None:
    """Check the file of the published script."""
    entries = json.loads((store.golden.folder / file).read_text(encoding="utf-8"))
    store.row(f"{file}: entries", float(abs(len(entries) - len(judged))), 0.0)
    entries.sort(key=lambda entry: -entry["score"])
    for i, (entry, (label, score)) in enumerate(zip(entries, judged, strict=False)):
        store.row(f"{file}: score", abs(entry["score"] - score), SCORES_ATOL)
        store.row(f"{file}: category_id", float(entry["category_id"] != label + 1), 0.0)
        theirs = np.array([Mask.from_coco(s).decode() for s in entry["segmentations"]])
        store.row(f"{file}: segmentations", float((theirs != masks[:, i]).sum()), PIXELS * theirs.size)


def check_unit(store: Store, features: list[Tensor]) -> None:
    """Compare RoI features of boxes on all levels and on their borders."""
    rois = torch.from_numpy(store.take("unit/rois"))
    images, boxes = rois[:, 0].long(), rois[:, 1:]
    for size in (7, 14):
        stage(store, f"unit/roi_feat_{size}", roi_features(features, boxes, images, size))
    # the level of a box: the one map that changes its features when it is alone
    marked = [torch.full_like(x[:, :1, :1, :1], float(i)).expand(-1, 1, 64, 64).contiguous() for i, x in
              enumerate(features)]  # fmt: skip
    inside = torch.cat([boxes[:, :2].clamp(0, 0), boxes[:, 2:] - boxes[:, :2]], dim=1)
    levels = roi_features(marked, inside, images, 1).amax(dim=(1, 2, 3))
    store.exact("unit/roi_levels", levels.round().long())
