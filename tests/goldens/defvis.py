"""Golden data of DefVIS: clips of both layouts, losses with gradients, criterion cases."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

import torch

from visdeploy_training.methods.defvis import VARIANTS, DefVIS, DefVISConfig
from visdeploy_training.methods.defvis.weights import OFFICIAL

from .core import Golden
from .defvis_clip import check_results, check_stages, read_clip
from .defvis_train import check_criterion, check_losses

FIELDS = {
    "num_frames": "num_frames",
    "num_groups": "instance_groups",
    "tokens_per_group": "tokens_per_group",
    "hidden_dim": "hidden_dim",
    "heads": "num_heads",
    "enc_layers": "encoder_layers",
    "dec_layers": "decoder_layers",
    "dim_feedforward": "feedforward_dim",
    "enc_points": "num_points",
    "dropout": "dropout",
}
DEPTHS = {"resnet50": "r50", "resnet101": "r101"}
KNOWN = {*FIELDS, "variant", "backbone", "num_queries", "slots", "resize_short", "padded_to", "mode"}


def configure(values: Mapping[str, Any]) -> DefVISConfig:
    """Return a case's configuration as ours; what this port cannot do is an error, not ignored."""
    if set(values) - KNOWN or values["mode"] != "eval":
        raise SystemExit(
            f"the manifest asks for what the adapter does not know: {set(values) - KNOWN or values['mode']}"
        )
    changes = {ours: values[theirs] for theirs, ours in FIELDS.items()}
    base = VARIANTS[f"{values['variant']}_{DEPTHS[values['backbone']]}"]
    config = dataclasses.replace(base, **changes, height=values["resize_short"])
    if (config.slots, config.num_frames * config.queries_per_frame) != (values["slots"], values["num_queries"]):
        raise SystemExit(f"the adapter's network has other slots or queries than the manifest: {values}")
    return config


def run(golden: Golden) -> None:
    for case in golden.manifest["cases"]:
        store = golden.open(case["file"])
        if store is None:
            continue
        details = json.loads((golden.folder / case["details"]).read_text(encoding="utf-8"))
        store.subsample = {
            key: {str(axis): step for axis, step in enumerate(entry["stride"])}
            for key, entry in details["arrays"].items()
        }
        model = DefVIS(configure(details["config"])).eval()
        model.load_state_dict(OFFICIAL.rename(golden.weights(details=details)), strict=True)
        trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
        sizes = {"n_params": sum(p.numel() for p in model.parameters()), "n_trainable": trained}
        for name, count in sizes.items():
            store.row(name, float(abs(count - details[name])), 0.0)
        frames, padding = read_clip(store, details, model.config)
        with torch.set_grad_enabled(bool(case["gradients"])):
            output = check_stages(store, details, model, frames, padding)
        if "post_slots" in store:
            check_results(store, details, case, model, frames)
        if case["losses"]:
            check_losses(store, details, model, output, gradients=case["gradients"])
        golden.close(store)
    for case in golden.manifest["criterion_cases"]:
        if (store := golden.open(case["file"])) is not None:
            check_criterion(store, case)
            golden.close(store)
