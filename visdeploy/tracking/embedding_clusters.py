"""Greedy clustering of the pixels of a window by their embeddings, as in STEm-Seg (Athar et al., ECCV 2020).

Every cluster starts at the free pixel with the largest seediness. Its centre and bandwidths are those of this pixel,
and it takes all free pixels with `exp(-d / 2)` above a threshold, where `d` is the distance scaled by the bandwidths.
Pixels that remain free are assigned afterwards by a lower threshold. The published implementation then takes the
*largest* distance of a pixel to any cluster, and also considers pixels that the last of the allowed clusters has just
taken. Both are reproduced, because published results depend on them.

A distance is computed only where it can matter. The two dimensions of the embedding that exclude most pixels are tested
first, each by an interval around the centre, and pixels of earlier clusters are removed from the arrays now and then.
Afterwards, a remaining pixel is followed only until one cluster is farther than the lower threshold allows.
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
_BLOCK = 16384
"""Pixels whose distances are computed together: their arrays stay in the cache."""
_SAMPLE = 1024
"""Pixels by which the dimensions to be tested first are selected."""
_TESTED = 2
_COMPACT = 0.6
"""Share of free pixels below which the others are removed."""
_SLACK = 1e-5
"""Relative margin of an interval, far above the rounding of a distance."""
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
        bandwidths: float32 `[T, B, h, w]`, predicted bandwidths of all pixels; only those of seeds are read.
        places: Positions of the foreground pixels of each frame in the frame, int64 `[P_t]`.
    """

    embeddings: FloatArray
    seediness: FloatArray
    bandwidths: FloatArray
    places: tuple[IntArray, ...]

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
        flat, seeds = embeddings.reshape(frames, size, -1), seediness.reshape(frames, -1)
        places = tuple(np.flatnonzero(mask) for mask in foreground)
        total = sum(map(len, places))
        chosen, values = np.empty((size, total), np.float32), np.empty(total, np.float32)
        start = 0
        for t, place in enumerate(places):
            part = slice(start, start + len(place))
            np.take(seeds[t], place, out=values[part], mode="clip")
            for k in range(size):
                np.take(flat[t, k], place, out=chosen[k, part], mode="clip")
            start = part.stop
        return cls(chosen, values, bandwidths, places)

    @property
    def counts(self) -> IntArray:
        """Number of points of each frame, int64 `[T]`."""
        return np.array([len(place) for place in self.places], np.int64)

    def bandwidths_of(self, point: int) -> FloatArray:
        """Return the predicted bandwidths of a point, float32 `[B]`."""
        frame, place = self.pixel_of(point)
        row, column = np.unravel_index(place, self.bandwidths.shape[2:])
        return self.bandwidths[frame, :, row, column]

    def pixel_of(self, point: int) -> tuple[int, int]:
        """Return the frame of a point, and its position in the frame."""
        ends = np.cumsum(self.counts)
        frame = int(np.searchsorted(ends, point, side="right"))
        return frame, int(self.places[frame][point - (ends[frame] - len(self.places[frame]))])

    def point_at(self, frame: int, place: int) -> int | None:
        """Return the point at a position in a frame; None if that pixel is not in the foreground."""
        places = self.places[frame]
        found = int(np.searchsorted(places, place))
        if found == len(places) or places[found] != place:
            return None
        return sum(map(len, self.places[:frame])) + found

    def __len__(self) -> int:
        return len(self.seediness)


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
    rest = np.zeros(0, np.int64)
    for number in range(rule.max_clusters):
        point = search.best_seed()
        weak = point is not None and points.seediness[point] < rule.min_seediness
        if weak or number == rule.max_clusters - 1:
            rest = search.free_points()  # before the last cluster is formed, as in the published implementation
        if point is None or weak:
            break
        seeds.append(Seed(point, seed_bandwidths(points, point, rule)))
        search.add(number, seeds[-1])
    search.assign_rest(rest, seeds)
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
    return np.concatenate([points.bandwidths_of(point), np.array(free, np.float32)])


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
    """Labels of the points, and the points that are free, without most of those that are not."""

    points: Points
    rule: ClusterRule
    labels: npt.NDArray[np.int32] = field(init=False)

    def __post_init__(self) -> None:
        number = len(self.points)
        self.labels = np.full(number, OUTLIER, np.int32)
        self._primary = largest_distance(self.rule.primary_threshold)
        self._secondary = largest_distance(self.rule.secondary_threshold)
        self._rows: dict[int, FloatArray] = dict(enumerate(self.points.embeddings))
        self._seeds = self.points.seediness.copy()
        self._places: IntArray | None = None  # None: every point is there
        self._free, self._num_free = np.ones(number, bool), number

    def best_seed(self) -> int | None:
        """Return the first free point with the largest seediness; None if no point is free."""
        if not self._num_free:
            return None
        best = int(self._seeds.argmax())
        if not self._free[best]:  # the seediness of all free points is -inf
            best = int(self._free.argmax())
        return best if self._places is None else int(self._places[best])

    def free_points(self) -> IntArray:
        """Return the free points in ascending order."""
        found = np.flatnonzero(self._free)
        return found if self._places is None else self._places[found]

    def add(self, number: int, seed: Seed) -> None:
        """Form a cluster: label the free points within the primary distance."""
        center = self.points.embeddings[:, seed.point]
        candidates = np.flatnonzero(self._near(center, seed.bandwidths))
        points = candidates if self._places is None else self._places.take(candidates)
        distances = _distances(self.points.embeddings, points, center, seed.bandwidths)
        inside = np.flatnonzero(distances <= self._primary)  # several times as fast as indexing with a mask
        taken = candidates.take(inside)
        self.labels[points.take(inside)] = number
        self._free[taken], self._seeds[taken] = False, -np.inf
        self._num_free -= len(taken)
        if self._num_free < _COMPACT * len(self._free):
            self._compact()

    def _near(self, center: FloatArray, bandwidths: FloatArray) -> BoolArray:
        """Return whether points are free and can be within the primary distance, by the most selective dimensions."""
        with np.errstate(divide="ignore", invalid="ignore"):
            reach = float(self._primary) * (1 + _SLACK) / np.sqrt(bandwidths, dtype=np.float64)
        reach += _SLACK * np.abs(center)
        finite = np.isfinite(reach) & np.isfinite(center)
        low, high = (center - reach).astype(np.float32), (center + reach).astype(np.float32)
        places = np.arange(0, len(self._free), max(1, len(self._free) // _SAMPLE))
        sample = self.points.embeddings[:, places if self._places is None else self._places[places]]
        inside = (sample >= low[:, None]) & (sample <= high[:, None])
        order = np.where(finite, np.count_nonzero(inside, axis=1), sample.shape[1] + 1).argsort()
        near = self._free.copy()
        for k in order[:_TESTED].tolist():
            if finite[k]:
                row = self._row(k)
                near &= row >= low[k]
                near &= row <= high[k]
        return near

    def _row(self, k: int) -> FloatArray:
        """Return one dimension of the embeddings; it is compacted only when it is tested."""
        if k not in self._rows and self._places is not None:
            self._rows[k] = np.asarray(self.points.embeddings[k].take(self._places, mode="clip"), np.float32)
        return self._rows[k]

    def _compact(self) -> None:
        """Remove the points that are not free from the arrays."""
        kept = np.flatnonzero(self._free)
        self._rows = {}
        self._seeds = self._seeds.take(kept)
        self._places = kept if self._places is None else self._places.take(kept)
        self._free = np.ones(len(kept), bool)

    def assign_rest(self, rest: IntArray, seeds: Sequence[Seed]) -> None:
        """Assign points to their farthest cluster, if it is within the secondary distance.

        Args:
            rest: The points.
            seeds: Start of each cluster.
        """
        farthest, owners = np.full(len(rest), -1, np.float32), np.zeros(len(rest), np.int32)
        for number, (point, bandwidths) in enumerate(seeds):
            center = self.points.embeddings[:, point]
            distances = _distances(self.points.embeddings, rest, center, bandwidths)
            kept = np.flatnonzero(distances <= self._secondary)
            rest, distances, farthest, owners = rest[kept], distances[kept], farthest[kept], owners[kept]
            farther = distances > farthest
            farthest[farther], owners[farther] = distances[farther], number
        if seeds:
            self.labels[rest] = owners


def _distances(embeddings: FloatArray, places: IntArray, center: FloatArray, bandwidths: FloatArray) -> FloatArray:
    """Return the distances of some points to a centre, float32 `[len(places)]`."""
    found = np.empty(len(places), np.float32)
    chosen, term = np.empty((len(embeddings), _BLOCK), np.float32), np.empty(_BLOCK, np.float32)
    for start in range(0, len(places), _BLOCK):
        part = places[start : start + _BLOCK]
        size = len(part)
        for row, values in zip(embeddings, chosen, strict=True):
            np.take(row, part, out=values[:size], mode="clip")
        squared_distances(chosen[:, :size], center, bandwidths, found[start : start + size], term[:size])
    return np.sqrt(found, out=found)


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
