"""Golden data of TPR: clips of every variant stage by stage, training, identity assignment."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from visdeploy.streaming.preprocessing import Preprocessor
from visdeploy_training.methods.tpr import TPR, VARIANTS, OnlineStep, TPRConfig
from visdeploy_training.methods.tpr.inference import inference_settings
from visdeploy_training.methods.tpr.output import STRIDES
from visdeploy_training.methods.tpr.weights import OFFICIAL

from .core import Golden, Store
from .recording import Recorder
from .seeded import seeded_frames
from .tpr_results import check_frame, check_results, new_decoder
from .tpr_stages import check_detections, check_stages
from .tpr_tracker import check_tracker
from .tpr_train import check_train, maps_tolerance

KNOWN = {
    "variant", "swin", "drop_path_rate", "score_threshold_before_sqrt", "nms_iou", "pre_nms_topk", "post_nms_topk",
    "match_coefficients", "routing_list",
}  # fmt: skip


def configure(golden: Golden, case: Mapping[str, Any]) -> TPRConfig:
    """The configuration of a case: the network from its tensors, the thresholds from the manifest."""
    values, state = case["config"], golden.weights(details=case)
    if unknown := set(values) - KNOWN:
        raise SystemExit(f"the manifest asks for what the adapter does not know: {unknown}")
    score, iou, label = values["match_coefficients"]
    height, width = case["clips"][0]["resize_shape"]
    config = dataclasses.replace(
        VARIANTS[OFFICIAL.variant(state)],
        num_classes=OFFICIAL.num_classes(state),
        score_threshold=values["score_threshold_before_sqrt"],
        nms_threshold=values["nms_iou"],
        nms_pre=values["pre_nms_topk"],
        max_detections=values["post_nms_topk"],
        score_weight=score,
        iou_weight=iou,
        label_weight=label,
        drop_path=values["drop_path_rate"] or 0.0,
        shortest_edge=min(height, width),
        longest_edge=max(height, width),
        **OFFICIAL.overrides(state),
    )
    if (config.cpr, list(config.cpr_depths)) != (values["variant"], values["routing_list"]):
        raise SystemExit(f"the weights are of another network than the manifest says: {config.cpr}, {values}")
    return config


def network(golden: Golden, case: Mapping[str, Any]) -> TPR:
    """Our network with the seeded weights, through the same renaming as an official checkpoint."""
    model = TPR(configure(golden, case))
    model.load_state_dict(OFFICIAL.rename(golden.weights(details=case)), strict=True)
    return model.eval()


def run(golden: Golden) -> None:
    manifest = golden.manifest
    named = {manifest["variant"]: manifest, **manifest.get("variants", {})}
    for name, case in named.items():
        if (store := golden.open(f"{name}.npz")) is not None:
            check_clip(store, case, network(golden, case))
            golden.close(store)
        if (store := golden.open(f"{name}_train.npz")) is not None:
            check_train(golden, store, case, network(golden, case))
            golden.close(store)
    if (store := golden.open("tracker.npz")) is not None:
        check_tracker(store)
        golden.close(store)


@torch.no_grad()
def check_clip(store: Store, case: Mapping[str, Any], model: TPR) -> None:
    """Run a clip through the exported step and the decoder of the runtime; compare every stage on the way."""
    clip, config = case["clips"][0], model.config
    limit = maps_tolerance(store.golden, case)
    spec = inference_settings(config).preprocessing
    plain = Preprocessor(spec.model_copy(update={"mean": [0.0] * 3, "std": [1.0] * 3, "pad_divisor": 1}))
    module, decoder = OnlineStep(model).eval(), new_decoder(case["config"], clip, config.num_classes)
    state: dict[str, Tensor] = {}
    results = []
    for t, image in enumerate(seeded_frames(clip["name"], clip["frames"], clip["height"], clip["width"])):
        frame = torch.from_numpy(Preprocessor(spec)(image))
        if f"f{t}/resized_bgr_u8" in store:
            store.exact(f"f{t}/resized_bgr_u8", plain(image)[0].transpose(1, 2, 0).astype(np.uint8))
        state = state or module.initial_state(*frame.shape[2:])
        with Recorder(model, names(model)) as recorder:
            outputs = dict(zip(module.output_names, module(frame, **state), strict=True))
        state = {name: outputs[f"next_{name}"] for name in state}
        check_stages(store, t, model, frame, [state[f"mem_p{i + 3}"] for i in range(len(STRIDES))], recorder, limit)
        check_detections(store, t, outputs)
        arrays = {name: value.numpy() for name, value in outputs.items()}
        results.append(check_frame(store, t, arrays, decoder, clip))
    check_results(store, decoder, results, clip)


def names(model: TPR) -> set[str]:
    """The modules whose inputs and outputs are compared."""
    align = "temporal_align"
    found = {"backbone.bottom_up", "basis_module", "proposal_generator.fcos_head"}
    found |= {f"{align}.{part}" for part in ("offset_gen", "fuse2_1", "fuse2_2", "gate")}
    found |= {f"{align}.align_tower.{i}" for i in range(3)} | {f"{align}.align_tower.0.offset"}
    found |= {f"{align}.align_tower.{i}.gate" for i in (1, 2)}
    for i, depth in enumerate(model.config.cpr_depths):
        found |= {f"{align}.fuse_subnets.{i}.{j}" for j in range(depth)}
    if model.config.cpr == "routing":
        first = f"{align}.fuse_subnets.0.0"
        found |= {f"{first}.dynamic_convs.0", f"{first}.dynamic_convs.1", f"{first}.depth_module.gate"}
    return found
