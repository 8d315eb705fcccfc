"""Golden data of VIShv behind the network: clustering, chaining, windows, tracks, and the results of three data sets.

`check_clip` compares everything that follows from the outputs of the network, with the decoder of the runtime. The
outputs come from a function of the caller. `check_stored` starts from the arrays in the recording alone.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from visdeploy.formats.davis import davis_palette
from visdeploy.manifest import Preprocessing, Window
from visdeploy.masks import Mask
from visdeploy.masks.resampling import resize_padded_mask
from visdeploy.methods.base import Arrays, TrackSummary
from visdeploy.methods.vishv import ClusteredWindow, VIShvDecoder
from visdeploy.methods.vishv_tracks import TrackTable, pixel_votes
from visdeploy.results import FrameResult
from visdeploy.streaming.preprocessing import Preprocessor
from visdeploy.streaming.windows import Feeder, Step, steps
from visdeploy.tracking.cluster_chain import Chain
from visdeploy.tracking.embedding_clusters import Clusters, ClusterRule, Points, find_clusters

from .core import Golden, Store

Outputs = Callable[[list[int]], Arrays]
"""Frames of a window, with repetitions, to the outputs of the network that `VIShvDecoder.decode` describes."""
_DATASETS = {"youtube_vis": ("ytvis", "YOUTUBE_VIS"), "davis": ("davis", "DAVIS"), "kitti_mots": ("kittimots", "KITTI_MOTS")}  # fmt: skip
FloatArray = npt.NDArray[np.float32]
BoolArray = npt.NDArray[np.bool_]


def enlarged(values: FloatArray) -> FloatArray:
    """Resize the last two axes by 4, bilinear, corners not aligned, as the graph does."""
    import torch

    found = torch.nn.functional.interpolate(
        torch.from_numpy(np.ascontiguousarray(values)), scale_factor=4, mode="bilinear", align_corners=False
    )
    return np.asarray(found.numpy(), np.float32)


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


def preprocessor(clip: Mapping[str, Any]) -> Preprocessor:
    """Return the sizes of a recorded clip: the shorter side, limited by the longer one, and padding to 32."""
    return Preprocessor(
        Preprocessing(
            channel_order="bgr",
            mean=[0, 0, 0],
            std=[1, 1, 1],
            resize="shortest_edge",
            height=clip["min_dim"],
            width=clip["max_dim"],
            pad_divisor=32,
        )
    )


def window_frames(frames: int, window: Window) -> list[tuple[list[int], Step]]:
    """Return the frames of every window with repetitions, and its step, as the runtime's streams group them."""
    feeder = Feeder("frames", window, fixed=True)
    tagged = [(np.full((1, 3, 1, 1), t, np.float32), None) for t in range(frames)]
    return [(step.inputs["frames"][:, 0, 0, 0].astype(int).tolist(), step) for step in steps(feeder, tagged)]


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
    size = (clip["H"], clip["W"])
    for frames, step in window_frames(clip["T"], decoder.window):
        results += decoder.decode(outputs(frames), step, height=size[0], width=size[1])
        windows += decoder.windows
    results += decoder.finish()
    windows += decoder.windows
    foreground = {t: mask for w in windows for t, mask in zip(w.frames, w.foreground, strict=True)}
    masks = np.stack([foreground[t] for t in range(clip["T"])])
    wanted = _foreground(store, name)
    store.row(f"{name}/fg_mask", float(np.mean(masks != wanted)), limit)
    for number, window in enumerate(windows):
        _check_window(store, f"{name}/win{number}", window, wanted, limit)
    labels = np.zeros(masks.shape, np.int64)
    for window in windows:
        for t, each in window.labels.items():
            labels[t][foreground[t]] = np.where(each < 0, -1, each + 1)
    stored = store.take(f"{name}/track_labels")
    store.row(f"{name}/track_labels", float(np.mean(labels != stored)), limit)
    _check_table(store, name, labels, limit)
    check_results(store, config, clip, decoder.kept_tracks(), _dense(results, size))


def _foreground(store: Store, name: str) -> BoolArray:
    shape = tuple(store.take(f"{name}/fg_mask/shape"))
    bits = np.unpackbits(store.take(f"{name}/fg_mask"), count=int(np.prod(shape)))
    return bits.reshape(shape).astype(bool)


def _check_window(store: Store, key: str, window: ClusteredWindow, wanted: BoolArray, limit: float) -> None:
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
        _check_links(store, key, "association_costs", window.chain, start, len(clusters), 1e-2)


def _check_links(
    store: Store, key: str, costs: str, chain: Chain, start: int, clusters: int, limit: float, old: Iterable[int] = ()
) -> None:
    """Compare the links of a window; clusters are numbered from `start`, tracks from 1."""
    pairs = np.array([(link.track + 1, link.cluster + start) for link in chain.links], np.int64).reshape(-1, 2)
    store.exact(f"{key}/associations", pairs)
    store.close(f"{key}/{costs}", np.array([link.cost for link in chain.links], np.float32), atol=limit)
    unmatched = store.take(f"{key}/unmatched_new")
    free = sorted(set(range(start, start + clusters)) - set(pairs[:, 1].tolist()))
    # without any link, upstream lists none of them
    store.row(f"{key}/unmatched_new", float(len(pairs) > 0 and sorted(unmatched.tolist()) != free), 0.0)
    lost = store.take(f"{key}/unmatched_old").tolist()
    store.row(f"{key}/unmatched_old", float(bool(set(lost) & set(pairs[:, 0].tolist()))), 0.0)


def _check_table(store: Store, name: str, labels: npt.NDArray[np.int64], limit: float) -> None:
    """Compare number of pixels and lifetime of every track; the recording also counts outliers as a track."""
    ids = np.unique(labels[labels != 0])
    present = [np.flatnonzero((labels == k).any(axis=(1, 2))) for k in ids]
    store.exact(f"{name}/track_ids", ids)
    points = store.take(f"{name}/track_points")
    found = np.array([np.count_nonzero(labels == k) for k in ids])
    same = found.shape == points.shape
    store.row(f"{name}/track_points", float(np.abs(found - points).sum() / labels.size) if same else np.inf, limit)
    store.exact(f"{name}/track_lifetimes", np.array([each[-1] - each[0] for each in present], np.int64))


def _dense(results: Iterable[FrameResult], size: tuple[int, int]) -> Callable[[int, int], BoolArray]:
    masks = {(r.index, i.track_id): i.mask for r in results for i in r}
    return lambda t, k: masks[t, k].decode() if (t, k) in masks else np.zeros(size, bool)


def check_results(
    store: Store,
    config: Mapping[str, Any],
    clip: Mapping[str, Any],
    kept: list[TrackSummary],
    mask: Callable[[int, int], BoolArray],
) -> None:
    """Compare the result of a clip with the recorded file of its data set.

    Args:
        store: The recording; JSON results lie beside it.
        config: Field `config` of the manifest.
        clip: Entry of its field `clips`.
        kept: The tracks of the result, in its order.
        mask: Frame and track id to the mask at the size of the frame.
    """
    name, size = clip["name"], (clip["H"], clip["W"])
    output = _DATASETS[config["TRAINING"]["MODE"]][0]
    if output == "davis":
        image = np.zeros((clip["T"], *size), np.uint8)
        for number, track in enumerate(kept, start=1):
            for t in range(clip["T"]):
                image[t][mask(t, track.track_id)] = number
        fraction = store.golden.tolerance["masks"]["max_label_mismatch_fraction"]
        store.row(f"{name}/png", float(np.mean(image != store.take(f"{name}/png"))), fraction)
        return
    path = store.golden.folder / store.file.replace(".npz", "_results.json")
    recorded = json.loads(path.read_text(encoding="utf-8"))[name]
    check = _check_ytvis if output == "ytvis" else _check_mots
    check(store, f"{name}/results", recorded, kept, mask, clip)


def _check_ytvis(
    store: Store,
    key: str,
    recorded: list[dict[str, Any]],
    kept: list[TrackSummary],
    mask: Callable[[int, int], BoolArray],
    clip: Mapping[str, Any],
) -> None:
    store.row(f"{key}/tracks", float(abs(len(recorded) - len(kept))), 0.0)
    for entry, track in zip(recorded, kept, strict=False):
        store.row(f"{key}/category_id", float(entry["category_id"] != track.label + 1), 0.0)
        store.row(f"{key}/score", abs(entry["score"] - track.score), 5e-3)
        common = union = 0
        for t in range(clip["T"]):
            wanted, found = Mask.from_coco(entry["segmentations"][t]).decode(), mask(t, track.track_id)
            common, union = common + int((wanted & found).sum()), union + int((wanted | found).sum())
        store.row(f"{key}/segmentations", 1 - common / max(union, 1), 1 - store.golden.tolerance["masks"]["min_iou"])


def _check_mots(
    store: Store,
    key: str,
    recorded: list[str],
    kept: list[TrackSummary],
    mask: Callable[[int, int], BoolArray],
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
                found[t, (track.label + 1) * 1000 + index] = Mask.encode(dense)
    store.row(f"{key}/lines", float(len(set(wanted) ^ set(found))), 0.0)
    for place in sorted(set(wanted) & set(found)):
        a, b = wanted[place].decode(), found[place].decode()
        differ = int((a != b).sum())
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
    check_results(
        store, config, clip, kept, lambda t, k: resize_padded_mask(labels[t] == k + 1, scale, content, *size)
    )


def _recorded(store: Store, name: str) -> Any:
    path = store.golden.folder / store.file.replace(".npz", "_results.json")
    return json.loads(path.read_text(encoding="utf-8"))[name] if path.is_file() else []


def check_clustering(golden: Golden) -> None:
    """Compare `clustering.npz`: labels, centres, links and tracks of eight synthetic scenes."""
    details = json.loads((golden.folder / "manifest_clustering.json").read_text(encoding="utf-8"))
    if (store := golden.open("clustering.npz")) is None:
        return
    for scene, config in details["scenes"].items():
        _check_scene(store, scene, config)
    golden.close(store)


def _check_scene(store: Store, scene: str, config: Mapping[str, Any]) -> None:
    rule = ClusterRule(
        config["min_seediness"],
        config["primary"],
        config["secondary"],
        config["max_instances"],
        tuple(config["free_dim_stds"]),
    )
    foreground = store.take(f"{scene}/fg").astype(bool)
    labels, chain = np.zeros(foreground.shape, np.int64), Chain()
    for number in range(len(store.keys(rf"{scene}/win\d+/frames"))):
        key = f"{scene}/win{number}"
        frames = store.take(f"{key}/frames").tolist()
        points = _scene_points(store, key, foreground[frames], config["resize"])
        clusters, start = find_clusters(points, rule), chain.next_label + 1
        store.exact(f"{key}/labels", np.where(clusters.labels < 0, -1, clusters.labels + start))
        store.exact(f"{key}/counts", points.counts)
        _check_clusters(store, key, clusters, start)
        chain, fresh = chain.add(frames, np.split(clusters.labels, np.cumsum(points.counts)[:-1]), len(clusters))
        for t, each in fresh.items():
            labels[t][foreground[t]] = np.where(each < 0, -1, each + 1)
        if f"{key}/associations" in store:
            _check_links(store, key, "costs", chain, start, len(clusters), 1e-6)
    store.exact(f"{scene}/track_labels", labels)
    _check_table(store, scene, labels, 0.0)


def _check_clusters(store: Store, key: str, clusters: Clusters, start: int) -> None:
    store.exact(f"{key}/ids", np.arange(len(clusters)) + start)
    store.close(f"{key}/centers", clusters.centers, atol=1e-6)
    store.close(f"{key}/stds", clusters.stds, atol=1e-6)


def _scene_points(store: Store, key: str, foreground: BoolArray, resize: int) -> Points:
    maps = [store.take(f"{key}/{part}").swapaxes(0, 1) for part in ("embeddings", "bandwidths", "seediness")]
    embeddings, bandwidths, seediness = (enlarged(each) if resize == 4 else each for each in maps)
    return Points.of(embeddings, bandwidths, seediness[:, 0], list(foreground))


def check_tables(folder: Path) -> list[str]:
    """Compare the tables of `aux.json` with the runtime: windows, sizes, palette. Return what differs."""
    tables = json.loads((folder / "aux.json").read_text(encoding="utf-8"))
    wrong = []
    for row in tables["windows"]:
        length, stride = row["window"], row["window"] - row["overlap"]
        window = Window(mode="clip", length=length, stride=stride, short_video="repeat_first_frame")
        if [frames for frames, _ in window_frames(row["frames"], window)] != row["indices"]:
            wrong.append(f"windows of {row['frames']} frames, {length} with an overlap of {row['overlap']}")
    palette = np.array(tables["palette"], np.uint8).ravel()
    if not np.array_equal(palette, davis_palette().ravel()[: len(palette)]):
        wrong.append("palette")
    return wrong
