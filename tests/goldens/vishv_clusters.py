"""Golden data of VIShv: clustering and chaining of synthetic scenes, and tables of windows and colours."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from visdeploy.formats.davis import davis_palette
from visdeploy.manifest import Window
from visdeploy.streaming.windows import Feeder, Step, steps
from visdeploy.tracking.cluster_chain import Chain, Labels
from visdeploy.tracking.cluster_rule import ClusterRule
from visdeploy.tracking.embedding_clusters import Clusters, find_clusters
from visdeploy.tracking.embedding_points import Points

from .core import Golden, Store

FloatArray = npt.NDArray[np.float32]
BoolArray = npt.NDArray[np.bool_]


def enlarged(values: FloatArray) -> FloatArray:
    """Resize the last two axes by 4, bilinear, corners not aligned, as the graph does."""
    import torch

    found = torch.nn.functional.interpolate(
        torch.from_numpy(np.ascontiguousarray(values)), scale_factor=4, mode="bilinear", align_corners=False
    )
    return np.asarray(found.numpy(), np.float32)


def check_clustering(golden: Golden, manifest: str = "manifest_clustering.json", file: str = "clustering.npz") -> None:
    """Compare a file of synthetic scenes: labels, centres, links and tracks."""
    details = json.loads((golden.folder / manifest).read_text(encoding="utf-8"))
    if (store := golden.open(file)) is None:
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
        before, parts = chain, np.split(clusters.labels, np.cumsum(points.counts)[:-1])
        chain, fresh = before.add(frames, parts, len(clusters))
        for t, each in fresh.items():
            labels[t][foreground[t]] = np.where(each < 0, -1, each + 1)
        if f"{key}/associations" in store:
            check_links(store, key, "costs", before, chain, dict(zip(frames, parts, strict=True)), 1e-6)
    store.exact(f"{scene}/track_labels", labels)
    check_table(store, scene, labels, 0.0)


def _check_clusters(store: Store, key: str, clusters: Clusters, start: int) -> None:
    store.exact(f"{key}/ids", np.arange(len(clusters)) + start)
    store.close(f"{key}/centers", clusters.centers, atol=1e-6)
    store.close(f"{key}/stds", clusters.stds, atol=1e-6)


def _scene_points(store: Store, key: str, foreground: BoolArray, resize: int) -> Points:
    maps = [store.take(f"{key}/{part}").swapaxes(0, 1) for part in ("embeddings", "bandwidths", "seediness")]
    embeddings, bandwidths, seediness = (enlarged(each) if resize == 4 else each for each in maps)
    return Points.of(embeddings, bandwidths, seediness[:, 0], list(foreground))


def check_links(
    store: Store, key: str, costs: str, before: Chain, chain: Chain, found: Mapping[int, Labels], limit: float
) -> None:
    """Compare the links of a window, and the tracks and clusters without one.

    Only tracks and clusters with pixels in the frames of both windows can be linked; the recording lists those alone.

    Args:
        store: The recording, in which tracks are numbered from 1, and the clusters of a window after all earlier ones.
        key: Prefix of the window's arrays.
        costs: Name of the costs.
        before: The chain without the window.
        chain: The chain with it.
        found: Frame of the window → cluster of each foreground pixel, from 0; negative for outliers.
        limit: Largest difference of a cost.
    """
    start = before.next_label + 1
    pairs = np.array([(link.track + 1, link.cluster + start) for link in chain.links], np.int64).reshape(-1, 2)
    store.exact(f"{key}/associations", pairs)
    store.close(f"{key}/{costs}", np.array([link.cost for link in chain.links], np.float32), atol=limit)
    shared = found.keys() & before.previous.keys()
    for name, labels, first, column in (("old", before.previous, 1, 0), ("new", found, start, 1)):
        present = {int(k) + first for t in shared for k in np.unique(labels[t]) if k >= 0}
        free = sorted(present - set(pairs[:, column].tolist()))
        store.exact(f"{key}/unmatched_{name}", np.array(free, np.int64))


def check_table(store: Store, name: str, labels: npt.NDArray[np.int64], limit: float) -> None:
    """Compare number of pixels and lifetime of every track; the recording also counts outliers as a track."""
    ids = np.unique(labels[labels != 0])
    present = [np.flatnonzero((labels == k).any(axis=(1, 2))) for k in ids]
    store.exact(f"{name}/track_ids", ids)
    points = store.take(f"{name}/track_points")
    found = np.array([np.count_nonzero(labels == k) for k in ids])
    same = found.shape == points.shape
    store.row(f"{name}/track_points", float(np.abs(found - points).sum() / labels.size) if same else np.inf, limit)
    store.exact(f"{name}/track_lifetimes", np.array([each[-1] - each[0] for each in present], np.int64))


def window_frames(frames: int, window: Window) -> list[tuple[list[int], Step]]:
    """Return the frames of every window with repetitions, and its step, as the runtime's streams group them."""
    feeder = Feeder("frames", window, fixed=True)
    tagged = [(np.full((1, 3, 1, 1), t, np.float32), None) for t in range(frames)]
    return [(step.inputs["frames"][:, 0, 0, 0].astype(int).tolist(), step) for step in steps(feeder, tagged)]


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
