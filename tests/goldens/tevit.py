"""Golden data of TeViT: clips of both temporal layouts, RoI unit case, losses with gradients."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

from visdeploy_training.methods.tevit import VARIANTS, TeViT
from visdeploy_training.methods.tevit.weights import OFFICIAL

from .core import Golden
from .tevit_clip import check_clip
from .tevit_train import check_training

NAMES = {
    "TeViT_MsgShifT": "msgshift",
    "TeViT_MsgShifT_MST": "msgshift",
    "TeViT_R50": "r50",
    "TeViT_R50_MST": "r50",
    "TeViT_Swin-L_MST": "swin_l",
}
COUNTS = {"msgshift": 161_832_616, "r50": 172_565_448, "swin_l": 343_861_820}
FIELDS = {
    "out_channels": "hidden_dim",
    "num_proposals": "num_queries",
    "num_stages": "num_stages",
    "num_classes": "num_classes",
    "num_heads": "num_heads",
    "feedforward_channels": "feedforward_dim",
    "dynamic_feat_channels": "dynamic_dim",
    "max_per_img": "max_results",
    "mean": "pixel_mean",
    "std": "pixel_std",
}


def run(golden: Golden) -> None:
    manifest = golden.manifest
    for name in dict.fromkeys(clip.get("variant", manifest["variant"]) for clip in manifest["clips"]):
        clips = [c for c in manifest["clips"] if c.get("variant", manifest["variant"]) == name]
        stores = {file: golden.open(file) for file in dict.fromkeys(c["file"] for c in clips)}
        train = golden.open(manifest["train"]["file"]) if name == manifest["variant"] else None
        if train is None and not any(stores.values()):
            continue
        variant = NAMES[name]
        source = manifest
        if "params_file" in clips[0]:
            listed = json.loads((golden.folder / clips[0]["params_file"]).read_text(encoding="utf-8"))
            source = listed | {"overrides": manifest["overrides"]}
        model = load(golden, source, variant)
        for clip in clips:
            if (store := stores[clip["file"]]) is not None:
                count = sum(p.numel() for p in model.parameters())
                store.row("parameters", float(abs(count - COUNTS[variant])), 0.0)
                check_clip(store, clip, configured(model, clip))
        for store in filter(None, stores.values()):
            golden.close(store)
        if train is not None:
            check_training(train, manifest["train"], model)
            golden.close(train)


def load(golden: Golden, source: Mapping[str, Any], variant: str) -> TeViT:
    """Return the seeded network; a value of the manifest's configuration that is not ours is an error."""
    config = VARIANTS[variant]
    wrong = [k for k, ours in FIELDS.items() if _plain(getattr(config, ours)) != source["config"][k]]
    if wrong:
        raise SystemExit(f"the manifest's network differs from the variant {variant}: {wrong}")
    model = TeViT(config)
    model.load_state_dict(OFFICIAL.rename(golden.weights(details=source)), strict=True)
    return model.eval()


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def configured(model: TeViT, clip: Mapping[str, Any]) -> TeViT:
    """Return the same network with the clip's own size at inference."""
    longest, shortest = clip["resize_long_short"]
    model.config = dataclasses.replace(model.config, longest_edge=longest, shortest_edge=shortest)
    return model
