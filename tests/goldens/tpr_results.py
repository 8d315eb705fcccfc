"""Golden data of TPR's clips behind the network: identities, final boxes and masks, the result file."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from visdeploy.manifest import Preprocessing, Window
from visdeploy.masks import Mask
from visdeploy.methods.base import Arrays
from visdeploy.methods.tpr import TPRDecoder
from visdeploy.methods.tpr_boxes import pasted_mask
from visdeploy.results import FrameResult
from visdeploy.streaming.preprocessing import Preprocessor

from .core import Store

BOUNDS = (("boxes", "abs_pixels"), ("scores", "abs"), ("match_scores", "abs"))
UNCERTAIN = "mask_uncertain_packed"
BoolArray = npt.NDArray[np.bool_]


def new_decoder(config: Mapping[str, Any], clip: Mapping[str, Any], classes: int) -> TPRDecoder:
    """The runtime's decoder for a recorded clip.

    Args:
        config: Field `config` of the manifest or of one of its variants.
        clip: Entry of the field `clips` beside it.
        classes: Number of classes.
    """
    score_weight, iou_weight, label_weight = config["match_coefficients"]
    tracking = {"score_weight": score_weight, "iou_weight": iou_weight, "label_weight": label_weight}
    names, window = [f"class{i}" for i in range(classes)], Window(mode="online")
    decoder = TPRDecoder(names, window=window, decode={}, tracking=tracking, keep_tracks=True)
    height, width = clip["resize_shape"]
    decoder.preprocessor = Preprocessor(
        Preprocessing(channel_order="bgr", mean=[0, 0, 0], std=[1, 1, 1], height=height, width=width)
    )
    return decoder


def check_frame(store: Store, t: int, outputs: Arrays, decoder: TPRDecoder, clip: Mapping[str, Any]) -> FrameResult:
    """Process a frame with the decoder; compare `det/obj_ids` and all of `track/*` and `final/*` with their statistics.

    Args:
        store: The recording.
        t: Frame; all earlier ones must have been processed.
        outputs: The network's outputs, as described by `TPRDecoder.step`.
        decoder: The decoder of the clip, see `new_decoder`.
        clip: Entry of the manifest's field `clips`.
    """
    limits, size = store.golden.tolerance, (clip["height"], clip["width"])
    result = decoder.step(outputs, index=t, timestamp=0.0, height=size[0], width=size[1])
    last, objects = decoder.last, decoder.memory.objects
    assert last is not None
    ids, kept = last.assignment.object_ids, last.kept
    box, score, match = (limits[name][unit] for name, unit in BOUNDS)
    store.exact(f"f{t}/det/obj_ids", ids)
    if f"f{t}/track/comp_scores" in store:
        _close(store, f"f{t}/track/comp_scores", last.assignment.scores, match)
    _close(store, f"f{t}/track/memory_boxes_after", objects.boxes, box)
    store.exact(f"f{t}/track/memory_labels_after", objects.labels)
    store.exact(f"f{t}/track/memory_count_after", np.array([len(objects)]))
    _close(store, f"f{t}/final/boxes", last.boxes[kept], box)
    _close(store, f"f{t}/final/scores", outputs["scores"][kept], score)
    store.exact(f"f{t}/final/classes", outputs["labels"][kept])
    store.exact(f"f{t}/final/obj_ids", ids[kept])
    masks = [
        pasted_mask(outputs["masks"][row], last.boxes[row], threshold=0.5, height=size[0], width=size[1])
        for row in kept
    ]
    _check_masks(store, t, masks, size)
    shown = {int(ids[row]): mask for row, mask in zip(kept, masks, strict=True) if ids[row] >= 0 and mask.area}
    store.row(f"f{t}/final/instances", float({i.track_id: i.mask for i in result} != shown), 0.0)
    return result


def _close(store: Store, key: str, value: npt.NDArray[Any], limit: float) -> None:
    """Compare an array and its statistics: mean, standard deviation, largest absolute value, number of elements."""
    store.close(key, value, atol=limit)
    if f"stats/{key}" in store:
        wide = value.astype(np.float64)
        found = [wide.mean(), wide.std(), np.abs(wide).max(), wide.size] if wide.size else [0.0] * 4
        store.close(f"stats/{key}", np.array(found), atol=limit)


def _check_masks(store: Store, t: int, masks: Sequence[Mask], size: tuple[int, int]) -> None:
    """Compare every pixel that is not recorded as uncertain, and the areas as far as they are certain."""
    recorded, uncertain = (_unpack(store, f"f{t}/final/{name}", size) for name in ("masks_packed", UNCERTAIN))
    areas = store.take(f"f{t}/final/mask_areas")
    found = np.array([mask.decode() for mask in masks]).reshape(len(masks), *size)
    if found.shape != recorded.shape:
        return store.row(f"f{t}/final/masks_packed", np.inf, 0.0, note=f"{found.shape} for {recorded.shape}")
    store.row(f"f{t}/final/masks_packed", float(np.sum((found != recorded) & ~uncertain)), 0.0)
    doubt = uncertain.sum(axis=(1, 2))
    excess = np.maximum(np.abs(found.sum(axis=(1, 2)) - areas) - doubt, 0)
    return store.row(f"f{t}/final/mask_areas", float(excess.sum()), 0.0)


def _unpack(store: Store, key: str, size: tuple[int, int]) -> BoolArray:
    pixels = size[0] * size[1]
    return np.unpackbits(store.take(key), axis=1, count=pixels).reshape(-1, *size).astype(bool)


def check_results(store: Store, decoder: TPRDecoder, results: Sequence[FrameResult], clip: Mapping[str, Any]) -> None:
    """Compare the tracks of the clip with the result file recorded beside `store`.

    Args:
        store: The recording, `NAME.npz`; the file is `NAME_results.json`.
        decoder: The decoder after the last frame.
        results: The results of all frames, from `check_frame`.
        clip: Entry of the manifest's field `clips`.
    """
    size = (clip["height"], clip["width"])
    path = store.golden.folder / store.file.replace(".npz", "_results.json")
    recorded = json.loads(path.read_text(encoding="utf-8"))
    tracks = decoder.summaries()
    store.row("results/tracks", float(len(tracks) != len(recorded)), 0.0)
    uncertain: dict[tuple[int, int], BoolArray] = {}
    for t in range(len(results)):
        doubts = _unpack(store, f"f{t}/final/{UNCERTAIN}", size)
        for track_id, doubt in zip(store.take(f"f{t}/final/obj_ids").tolist(), doubts, strict=True):
            uncertain[t, track_id] = doubt  # as in the file, the later of two detections counts
    for track, entry in zip(tracks, recorded, strict=False):
        store.row("results/video_id", float(entry["video_id"] != 1), 0.0)
        store.row("results/category_id", float(entry["category_id"] != track.label + 1), 0.0)
        store.row("results/score", abs(entry["score"] - track.score), store.golden.tolerance["scores"]["abs"])
        for t, (result, segmentation) in enumerate(zip(results, entry["segmentations"], strict=True)):
            shown = [i.mask.decode() for i in result if i.track_id == track.track_id]
            found = shown[0] if shown else np.zeros(size, bool)
            wanted = Mask.from_coco(segmentation).decode() if segmentation else np.zeros(size, bool)
            certain = ~uncertain.get((t, track.track_id), np.zeros(size, bool))
            store.row("results/segmentations", float(np.sum((found != wanted) & certain)), 0.0)
