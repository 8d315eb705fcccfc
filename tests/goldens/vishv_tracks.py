"""Golden data of VIShv behind the network: clustering, chaining, windows, tracks, and the results of three data sets.

`check_clip` compares everything that follows from the outputs of the network, with the decoder of the runtime. The
outputs come from a function of the caller. `check_stored` starts from the arrays in the recording alone.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from visdeploy.manifest import Preprocessing, Window
from visdeploy.masks import Mask
from visdeploy.masks.resampling import padded_mask_values, resize_padded_mask
from visdeploy.methods.base import Arrays, TrackSummary
from visdeploy.methods.vishv import ClusteredWindow, VIShvDecoder
from visdeploy.methods.vishv_tracks import TrackTable, pixel_votes
from visdeploy.methods.vishv_windows import FrameSums, WindowOutputs, add_window
from visdeploy.results import FrameResult
from visdeploy.streaming.preprocessing import Preprocessor
from visdeploy.tracking import sigmoid
from visdeploy.tracking.cluster_chain import Chain
from visdeploy.tracking.embedding_clusters import find_clusters
from visdeploy.tracking.embedding_points import Points

from .core import Store
from .vishv_clusters import check_links, check_table, window_frames

Outputs = Callable[[list[int]], Arrays]
"""Frames of a window, with repetitions, to the outputs of the network that `VIShvDecoder.decode` describes."""
_DATASETS = {
    "youtube_vis": ("ytvis", "YOUTUBE_VIS"),
    "davis": ("davis", "DAVIS"),
    "kitti_mots": ("kittimots", "KITTI_MOTS"),
}
_TIE = 2e-6
"""Pixels whose resized mask is this close to one half are decided by rounding in the recording."""
FloatArray = npt.NDArray[np.float32]
BoolArray = npt.NDArray[np.bool_]
Pixels = Callable[[int, int], BoolArray]
"""Frame and track id to pixels at the size of the frame."""


def new_decoder(config: Mapping[str, Any], clip: Mapping[str, Any]) -> VIShvDecoder:
    """The decoder of the runtime for a recorded clip.

    Args:
        config: Field `config` of the manifest.
        clip: Entry of its field `clips`.
    """
    output, section = _DATASETS[config["TRAINING"]["MODE"]]
    data, clustering = config["DATA"][section], config["CLUSTERING"]
    classes = config["INPUT"]["NUM_CLASSES"] - 1
    length = clip["window_length"]
    decode = {
        "min_seediness": clustering["MIN_SEEDINESS_PROB"],
        "primary_threshold": clustering["PRIMARY_PROB_THRESHOLD"],
        "secondary_threshold": clustering["SECONDARY_PROB_THRESHOLD"],
        "free_dim_stds": config["TRAINING"]["LOSSES"]["EMBEDDING"]["FREE_DIM_STDS"],
        "seediness_threshold": clip.get("seediness_thresh", 0.25),
        "output": output,
        "max_tracks": data["MAX_INFERENCE_TRACKS"],
    }
    window = Window(
        mode="clip",
        length=length,
        stride=length - data["INFERENCE_FRAME_OVERLAP"],
        short_video="repeat_first_frame",
    )
    names = [f"class{i}" for i in range(classes)]
    decoder = VIShvDecoder(names, window=window, decode=decode, tracking={}, keep_tracks=True)
    decoder.preprocessor = preprocessor(clip)
    return decoder


def preprocessor(
    clip: Mapping[str, Any], *, mean: Sequence[float] = (0, 0, 0), std: Sequence[float] = (1, 1, 1), pad: int = 32
) -> Preprocessor:
    """Return the preprocessing of the runtime for a recorded clip.

    Args:
        clip: Entry of the manifest's `clips`, with the sizes of shorter and longer side.
        mean: Mean of the channels in BGR order.
        std: Standard deviations.
        pad: Divisor of the padded sides.
    """
    return Preprocessor(
        Preprocessing(
            channel_order="bgr",
            mean=list(mean),
            std=list(std),
            resize="shortest_edge",
            rounding="half_even",
            interpolation="float_bilinear",
            height=clip["min_dim"],
            width=clip["max_dim"],
            pad_divisor=pad,
        )
    )


def check_clip(store: Store, config: Mapping[str, Any], clip: Mapping[str, Any], outputs: Outputs) -> None:
    """Compare windows, tracks and final results of a recorded clip, from the outputs of the network on.

    Args:
        store: The recording.
        config: Field `config` of the manifest.
        clip: Entry of its field `clips`.
        outputs: The network.
    """
    decoder, name = new_decoder(config, clip), clip["name"]
    limit = store.golden.tolerance["masks"]["max_label_mismatch_fraction"]
    windows: list[ClusteredWindow] = []
    results: list[FrameResult] = []
    sums: dict[int, FrameSums] = {}
    size = (clip["H"], clip["W"])
    for frames, step in window_frames(clip["T"], decoder.window):
        found = outputs(frames)
        results += decoder.decode(found, step, height=size[0], width=size[1])
        sums = add_outputs(sums, decoder, found, frames)
        windows += decoder.windows
    results += decoder.finish()
    windows += decoder.windows
    _check_averages(store, clip, sums)
    foreground = {t: mask for w in windows for t, mask in zip(w.frames, w.foreground, strict=True)}
    masks = np.stack([foreground[t] for t in range(clip["T"])])
    wanted = _foreground(store, name)
    store.row(f"{name}/fg_mask", float(np.mean(masks != wanted)), limit)
    chain = Chain()
    for number, window in enumerate(windows):
        _check_window(store, f"{name}/win{number}", window, chain, wanted, limit)
        chain = window.chain
    labels = np.zeros(masks.shape, np.int64)
    for window in windows:
        for t, each in window.labels.items():
            labels[t][foreground[t]] = np.where(each < 0, -1, each + 1)
    stored = store.take(f"{name}/track_labels")
    store.row(f"{name}/track_labels", float(np.mean(labels != stored)), limit)
    check_table(store, name, labels, limit)
    check_results(store, config, clip, decoder.kept_tracks(), _dense(results, size), _ties(labels, clip))


def add_outputs(
    sums: dict[int, FrameSums], decoder: VIShvDecoder, outputs: Arrays, frames: list[int]
) -> dict[int, FrameSums]:
    """Return the sums of the runtime with one more window."""
    parameters = decoder.decode_parameters
    channels = None if parameters.output == "davis" else len(decoder.classes) + 1
    found = WindowOutputs.of(outputs, free_dims=len(parameters.free_dim_stds), channels=channels)
    return add_window(sums, found, [(row, frame, 0.0) for row, frame in enumerate(frames)])


def _check_averages(store: Store, clip: Mapping[str, Any], sums: dict[int, FrameSums]) -> None:
    """Compare the probability of the foreground and the logits of the classes, means over all windows."""
    name, heads = clip["name"], store.golden.tolerance["heads"]
    coarse = bool(clip.get("resize_embeddings"))
    if f"{name}/fg_prob" in store:
        logits = np.stack([sums[t].foreground / np.float32(sums[t].count) for t in range(clip["T"])])
        step = {"1": 4, "2": 4} if coarse else {}
        store.subsample = {**store.subsample, f"{name}/fg_prob": step}
        store.close(f"{name}/fg_prob", sigmoid(logits), **heads)
    everywhere = np.ones(sums[0].foreground.shape, bool)
    shape = (-1, *everywhere.shape)
    for key in ("category_logits", "argmax"):
        if f"{name}/{key}" not in store:
            continue
        means = np.stack([sums[t].class_means(everywhere).reshape(shape) for t in range(clip["T"])])
        if key == "argmax":
            stored, limit = store.take(f"{name}/{key}"), store.golden.tolerance["masks"]
            store.exact(f"{name}/{key}/shape", np.array(stored.shape))
            different = float(np.mean(means.argmax(axis=1) != stored))
            store.row(f"{name}/{key}", different, limit["max_label_mismatch_fraction"])
            continue
        space = 4 if coarse else 2
        store.subsample = {**store.subsample, f"{name}/{key}": {"1": 8, "2": space, "3": space}}
        store.close(f"{name}/{key}", means, **heads)


def check_foreground(store: Store, config: Mapping[str, Any], clip: Mapping[str, Any]) -> None:
    """Compare the foreground of a clip that stores the whole seediness of every window, without a semantic head."""
    name, decoder = clip["name"], new_decoder(config, clip)
    parameters = decoder.decode_parameters
    sums: dict[int, FrameSums] = {}
    for number, (frames, _) in enumerate(window_frames(clip["T"], decoder.window)):
        seediness = store.take(f"{name}/win{number}/seediness_head")[0]
        dims = len(parameters.free_dim_stds)
        maps = [np.zeros((len(seediness), n, *seediness.shape[1:]), np.float32) for n in (dims + 1, 1)]
        outputs = {"embeddings": maps[0], "bandwidths": maps[1], "seediness": seediness}
        sums = add_outputs(sums, decoder, outputs, frames)
    found = np.stack([sums[t].mask(parameters.seediness_threshold) for t in range(clip["T"])])
    store.row(f"{name}/fg_mask", float(np.mean(found != _foreground(store, name))), 0.0)


def _ties(labels: npt.NDArray[np.int64], clip: Mapping[str, Any]) -> Pixels:
    """Return a function from frame and track id to the pixels that rounding decides."""
    size, scale = (clip["H"], clip["W"]), 1 if clip.get("resize_embeddings") else 4
    content = preprocessor(clip).content_size(*size)
    return lambda t, k: np.abs(padded_mask_values(labels[t] == k + 1, scale, content, *size) - 0.5) <= _TIE


def _foreground(store: Store, name: str) -> BoolArray:
    shape = tuple(store.take(f"{name}/fg_mask/shape"))
    bits = np.unpackbits(store.take(f"{name}/fg_mask"), count=int(np.prod(shape)))
    return bits.reshape(shape).astype(bool)


def _check_window(
    store: Store, key: str, window: ClusteredWindow, before: Chain, wanted: BoolArray, limit: float
) -> None:
    clusters, heads = window.clusters, store.golden.tolerance["heads"]
    start = window.start + 1
    store.exact(f"{key}/cluster_ids", np.arange(len(clusters)) + start)
    store.close(f"{key}/cluster_centers", clusters.centers, **heads)
    store.close(f"{key}/cluster_stds", clusters.stds, **heads)
    counts = store.take(f"{key}/cluster_counts")
    off = np.abs(counts - window.counts).sum()
    store.row(f"{key}/cluster_counts", float(off) / max(int(counts.sum()), 1), limit)
    dense, stored = (np.full(window.foreground.shape, -2) for _ in range(2))
    dense[window.foreground] = np.where(clusters.labels < 0, -1, clusters.labels + start)
    stored[wanted[window.frames.start : window.frames.stop]] = store.take(f"{key}/cluster_labels")
    store.row(f"{key}/cluster_labels", float(np.mean(dense != stored)), limit)
    if f"{key}/associations" in store:
        parts = np.split(clusters.labels, np.cumsum(window.counts)[:-1])
        found = dict(zip(window.frames, parts, strict=True))
        check_links(store, key, "association_costs", before, window.chain, found, 1e-2)


def _dense(results: Iterable[FrameResult], size: tuple[int, int]) -> Pixels:
    masks = {(r.index, i.track_id): i.mask for r in results for i in r}
    return lambda t, k: masks[t, k].decode() if (t, k) in masks else np.zeros(size, bool)


def check_results(
    store: Store,
    config: Mapping[str, Any],
    clip: Mapping[str, Any],
    kept: list[TrackSummary],
    mask: Pixels,
    ties: Pixels,
) -> None:
    """Compare the result of a clip with the recorded file of its data set.

    Args:
        store: The recording; JSON results lie beside it.
        config: Field `config` of the manifest.
        clip: Entry of its field `clips`.
        kept: The tracks of the result, in its order.
        mask: The masks.
        ties: The pixels that rounding decides.
    """
    name, size = clip["name"], (clip["H"], clip["W"])
    output = _DATASETS[config["TRAINING"]["MODE"]][0]
    if output == "davis":
        image, doubt = np.zeros((clip["T"], *size), np.uint8), np.zeros((clip["T"], *size), bool)
        for number, track in enumerate(kept, start=1):
            for t in range(clip["T"]):
                image[t][mask(t, track.track_id)] = number
                doubt[t] |= ties(t, track.track_id)
        fraction = store.golden.tolerance["masks"]["max_label_mismatch_fraction"]
        store.row(f"{name}/png", float(np.mean((image != store.take(f"{name}/png")) & ~doubt)), fraction)
        return
    path = store.golden.folder / store.file.replace(".npz", "_results.json")
    recorded = json.loads(path.read_text(encoding="utf-8"))[name]
    check = _check_ytvis if output == "ytvis" else _check_mots
    check(store, f"{name}/results", recorded, kept, mask, ties, clip)


def _check_ytvis(
    store: Store,
    key: str,
    recorded: list[dict[str, Any]],
    kept: list[TrackSummary],
    mask: Pixels,
    ties: Pixels,
    clip: Mapping[str, Any],
) -> None:
    store.row(f"{key}/tracks", float(abs(len(recorded) - len(kept))), 0.0)
    for entry, track in zip(recorded, kept, strict=False):
        store.row(f"{key}/category_id", float(entry["category_id"] != track.label + 1), 0.0)
        store.row(f"{key}/score", abs(entry["score"] - track.score), 5e-3)
        differ = union = 0
        for t in range(clip["T"]):
            wanted, found = Mask.from_coco(entry["segmentations"][t]).decode(), mask(t, track.track_id)
            differ += int(((wanted != found) & ~ties(t, track.track_id)).sum())
            union += int((wanted | found).sum())
        store.row(f"{key}/segmentations", differ / max(union, 1), 1 - store.golden.tolerance["masks"]["min_iou"])


def _check_mots(
    store: Store,
    key: str,
    recorded: list[str],
    kept: list[TrackSummary],
    mask: Pixels,
    ties: Pixels,
    clip: Mapping[str, Any],
) -> None:
    wanted = {}
    for line in recorded:
        frame, number, category, height, width, counts = line.split()
        wanted[int(frame), int(number)] = Mask.from_coco({"size": [int(height), int(width)], "counts": counts})
        store.row(f"{key}/category", float(int(number) // 1000 != int(category)), 0.0)
    found = {}
    for index, track in enumerate(kept, start=1):
        for t in range(clip["T"]):
            if (dense := mask(t, track.track_id)).any():
                found[t, (track.label + 1) * 1000 + index] = track.track_id, dense
    store.row(f"{key}/lines", float(len(set(wanted) ^ set(found))), 0.0)
    for place in sorted(set(wanted) & set(found)):
        (track_id, b), a = found[place], wanted[place].decode()
        differ = int(((a != b) & ~ties(place[0], track_id)).sum())
        store.row(f"{key}/masks", differ / max(int((a | b).sum()), 1), 1 - store.golden.tolerance["masks"]["min_iou"])


def check_stored(store: Store, config: Mapping[str, Any], clip: Mapping[str, Any]) -> None:
    """Compare the results that follow from the stored tracks alone: masks, order, scores, votes of the classes.

    Where the recording has no logits of all classes, the class of a track is not compared.
    """
    name, decoder = clip["name"], new_decoder(config, clip)
    labels = store.take(f"{name}/track_labels").astype(np.int64)
    parameters, size = decoder.decode_parameters, (clip["H"], clip["W"])
    table = TrackTable(parameters.output)
    classes = len(decoder.classes)
    for t, each in enumerate(labels):
        pixels = each[each != 0]
        logits = np.zeros((0, len(pixels)), np.float32)
        if f"{name}/argmax" in store:
            logits = np.eye(classes + 1, dtype=np.float32)[store.take(f"{name}/argmax")[t][each != 0]].T
        elif parameters.output == "ytvis":
            logits = np.zeros((classes + 1, len(pixels)), np.float32)
        ids = np.where(pixels < 0, -1, pixels - 1).astype(np.int32)
        table = table.add(t, pixel_votes(ids, logits, parameters.output, classes))
    order = table.kept(parameters.max_tracks)
    most = max(table.tracks[k].pixels for k in order)
    kept = []
    recorded = _recorded(store, name)
    for place, k in enumerate(order):
        track = table.tracks[k]
        label = track.judge(parameters.output)[0]
        if parameters.output == "ytvis":
            label = recorded[place]["category_id"] - 1
        kept.append(TrackSummary(k, label, track.pixels / most, (), track.lifetime + 1))
    scale = 1 if clip.get("resize_embeddings") else 4
    content = preprocessor(clip).content_size(*size)

    def mask(t: int, k: int) -> BoolArray:
        return resize_padded_mask(labels[t] == k + 1, scale, content, *size)

    check_results(store, config, clip, kept, mask, _ties(labels, clip))


def check_first_window(store: Store, config: Mapping[str, Any], clip: Mapping[str, Any]) -> None:
    """Compare the clusters of the first window of a clip whose whole head is stored, in the stored foreground."""
    name, parameters = clip["name"], new_decoder(config, clip).decode_parameters
    head = store.take(f"{name}/win0/embedding_head").swapaxes(0, 1)
    size = store.take(f"{name}/win0/cluster_centers").shape[1]
    bands = size - len(parameters.free_dim_stds)
    separate = f"{name}/win0/seediness_head"
    seediness = store.take(separate)[0] if separate in store else head[:, size + bands]
    bandwidths = np.float32(10) * np.exp(head[:, size : size + bands])
    foreground = _foreground(store, name)[: len(head)]
    points = Points.of(head[:, :size], bandwidths, seediness, list(foreground))
    clusters, frames = find_clusters(points, parameters.rule), range(len(head))
    window = ClusteredWindow(frames, foreground, clusters, points.counts, 0, Chain(), {})
    _check_window(store, f"{name}/win0", window, Chain(), foreground, 0.0)


def _recorded(store: Store, name: str) -> Any:
    path = store.golden.folder / store.file.replace(".npz", "_results.json")
    return json.loads(path.read_text(encoding="utf-8"))[name] if path.is_file() else []
