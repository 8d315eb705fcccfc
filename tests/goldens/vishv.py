"""Golden data of VIShv: networks of every manifest stage by stage, training, flow, clustering and tables."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from visdeploy_training.methods.vishv import VARIANTS, VIShv, VIShvConfig
from visdeploy_training.methods.vishv.weights import OFFICIAL

from .core import Golden, StateDict, Store
from .vishv_clusters import check_clustering
from .vishv_flow import check_flow
from .vishv_stages import check_stages
from .vishv_tables import check_aux
from .vishv_train import check_train

BACKBONES = {"R-50-FPN": "resnet50", "R-101-FPN": "resnet101"}
NORMS = {"gn": "group", "none": "none"}


def run(golden: Golden) -> None:
    default = golden.tolerance
    for path in sorted(golden.folder.glob("manifest*.json")):
        manifest = json.loads(path.read_text(encoding="utf-8"))
        golden.tolerance = manifest.get("tolerance", default)
        if "scenes" in manifest:
            check_clustering(golden, path.name, recording(path, manifest))
        elif "layouts" in manifest:
            check_flow(golden, recording(path, manifest), manifest)
        else:
            check_model(golden, recording(path, manifest), manifest)
    golden.tolerance = default
    check_aux(golden)


def recording(path: Path, manifest: Mapping[str, Any]) -> str:
    """Name of the npz file of a manifest."""
    files = [name for name in manifest.get("files", ()) if name.endswith(".npz")]
    return files[0] if files else f"{path.stem.removeprefix('manifest_')}.npz"


def check_model(golden: Golden, file: str, manifest: Mapping[str, Any]) -> None:
    """Compare the stages of every clip, what follows from them, and the training."""
    if (store := golden.open(file)) is None:
        return
    model, names = network(golden, store, manifest)
    for clip in manifest["clips"]:
        check_stages(store, manifest["config"], clip, model)
    if "palette" in store:
        from visdeploy.formats.davis import davis_palette

        store.exact("palette", davis_palette().ravel())
    if manifest.get("loss_batch"):
        check_train(store, manifest, model, names)
    golden.close(store)


def network(golden: Golden, store: Store, manifest: Mapping[str, Any]) -> tuple[VIShv, dict[str, str]]:
    """Our network with the seeded weights, and official names to ours, through the conversion of checkpoints."""
    state = weights(golden, store, manifest)
    model = VIShv(configure(state, manifest["config"]))
    renamed = OFFICIAL.rename(state)
    model.load_state_dict(renamed, strict=True)
    places = {id(value): name for name, value in renamed.items()}
    return model.eval(), {name: places[id(value)] for name, value in state.items() if id(value) in places}


def weights(golden: Golden, store: Store, manifest: Mapping[str, Any]) -> StateDict:
    """The seeded weights; those that must be consistent with others are stored."""
    state = golden.weights(details=manifest)
    for name in manifest["kept"]:
        state[name] = torch.from_numpy(np.array(store.take(f"kept/{name}")))
    return state


def configure(state: Mapping[str, Tensor], config: Mapping[str, Any]) -> VIShvConfig:
    """The configuration from the weights, as for an official checkpoint, and what they do not determine."""
    model, training, inputs = config["MODEL"], config["TRAINING"], config["INPUT"]
    weight = training["LOSSES"]["EMBEDDING"]
    changes: dict[str, Any] = {
        "window": inputs["NUM_FRAMES"],
        "pixel_mean": tuple(inputs["IMAGE_MEAN"]),
        "pixel_std": tuple(inputs["IMAGE_STD"]),
        "freeze_backbone": training["FREEZE_BACKBONE"],
        "freeze_at": model["BACKBONE"]["FREEZE_AT_STAGE"],
        "norm": NORMS[model["EMBEDDINGS"]["NORMALIZATION_LAYER"]],
        "num_groups": model["EMBEDDINGS"]["GN_NUM_GROUPS"],
        "pool": model["EMBEDDINGS"]["POOL_TYPE"],
        "lovasz_weight": weight["WEIGHT_LOVASZ"],
        "smoothness_weight": weight["WEIGHT_VARIANCE_SMOOTHNESS"],
        "seediness_weight": weight["WEIGHT_SEEDINESS"],
        "semantic_weight": training["LOSSES"]["WEIGHT_SEMSEG"],
    }
    if model.get("USE_OFFSET_HEAD"):
        changes |= {"flow_bits": model["OFFSET"]["N_BITS"], "flow_chunk": training["BATCH_SIZE"]}
    found = dataclasses.replace(
        VARIANTS[OFFICIAL.variant(state)],
        num_classes=OFFICIAL.num_classes(state),
        **(OFFICIAL.overrides(state) | changes),
    )
    check_configuration(found, config)
    return found


def check_configuration(found: VIShvConfig, config: Mapping[str, Any]) -> None:
    """Stop if the weights are of another network than the configuration says."""
    model = config["MODEL"]
    modes = "".join(("xyt" if found.position == "tyx" else "xy", "f" * found.free_dims))
    seen: dict[str, Any] = {
        "TYPE": found.backbone,
        "USE_SEMSEG_HEAD": found.semantic,
        "USE_SEEDINESS_HEAD": found.separate_seediness,
        "USE_OFFSET_HEAD": found.appearance,
        "EMBEDDING_DIM_MODE": modes,
        "EMBEDDING_SIZE": found.embedding_dims,
        "INTER_CHANNELS": list(found.decoder_channels),
        "TANH_ACTIVATION": True,
        "FREE_DIM_STDS": list(found.free_dim_stds),
        "BGR_INPUT": found.channel_order == "bgr",
        "LOSS_AT_FULL_RES": False,
    }
    wanted = {
        "TYPE": BACKBONES.get(model["BACKBONE"]["TYPE"]),
        "USE_SEMSEG_HEAD": model["USE_SEMSEG_HEAD"],
        "USE_SEEDINESS_HEAD": model["USE_SEEDINESS_HEAD"],
        "USE_OFFSET_HEAD": model.get("USE_OFFSET_HEAD", False),
        "EMBEDDING_DIM_MODE": model["EMBEDDING_DIM_MODE"],
        **{k: model["EMBEDDINGS"][k] for k in ("EMBEDDING_SIZE", "INTER_CHANNELS", "TANH_ACTIVATION")},
        "FREE_DIM_STDS": config["TRAINING"]["LOSSES"]["EMBEDDING"]["FREE_DIM_STDS"],
        "BGR_INPUT": config["INPUT"]["BGR_INPUT"],
        "LOSS_AT_FULL_RES": config["TRAINING"]["LOSS_AT_FULL_RES"],
    }
    if found.semantic:
        seen |= {"NUM_CLASSES": found.num_classes + 1, "FOREGROUND_CHANNEL": found.foreground_channel}
        wanted["NUM_CLASSES"] = config["INPUT"]["NUM_CLASSES"]
        wanted["FOREGROUND_CHANNEL"] = model["SEMSEG"]["FOREGROUND_CHANNEL"]
    if seen != wanted:
        raise SystemExit(f"the weights are of another network than the manifest says: {seen}, {wanted}")
