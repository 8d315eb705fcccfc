"""Clustering of embeddings in NumPy.

A distance is computed only where it can matter. The two dimensions of the embedding that exclude most pixels are tested
first, each by an interval around the centre, and pixels of earlier clusters are removed from the arrays now and then.
Afterwards, a remaining pixel is followed only until one cluster is farther than the lower threshold allows. The frames
of a window are independent except for the selection of the seeds, and can be distributed among threads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt

from visdeploy.tracking.cluster_rule import OUTLIER, ClusterRule, Seed, largest_distance, squared_distances
from visdeploy.tracking.embedding_points import FloatArray, IntArray, Points

Labels = npt.NDArray[np.int32]

_BLOCK = 16384
"""Pixels whose distances are computed together: their arrays stay in the cache."""
_SAMPLE = 1024
"""Pixels by which the dimensions to be tested first are selected."""
_TESTED = 2
_COMPACT = 0.6
"""Share of free pixels below which the others are removed."""
_SLACK = 1e-5
"""Relative margin of an interval, far above the rounding of a distance."""
_SERIAL = 1 << 15
"""Points below which one thread is as fast as several."""


def search(points: Points, rule: ClusterRule, threads: int = 1) -> tuple[Labels, IntArray]:
    """Find the clusters of a window, without the library of operators.

    Args:
        points: The foreground pixels.
        rule: Parameters.
        threads: Threads among which the frames are distributed.

    Returns:
        Cluster of each point, int32 `[P]`, and the point at which each cluster starts, int64 `[K]`.
    """
    if threads < 2 or len(points) < _SERIAL:
        return _run(_Search(points, rule, map))
    with ThreadPoolExecutor(threads) as pool:
        return _run(_Search(points, rule, pool.map))


def _run(search: _Search) -> tuple[Labels, IntArray]:
    points, rule = search.points, search.rule
    seeds: list[Seed] = []
    rest: list[IntArray] = []
    for number in range(rule.max_clusters):
        best = search.best_seed()
        weak = best is not None and best[1] < rule.min_seediness
        if weak or number == rule.max_clusters - 1:
            rest = search.free_points()  # before the last cluster is formed, as in the published implementation
        if best is None or weak:
            break
        seeds.append(Seed.at(points, best[0], rule))
        search.add(number, seeds[-1])
    search.assign_rest(rest, seeds)
    return search.labels, np.array([seed.point for seed in seeds], np.int64)


class _Search:
    """Labels of the points, and the points that are free, in one part per frame.

    Args:
        points: The points.
        rule: Parameters of the clustering.
        run: Calls a function for each part, and returns the results in order, as `map` does.
    """

    def __init__(self, points: Points, rule: ClusterRule, run: Callable[..., Iterable[Any]]) -> None:
        self.points, self.rule, self._run = points, rule, run
        self.labels = np.full(len(points), OUTLIER, np.int32)
        self._primary = largest_distance(rule.primary_threshold)
        self._secondary = largest_distance(rule.secondary_threshold)
        flat = points.maps.reshape(*points.maps.shape[:2], -1)
        seeds = points.seediness_maps.reshape(len(points.seediness_maps), -1)
        starts = points.ends - points.counts
        self._parts = [
            _Part(rows, np.fmax(row.take(place), -np.inf), place, self.labels[start : start + len(place)], int(start))
            for rows, row, place, start in zip(flat, seeds, points.places, starts, strict=True)
        ]
        step = max(1, len(points) // _SAMPLE)
        samples = [part.rows.take(part.places[::step], axis=1) for part in self._parts]
        self._sample = np.concatenate(samples, axis=1) if samples else np.zeros((0, 0), np.float32)

    def best_seed(self) -> tuple[int, np.float32] | None:
        """Return the first free point with the largest seediness, and its seediness; None if no point is free."""
        best: tuple[int, np.float32] | None = None
        for found in self._run(_Part.best_seed, self._parts):
            if found is not None and (best is None or found[1] > best[1]):
                best = found
        return best

    def free_points(self) -> list[IntArray]:
        """Return the free points of each part, in ascending order."""
        return list(self._run(_Part.free_points, self._parts))

    def add(self, number: int, seed: Seed) -> None:
        """Form a cluster: label the free points within the primary distance."""
        test = self._test(seed)
        list(self._run(lambda part: part.add(number, seed, self._primary, test), self._parts))

    def _test(self, seed: Seed) -> list[tuple[int, np.float32, np.float32]]:
        """Return the intervals outside which no point can be within the primary distance, of the most selective
        dimensions.
        """
        with np.errstate(divide="ignore", invalid="ignore"):
            reach = float(self._primary) * (1 + _SLACK) / np.sqrt(seed.bandwidths, dtype=np.float64)
        reach += _SLACK * np.abs(seed.center)
        finite = np.isfinite(reach) & np.isfinite(seed.center)
        low, high = (seed.center - reach).astype(np.float32), (seed.center + reach).astype(np.float32)
        inside = (self._sample >= low[:, None]) & (self._sample <= high[:, None])
        order = np.where(finite, np.count_nonzero(inside, axis=1), self._sample.shape[1] + 1).argsort()
        return [(k, low[k], high[k]) for k in order[:_TESTED].tolist() if finite[k]]

    def assign_rest(self, rest: Sequence[IntArray], seeds: Sequence[Seed]) -> None:
        """Assign points to their farthest cluster, if it is within the secondary distance.

        Args:
            rest: The points of each part.
            seeds: Start of each cluster.
        """
        list(self._run(lambda part, chosen: part.assign_rest(chosen, seeds, self._secondary), self._parts, rest))


class _Part:
    """Points of one frame; most of those that are not free are removed.

    Args:
        rows: Embeddings of all pixels of the frame, float32 `[E, h * w]`.
        seeds: Seediness of the points, float32 `[P]`, changed.
        places: Pixels of the points, int64 `[P]`.
        labels: int32 `[P]`, written.
        start: Number of points of earlier frames.
    """

    def __init__(self, rows: FloatArray, seeds: FloatArray, places: IntArray, labels: Labels, start: int) -> None:
        self.rows, self.places = rows, places
        self._labels, self._start = labels, start
        self._seeds, self._left = seeds, places
        self._kept: IntArray | None = None  # None: every point is there
        self._free, self._num_free = np.ones(len(places), bool), len(places)
        self._tested: dict[int, FloatArray] = {}

    def best_seed(self) -> tuple[int, np.float32] | None:
        """See `_Search.best_seed`."""
        if not self._num_free:
            return None
        best = int(self._seeds.argmax())
        if not self._free[best]:  # the seediness of all free points is -inf
            best = int(self._free.argmax())
        return self._start + (best if self._kept is None else int(self._kept[best])), self._seeds[best]

    def free_points(self) -> IntArray:
        """Return the free points of the part, in ascending order, counted from its start."""
        found = np.flatnonzero(self._free)
        return found if self._kept is None else self._kept[found]

    def add(self, number: int, seed: Seed, primary: np.float32, test: Sequence[tuple[int, Any, Any]]) -> None:
        """Form a cluster, see `_Search.add`."""
        if not self._num_free:
            return
        near = self._free.copy()
        for k, low, high in test:
            row = self._row(k)
            near &= row >= low
            near &= row <= high
        candidates = np.flatnonzero(near)
        distances = _distances(self.rows, self._left.take(candidates), seed)
        taken = candidates.take(np.flatnonzero(distances <= primary))  # several times as fast as indexing with a mask
        self._labels[taken if self._kept is None else self._kept.take(taken)] = number
        self._free[taken], self._seeds[taken] = False, -np.inf
        self._num_free -= len(taken)
        if self._num_free < _COMPACT * len(self._free):
            self._compact()

    def _row(self, k: int) -> FloatArray:
        """Return one dimension of the embeddings of the points that are left; it is selected when it is tested."""
        if k not in self._tested:
            self._tested[k] = self.rows[k].take(self._left, mode="clip")
        return self._tested[k]

    def _compact(self) -> None:
        """Remove the points that are not free from the arrays."""
        kept = np.flatnonzero(self._free)
        self._tested = {}
        self._seeds, self._left = self._seeds.take(kept), self._left.take(kept)
        self._kept = kept if self._kept is None else self._kept.take(kept)
        self._free = np.ones(len(kept), bool)

    def assign_rest(self, rest: IntArray, seeds: Sequence[Seed], secondary: np.float32) -> None:
        """Assign points of the part, see `_Search.assign_rest`."""
        farthest, owners = np.full(len(rest), -1, np.float32), np.zeros(len(rest), np.int32)
        for number, seed in enumerate(seeds):
            distances = _distances(self.rows, self.places.take(rest), seed)
            kept = np.flatnonzero(distances <= secondary)
            rest, distances, farthest, owners = rest[kept], distances[kept], farthest[kept], owners[kept]
            farther = distances > farthest
            farthest[farther], owners[farther] = distances[farther], number
        if seeds:
            self._labels[rest] = owners


def _distances(rows: FloatArray, places: IntArray, seed: Seed) -> FloatArray:
    """Return the distances of some pixels to the centre of a cluster, float32 `[len(places)]`."""
    found = np.empty(len(places), np.float32)
    size = min(_BLOCK, len(places))
    chosen, term = np.empty((len(rows), size), np.float32), np.empty(size, np.float32)
    for start in range(0, len(places), _BLOCK):
        part = places[start : start + _BLOCK]
        size = len(part)
        for row, values in zip(rows, chosen, strict=True):
            np.take(row, part, out=values[:size], mode="clip")
        squared_distances(chosen[:, :size], seed.center, seed.bandwidths, found[start : start + size], term[:size])
    return np.sqrt(found, out=found)
