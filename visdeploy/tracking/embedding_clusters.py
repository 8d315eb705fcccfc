"""Greedy clustering of the pixels of a window by their embeddings, as in STEm-Seg (Athar et al., ECCV 2020).

Every cluster starts at the free pixel with the largest seediness. Its centre and bandwidths are those of this pixel,
and it takes all free pixels with `exp(-d / 2)` above a threshold, where `d` is the distance scaled by the bandwidths.
Pixels that remain free are assigned afterwards by a lower threshold. The published implementation then takes the
*largest* distance of a pixel to any cluster, and also considers pixels that the last of the allowed clusters has just
taken. Both are reproduced, because published results depend on them.

A distance is computed only where it can matter. Pixels are divided into blocks with known bounds of their embeddings.
A block that is farther from a centre than both thresholds allow is skipped: none of its pixels can join this cluster,
nor be assigned afterwards. Rounding is monotone, so that the bound holds for the computed distances as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]

OUTLIER = -1
"""Label of a pixel that belongs to no cluster."""
_BLOCK = 2048
"""Pixels of a block: the arrays of a block stay in the first-level and second-level caches."""
_MIN_VARIANCE = np.float32(1e-8)


@dataclass(frozen=True)
class ClusterRule:
    """Parameters of the clustering.

    Attributes:
        min_seediness: No cluster starts at a pixel below this seediness.
        primary_threshold: Minimum of `exp(-d / 2)`, exclusive, to join the cluster that is being formed.
        secondary_threshold: The same for pixels that remain.
        max_clusters: Largest number of clusters of a window.
        free_dim_stds: Standard deviation of each embedding dimension without a predicted bandwidth; these are last.
    """

    min_seediness: float = 0.8
    primary_threshold: float = 0.5
    secondary_threshold: float = 0.3
    max_clusters: int = 20
    free_dim_stds: tuple[float, ...] = ()


@dataclass(frozen=True)
class Points:
    """Foreground pixels of a window, frame by frame in row-major order.

    Attributes:
        embeddings: float32 `[E, P]`.
        seediness: float32 `[P]`.
        bandwidths: float32 `[B, Q]`, predicted bandwidths of all pixels.
        pixels: int64 `[P]`, column of each point in `bandwidths`; only those of the seeds are read.
        counts: int64 `[T]`, number of points in each frame.
    """

    embeddings: FloatArray
    seediness: FloatArray
    bandwidths: FloatArray
    pixels: IntArray
    counts: IntArray

    @classmethod
    def of(
        cls, embeddings: FloatArray, bandwidths: FloatArray, seediness: FloatArray, foreground: Sequence[BoolArray]
    ) -> Points:
        """Select the foreground pixels of a window.

        Args:
            embeddings: float32 `[T, E, h, w]`.
            bandwidths: float32 `[T, B, h, w]`.
            seediness: float32 `[T, h, w]`.
            foreground: Mask of each frame, bool `[h, w]`.
        """
        frames, size = embeddings.shape[:2]
        area = int(np.prod(embeddings.shape[2:]))
        flat, seeds = embeddings.reshape(frames, size, area), seediness.reshape(frames, area)
        places = [np.flatnonzero(mask) for mask in foreground]
        counts = np.array([len(each) for each in places], np.int64)
        ends = np.cumsum(counts)
        total = int(ends[-1]) if frames else 0
        chosen, values = np.empty((size, total), np.float32), np.empty(total, np.float32)
        pixels = np.empty(total, np.int64)
        for t, (place, end) in enumerate(zip(places, ends.tolist(), strict=True)):
            part = slice(end - len(place), end)
            pixels[part] = place + t * area
            np.take(seeds[t], place, out=values[part], mode="clip")
            for k in range(size):
                np.take(flat[t, k], place, out=chosen[k, part], mode="clip")
        spread = np.moveaxis(bandwidths, 1, 0).reshape(bandwidths.shape[1], -1)
        return cls(chosen, values, spread, pixels, counts)

    def __len__(self) -> int:
        return len(self.pixels)


class Seed(NamedTuple):
    """Start of a cluster: position among the points, and its bandwidths in all dimensions of the embedding."""

    point: int
    bandwidths: FloatArray


@dataclass(frozen=True)
class Clusters:
    """Clusters of a window.

    Attributes:
        labels: int32 `[P]`, number of the cluster of each point from 0; `OUTLIER` without one.
        seeds: int64 `[K]`, the point at which each cluster started.
        centers: float32 `[K, E]`.
        stds: float32 `[K, E]`, standard deviations that follow from the bandwidths.
    """

    labels: npt.NDArray[np.int32]
    seeds: IntArray
    centers: FloatArray
    stds: FloatArray

    def __len__(self) -> int:
        return len(self.seeds)


def find_clusters(points: Points, rule: ClusterRule) -> Clusters:
    """Cluster the points of a window.

    Args:
        points: The foreground pixels.
        rule: Parameters; the number of predicted bandwidths and of `free_dim_stds` is that of embedding dimensions.
    """
    search = _Search(points, rule)
    seeds: list[Seed] = []
    free: BoolArray | None = None
    for number in range(rule.max_clusters):
        point = search.best_seed()
        if point is None:
            free = None
            break
        free = search.labels == OUTLIER if number == rule.max_clusters - 1 else None
        if points.seediness[point] < rule.min_seediness:
            free = search.labels == OUTLIER
            break
        seeds.append(Seed(point, seed_bandwidths(points, point, rule)))
        search.add(number, seeds[-1])
    if free is not None and seeds:
        search.assign_rest(free)
    return summarise(points, search.labels, seeds)


def summarise(points: Points, labels: npt.NDArray[np.int32], seeds: Sequence[Seed]) -> Clusters:
    """Return the clusters with these seeds."""
    places = np.array([seed.point for seed in seeds], np.int64)
    spread = np.array([seed.bandwidths for seed in seeds], np.float32).reshape(len(seeds), len(points.embeddings))
    stds = np.sqrt(np.maximum(1 / spread, _MIN_VARIANCE), dtype=np.float32)
    return Clusters(labels, places, np.ascontiguousarray(points.embeddings[:, places].T), stds)


def seed_bandwidths(points: Points, point: int, rule: ClusterRule) -> FloatArray:
    """Return the bandwidths of a cluster that starts at a point, float32 `[E]`."""
    free = [1.0 / std**2 for std in rule.free_dim_stds]
    return np.concatenate([points.bandwidths[:, points.pixels[point]], np.array(free, np.float32)])


def largest_distance(probability: float) -> np.float32:
    """Return the largest float32 `d` with `exp(-d / 2)` above a probability in 0..1; -1 if there is none."""
    low, high = 0, int(np.float32(300.0).view(np.int32))  # bit patterns of positive floats are in ascending order
    threshold = np.float32(probability)

    def inside(bits: int) -> bool:
        return bool(np.exp(np.int32(bits).view(np.float32) * np.float32(-0.5)) > threshold)

    if not inside(low):
        return np.float32(-1)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if inside(middle) else (low, middle)
    return np.float32(np.int32(low).view(np.float32))


@dataclass
class _Search:
    """Labels of the points, and the distance to the farthest cluster of those that can still be assigned."""

    points: Points
    rule: ClusterRule
    labels: npt.NDArray[np.int32] = field(init=False)

    def __post_init__(self) -> None:
        number, embeddings = len(self.points), self.points.embeddings
        self.labels = np.full(number, OUTLIER, np.int32)
        self._primary, self._secondary = (
            largest_distance(p) for p in (self.rule.primary_threshold, self.rule.secondary_threshold)
        )
        self._reach = max(self._primary, self._secondary)
        starts = np.arange(0, number, _BLOCK)
        self._blocks = [slice(start, min(start + _BLOCK, number)) for start in range(0, number, _BLOCK)]
        self._low = _per_block(np.minimum, embeddings, starts)
        self._high = _per_block(np.maximum, embeddings, starts)
        self._seeds = self.points.seediness.copy()
        self._best = _per_block(np.maximum, self._seeds[None], starts)[0]
        self._free = np.array([part.stop - part.start for part in self._blocks], np.int64)
        self._rest = np.full(len(starts), self._secondary >= 0)
        self._farthest = np.full(number, -1, np.float32)
        self._farthest_cluster = np.zeros(number, np.int32)
        self._scratch = np.empty((2, _BLOCK), np.float32)

    def best_seed(self) -> int | None:
        """Return the first free point with the largest seediness; None if no point is free."""
        if not self._free.any():
            return None
        block = int(np.where(self._free > 0, self._best, -np.inf).argmax())
        part = self._blocks[block]
        return part.start + int(self._seeds[part].argmax())

    def add(self, number: int, seed: Seed) -> None:
        """Form a cluster: label the free points within the primary distance."""
        center = self.points.embeddings[:, seed.point].copy()
        near = self._lower_bounds(center, seed.bandwidths) <= self._reach
        if not np.isfinite(center).all() or not np.isfinite(seed.bandwidths).all():
            near[:] = True
        self._rest &= near
        for block in np.flatnonzero(near & ((self._free > 0) | self._rest)).tolist():
            self._add_block(block, number, center, seed.bandwidths)

    def _lower_bounds(self, center: FloatArray, bandwidths: FloatArray) -> FloatArray:
        """Return a lower bound of the distances of each block, computed in the order of the distances themselves."""
        total = np.zeros(len(self._blocks), np.float32)
        for k, (middle, bandwidth) in enumerate(zip(center, bandwidths, strict=True)):
            gap = np.maximum(np.maximum(self._low[k] - middle, middle - self._high[k]), np.float32(0))
            total += gap * gap * bandwidth
        bounds: FloatArray = np.sqrt(total)
        return np.where(np.isnan(bounds), np.float32(0), bounds)

    def _add_block(self, block: int, number: int, center: FloatArray, bandwidths: FloatArray) -> None:
        part = self._blocks[block]
        total, term = self._scratch[:, : part.stop - part.start]
        squared_distances(self.points.embeddings[:, part], center, bandwidths, total, term)
        distance = np.sqrt(total, out=total)
        labels = self.labels[part]
        if self._rest[block]:
            # this includes points that other clusters have taken; only free ones are assigned in the end
            farther = distance > self._farthest[part]
            np.copyto(self._farthest[part], distance, where=farther)
            np.copyto(self._farthest_cluster[part], np.int32(number), where=farther)
        taken = distance <= self._primary
        taken &= labels == OUTLIER
        count = int(np.count_nonzero(taken))
        if count:
            np.copyto(labels, np.int32(number), where=taken)
            seeds = self._seeds[part]
            np.copyto(seeds, np.float32(-np.inf), where=taken)
            self._free[block] -= count
            self._best[block] = np.maximum.reduce(seeds)

    def assign_rest(self, free: BoolArray) -> None:
        """Assign free points to their farthest cluster, if it is within the secondary distance.

        Args:
            free: bool `[P]`, the points that were free when the last cluster started.
        """
        for block in np.flatnonzero(self._rest).tolist():
            part = self._blocks[block]
            near = free[part] & (self._farthest[part] <= self._secondary)
            np.copyto(self.labels[part], self._farthest_cluster[part], where=near)


def squared_distances(
    embeddings: FloatArray, center: FloatArray, bandwidths: FloatArray, total: FloatArray, term: FloatArray
) -> None:
    """Write the squared distances to a centre into `total`: `sum_k (e_k - c_k)^2 b_k`, in ascending order of `k`.

    Args:
        embeddings: float32 `[E, n]`.
        center: float32 `[E]`.
        bandwidths: float32 `[E]`.
        total: float32 `[n]`, overwritten.
        term: float32 `[n]`, overwritten.
    """
    for k, (middle, bandwidth) in enumerate(zip(center, bandwidths, strict=True)):
        target = term if k else total
        np.subtract(embeddings[k], middle, out=target)
        np.multiply(target, target, out=target)
        np.multiply(target, bandwidth, out=target)
        if k:
            np.add(total, term, out=total)


def _per_block(reduce: np.ufunc, values: FloatArray, starts: IntArray) -> FloatArray:
    """Reduce each block of the last axis; float32 `[rows, blocks]`."""
    if not len(starts):
        return np.zeros((len(values), 0), np.float32)
    return np.asarray(reduce.reduceat(values, starts, axis=1), np.float32)
