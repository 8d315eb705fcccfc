"""VISOLO's clip goldens: stages, online state, detections, tracks.

Two runs are compared with the recording. The reference run reads an unbounded list of frames and calls the
network's modules in upstream's order; it gives the stages. The product run is `OnlineStep` with its bounded slots and
the runtime's decoder; it gives the online state, the detections and the tracks.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from visdeploy.manifest import Preprocessing
from visdeploy.methods.visolo import VisoloDecoder
from visdeploy.streaming.preprocessing import Preprocessor
from visdeploy_training.methods.visolo import VISOLO, OnlineStep
from visdeploy_training.methods.visolo.inference import inference_settings
from visdeploy_training.methods.visolo.online import Memory, grid_weight_slots

from .core import Store
from .recording import Recorder
from .seeded import seeded_frames

PRE_INPUT = {"Kernel_branch.coords_resized": "Kernel_branch.conv_layers", "Mask_branch.coords": "Mask_branch.convR4"}


def modules_of(stages: set[str]) -> set[str]:
    """Return the modules to hook for these stages."""
    return {PRE_INPUT.get(s, re.sub(r"(#\d+)?(/input)?$", "", s)) for s in stages}


def stage_value(recorder: Recorder, stage: str) -> Tensor | None:
    if stage in PRE_INPUT:
        found = recorder.values.get(f"{PRE_INPUT[stage]}/input")
        return None if found is None else found[:, -2:]
    return recorder.values.get(stage)


def memory_frames(t: int) -> list[int]:
    """Return the frames in the memory, from the closed form of the update rule."""
    return list(range(t)) if t < 2 else sorted({*range(0, t - 2, 5), t - 2, t - 1})


class ReferenceRun:
    """Computation of the published code, which projects every stored feature again in every frame."""

    def __init__(self, model: VISOLO) -> None:
        self.model = model
        self.past: list[tuple[Tensor, Tensor, Tensor]] = []

    def affinity(self, a: Tensor, b: Tensor) -> Tensor:
        """Return the logits `[1, N, M * N]` between one frame (Q side) and M frames."""
        branch = self.model.Tracking_branch
        query = branch.query(branch.share(a))
        reference = branch.reference(branch.share(b)).permute(1, 0, 2).flatten(1)
        return torch.matmul(query.transpose(1, 2), reference.unsqueeze(0))

    def step(self, image: Tensor) -> dict[str, Any]:
        model, t = self.model, len(self.past)
        own = model.features(image)
        values: dict[str, Any] = {"pred_masks": own.mask_features, "frame_f": own.feature}
        values |= {"cat_f": own.category, "kernel_f": own.kernel}
        frames = memory_frames(t)
        memory = [self.past[k] for k in frames] or [(own.feature, own.category, own.kernel)]
        if t:
            previous = self.affinity(self.past[-1][0], own.feature)
            values["pred_tra_prev_to_cur"] = previous.sigmoid().unsqueeze(1)
        feature, category, kernel = (torch.cat(v) for v in zip(*memory, strict=True))
        logits = self.affinity(own.feature, feature)
        attention = logits.softmax(dim=-1)
        category = model.Memory_module(own.category, attention, category)
        kernel = model.Memory_module(own.kernel, attention, kernel)
        values["pred_cats"] = model.Category_branch_post(category).sigmoid()
        values["pred_kernels"] = model.Kernel_branch.kernels(kernel)
        values["memory_frames_read"] = np.array(frames, np.int64)
        if t:
            used = [0] if t == 1 else [t - 1, 5 * ((t - 2) // 5)]
            cells = logits.shape[1]
            best = logits.unflatten(2, (len(frames), cells)).amax(dim=3).sigmoid()
            chosen = [best[:, :, frames.index(k)] for k in used]
            values["grid_weight"] = (torch.stack(chosen).sum(dim=0) / len(chosen)).unsqueeze(1)
            values["grid_weight_frames"] = np.array(used, np.int64)
        self.past.append((own.feature, own.category, own.kernel))
        return values


class ProductRun:
    """`OnlineStep` and the runtime's decoder."""

    HOOKS = ("Mask_branch.pred", "Kernel_branch.pred", "Category_branch_pre", "Tracking_branch.track_Q_conv2",
             "Tracking_branch.track_R_conv2", "Kernel_branch.conv_layers")  # fmt: skip

    def __init__(self, model: VISOLO, size: tuple[int, int]) -> None:
        self.model, self.size = model, size
        self.module = OnlineStep(model).eval()
        self.state = self.module.initial_state()
        settings = inference_settings(model.config)
        classes = [f"c{i}" for i in range(model.config.num_classes)]
        self.decoder = VisoloDecoder(
            classes, window=settings.window, decode=settings.decode, tracking=settings.tracking, keep_tracks=True
        )
        self.previous_query: Tensor | None = None

    def step(self, image: Tensor, t: int) -> tuple[dict[str, Any], dict[str, np.ndarray], Any]:
        """Return values of the online step by recorded name, raw outputs, frame result."""
        before = Memory(*self.state.values())
        with Recorder(self.model, set(self.HOOKS)) as recorder:
            outputs = dict(zip(self.module.output_names, self.module(image, **self.state), strict=True))
        self.state = {name: outputs[f"next_{name}"] for name in self.state}
        seen = recorder.values
        feature, category = seen["Category_branch_pre"]
        rows, columns = self.model.config.grid
        values: dict[str, Any] = {
            "pred_masks": seen["Mask_branch.pred"],
            "pred_kernels": seen["Kernel_branch.pred"],
            "pred_cats": outputs["cell_scores"].T.reshape(1, -1, rows, columns),
            "frame_f": feature,
            "cat_f": category,
            "kernel_f": seen["Kernel_branch.conv_layers"],
            "memory_frames_read": np.sort(before.frame[before.frame >= 0].numpy()),
        }
        query, reference = (seen[f"Tracking_branch.track_{s}_conv2"].flatten(2) for s in "QR")
        if self.previous_query is not None:
            weights = grid_weight_slots(before)
            used = before.frame[weights > 0].sort(descending=True)[0].numpy()
            values["pred_tra_prev_to_cur"] = (self.previous_query.transpose(1, 2) @ reference).sigmoid().unsqueeze(1)
            values["grid_weight"] = outputs["grid_weight"].reshape(1, 1, -1)
            values["grid_weight_frames"] = used
        self.previous_query = query
        arrays = {k: v.numpy() for k, v in outputs.items() if not k.startswith("next_")}
        result = self.decoder.step(arrays, index=t, timestamp=0.0, height=self.size[0], width=self.size[1])
        return values, arrays, result


def preprocess(store: Store, clip: Mapping[str, Any], model: VISOLO) -> list[Tensor]:
    """Return the network inputs of a clip, after comparing them with the recorded ones."""
    config = model.config
    frames = seeded_frames(clip["clip_name"], clip["num_frames"], clip["height"], clip["width"])
    height, width = clip.get("resized_to") or (clip["height"], clip["width"])
    common = {"channel_order": "rgb", "height": height, "width": width}
    resize = Preprocessor(Preprocessing(mean=[0, 0, 0], std=[1, 1, 1], **common))
    make = Preprocessor(Preprocessing(mean=list(config.pixel_mean), std=list(config.pixel_std), **common))
    inputs = [torch.from_numpy(make(f)) for f in frames]
    resized = [resize(f)[0].transpose(1, 2, 0).astype(np.uint8) for f in frames]
    tolerance = store.golden.tolerance
    for t in range(len(frames)):
        if f"input/frame{t}" in store:
            store.close(f"input/frame{t}", inputs[t], atol=tolerance["float_atol"], rtol=tolerance["float_rtol"])
        if (key := f"input/resized_u8_f{t}") in store:
            store.exact(key, resized[t])
    if "input/resized_u8_sum_per_frame" in store:
        store.exact("input/resized_u8_sum_per_frame", np.array([f.sum(dtype=np.int64) for f in resized]))
    return inputs


def check_online(store: Store, t: int, values: Mapping[str, Any], *, by: str) -> None:
    tolerance = store.golden.tolerance
    for name, value in values.items():
        key = f"online/f{t}/{name}"
        if key not in store:
            continue
        if isinstance(value, np.ndarray):
            store.exact(key, value, note=by)
        elif name == "grid_weight":
            store.close(key, value, atol=tolerance["grid_weight_atol"], note=by)
        else:
            store.close(key, value, atol=tolerance["float_atol"], rtol=tolerance["float_rtol"], note=by)


def score_slack(differ: float) -> float:
    """Return the tolerance of a score, a mean over the mask decayed by IoU, if a share `differ` of the mask differs.

    One pixel of 2,159 at its threshold moves a score by 1.7e-4, beyond the tolerance of scores and far within that of
    masks; which side such a pixel falls on depends on the processor.
    """
    return 2 * differ


def check_detections(store: Store, t: int, outputs: Mapping[str, np.ndarray], decoder: VisoloDecoder) -> None:
    tolerance, det = store.golden.tolerance, f"online/f{t}/det"
    last = decoder.last
    kept, found = last.kept, last.association
    if f"{det}/count" in store:
        store.exact(f"{det}/count", len(kept))
    discrete = {"cell": outputs["cells"][kept], "label": outputs["labels"][kept], "track_id": found.track_ids}
    for name, value in discrete.items():
        if f"{det}/{name}" in store:
            store.exact(f"{det}/{name}", value)
    differ = 0.0
    if f"{det}/masks_packed" in store:
        fraction = tolerance["mask_bits_mismatch_max_fraction"]
        differ = store.masks(f"{det}/masks", outputs["masks"][kept], fraction=fraction)
    for name, source, slack in (("score", "scores", score_slack(differ)), ("class_scores", "class_scores", 0.0)):
        if f"{det}/{name}" in store:
            store.close(f"{det}/{name}", outputs[source][kept], atol=tolerance["scores_atol"] + slack)
    state = {"lost_before_append": found.lost.reshape(-1, 3), "num_tracks": found.num_tracks}
    state["prev_matched"] = found.previous_matched.astype(np.int64)
    for name, value in state.items():
        if f"online/f{t}/{name}" in store:
            store.exact(f"online/f{t}/{name}", value)


class Tracks:
    """The final tracks of a clip, collected frame by frame."""

    def __init__(self, frames: int, size: tuple[int, int]) -> None:
        self.frames, self.size = frames, size
        self.masks: dict[tuple[int, int], np.ndarray] = {}
        self.labels: dict[tuple[int, int], tuple[int, float]] = {}

    def add(self, t: int, outputs: Mapping[str, np.ndarray], result: Any, decoder: VisoloDecoder) -> None:
        for row, track in zip(decoder.last.kept, decoder.last.association.track_ids.tolist(), strict=True):
            self.labels[track, t] = int(outputs["labels"][row]), float(outputs["scores"][row])
        for instance in result.instances:
            self.masks[instance.track_id, t] = instance.mask.decode()

    def check(self, store: Store, decoder: VisoloDecoder) -> None:
        tolerance, tracks = store.golden.tolerance, decoder.summaries()
        if "final/is_none" in store:
            store.exact("final/is_none", not tracks)
        count = len(tracks)
        masks = np.zeros((count, self.frames, *self.size), bool)
        labels, scores = np.full((count, self.frames), -1), np.zeros((count, self.frames))
        for (track, t), mask in self.masks.items():
            masks[track, t] = mask
        for (track, t), (label, score) in self.labels.items():
            labels[track, t], scores[track, t] = label, score
        differ = 0.0
        if "final/masks_packed" in store:
            differ = store.masks("final/masks", masks, fraction=tolerance["mask_bits_mismatch_max_fraction"])
        if "final/scores" in store:
            store.close("final/scores", np.array([t.score for t in tracks]), atol=tolerance["final_scores_atol"])
            store.exact("final/labels", np.array([t.label for t in tracks]))
            store.exact("final/track_frame_label", labels)
            store.close("final/track_frame_score", scores, atol=tolerance["scores_atol"] + score_slack(differ))


@torch.no_grad()
def check_clip(store: Store, clip: Mapping[str, Any], model: VISOLO) -> None:
    """Compare both runs on one clip."""
    size: tuple[int, int] = tuple(clip.get("output_size") or (clip["height"], clip["width"]))
    inputs = preprocess(store, clip, model)
    reference, product, tracks = ReferenceRun(model), ProductRun(model, size), Tracks(len(inputs), size)
    tolerance = store.golden.tolerance
    for t, image in enumerate(inputs):
        stages = {k.removeprefix(f"stage/f{t}/") for k in store.keys(rf"stage/f{t}/.*")}
        with Recorder(model, modules_of(stages)) as recorder:
            values = reference.step(image)
        for stage in sorted(stages):
            if (value := stage_value(recorder, stage)) is not None:
                key = f"stage/f{t}/{stage}"
                store.close(key, value, atol=tolerance["float_atol"], rtol=tolerance["float_rtol"])
        check_online(store, t, values, by="unbounded memory")
        values, outputs, result = product.step(image, t)
        check_online(store, t, values, by="online step")
        check_detections(store, t, outputs, product.decoder)
        tracks.add(t, outputs, result, product.decoder)
    tracks.check(store, product.decoder)
