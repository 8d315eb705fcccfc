"""Greedy clustering of the pixels of a window by their embeddings, as in STEm-Seg (Athar et al., ECCV 2020).

Every cluster starts at the free pixel with the largest seediness. Its centre and bandwidths are those of this pixel,
and it takes all free pixels with `exp(-d / 2)` above a threshold, where `d` is the distance scaled by the bandwidths.
Pixels that remain free are assigned afterwards by a lower threshold. The published implementation then takes the
*largest* distance of a pixel to any cluster, and also considers pixels that the last of the allowed clusters has just
taken. Both are reproduced, because published results depend on them.

The search runs in the library of operators (`plugins/embedding_clusters`), or in NumPy if that is not installed
(`visdeploy.tracking.cluster_search`). The labels are the same.
"""

from __future__ import annotations

import functools
import importlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from visdeploy.tracking import cluster_search
from visdeploy.tracking.cluster_rule import ClusterRule, Seed, largest_distance
from visdeploy.tracking.cluster_search import Labels
from visdeploy.tracking.embedding_points import FloatArray, IntArray, Points

Search = Callable[[Points, ClusterRule, int], tuple[Labels, IntArray]]

_MIN_VARIANCE = np.float32(1e-8)


@dataclass(frozen=True)
class Clusters:
    """Clusters of a window.

    Attributes:
        labels: int32 `[P]`, number of the cluster of each point from 0; -1 without one.
        seeds: int64 `[K]`, the point at which each cluster started.
        centers: float32 `[K, E]`.
        stds: float32 `[K, E]`, standard deviations that follow from the bandwidths.
    """

    labels: Labels
    seeds: IntArray
    centers: FloatArray
    stds: FloatArray

    def __len__(self) -> int:
        return len(self.seeds)


def find_clusters(points: Points, rule: ClusterRule, threads: int = 1) -> Clusters:
    """Cluster the points of a window.

    Args:
        points: The foreground pixels.
        rule: Parameters; the number of predicted bandwidths and of `free_dim_stds` is that of embedding dimensions.
        threads: Maximum number of threads; they do not change the result.
    """
    search = library_search() or cluster_search.search
    labels, seeds = search(points, rule, threads)
    return summarise(labels, [Seed.at(points, point, rule) for point in seeds.tolist()], points.maps.shape[1])


@functools.cache
def library_search() -> Search | None:
    """Return the search of the library of operators; None if that is not installed or does not load."""
    try:
        native = importlib.import_module("visdeploy_plugins.native")
    except ImportError:
        return None
    library, _ = native.load()
    return None if library is None else functools.partial(_search, native)


def _search(native: Any, points: Points, rule: ClusterRule, threads: int) -> tuple[Labels, IntArray]:
    """See `cluster_search.search`."""
    frames, dimensions, *size = points.maps.shape
    labels, seeds = np.empty(len(points), np.int32), np.empty(rule.max_clusters, np.int64)
    free = np.array([1.0 / std**2 for std in rule.free_dim_stds], np.float32)
    arrays = (
        points.maps.reshape(frames, dimensions, math.prod(size)),
        np.ascontiguousarray(points.bandwidths).reshape(frames, points.bandwidths.shape[1], math.prod(size)),
        free,
        points.seediness_maps.reshape(frames, math.prod(size)),
        points.counts,
        np.concatenate([np.zeros(0, np.int64), *points.places]),
        labels,
        seeds,
    )
    params = native.EmbeddingClustersParams(
        rule.min_seediness,
        largest_distance(rule.primary_threshold),
        largest_distance(rule.secondary_threshold),
        rule.max_clusters,
    )
    native.call("vd_embedding_clusters", [_view(native, each) for each in arrays], params=params, threads=threads)
    return labels, seeds[seeds >= 0]


def _view(native: Any, array: npt.NDArray[Any]) -> Any:
    """Describe a contiguous array for the library."""
    strides = [step // array.itemsize for step in array.strides]
    return native.TensorView(array.ctypes.data, array.shape, strides, array.dtype.name)


def summarise(labels: npt.NDArray[np.int32], seeds: Sequence[Seed], dimensions: int) -> Clusters:
    """Return the clusters with these seeds, in a number of dimensions."""
    places = np.array([seed.point for seed in seeds], np.int64)
    centers = np.array([seed.center for seed in seeds], np.float32).reshape(len(seeds), dimensions)
    spread = np.array([seed.bandwidths for seed in seeds], np.float32).reshape(len(seeds), dimensions)
    stds = np.sqrt(np.maximum(1 / spread, _MIN_VARIANCE), dtype=np.float32)
    return Clusters(labels, places, centers, stds)
