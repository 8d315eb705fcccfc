"""Near-ties of the clustering of VIShv, for the comparison of two engines.

Rounding can move a pixel across a threshold, and can select another one of several seeds that are nearly tied. A window
of one engine is therefore clustered with the seeds of the other, as far as they are nearly the best, and pixels at a
threshold are known.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from visdeploy.manifest import Tolerance
from visdeploy.tracking.cluster_rule import OUTLIER, ClusterRule, Seed, squared_distances
from visdeploy.tracking.embedding_clusters import Clusters, summarise
from visdeploy.tracking.embedding_points import Points

FloatArray = npt.NDArray[np.float32]
BoolArray = npt.NDArray[np.bool_]
Labels = npt.NDArray[np.int32]
_BOTH = 2.5
"""Slack, as a multiple, of a value whose counterpart in the other engine is at a threshold: two, and a reserve because
margins depend on the values."""
FREE = -2
"""Point whose label is not given by another run."""


@dataclass(frozen=True)
class Slack:
    """Differences of the outputs of two engines that rounding can cause.

    Attributes:
        seediness: Of the seediness.
        embeddings: Of the embeddings.
        bandwidths: Of the bandwidths.
    """

    seediness: float
    embeddings: float
    bandwidths: float

    @classmethod
    def of(cls, tolerance: Tolerance, points: Points) -> Slack:
        """Return the limits of a tolerance for outputs of this size, as in the measure `absolute`."""
        arrays = (points.seediness, points.embeddings, points.bandwidths)
        largest = (float(np.abs(each).max(initial=0, where=np.isfinite(each))) for each in arrays)
        return cls(*(max(tolerance.atol, tolerance.rtol * each) for each in largest))

    def times(self, factor: float) -> Slack:
        """Return larger differences."""
        return Slack(factor * self.seediness, factor * self.embeddings, factor * self.bandwidths)


@dataclass(frozen=True)
class Replay:
    """Clusters of a window with the near-ties of another run.

    Attributes:
        clusters: The clusters.
        seeds: Number of seeds that were replaced by nearly tied ones of the other run.
        pixels: Number of points at a threshold with another label than without the other run.
    """

    clusters: Clusters
    seeds: int
    pixels: int


def follow_clusters(points: Points, others: Points, found: Clusters, rule: ClusterRule, slack: Slack) -> Replay:
    """Cluster the points of a window, with near-ties decided as in another run.

    Args:
        points: The points.
        others: Points of the other run.
        found: Clusters of the other run.
        rule: Parameters of the clustering.
        slack: Differences of the outputs that rounding can cause.
    """
    seeds = found.seeds.tolist()
    wanted = np.where(at_threshold(others, rule, seeds, slack), found.labels, FREE).astype(np.int32)
    maps = np.full((len(others.places), others.bandwidths[0, 0].size), FREE, np.int32)
    for row, place, labels in zip(maps, others.places, np.split(wanted, np.cumsum(others.counts)[:-1]), strict=True):
        row[place] = labels
    mapped = np.concatenate([row[place] for row, place in zip(maps, points.places, strict=True)])
    return replay(points, rule, [points.point_at(*others.pixel_of(seed)) for seed in seeds], mapped, slack)


def replay(points: Points, rule: ClusterRule, seeds: Sequence[int | None], wanted: Labels, slack: Slack) -> Replay:
    """Cluster points, with given decisions wherever these are nearly those of the points themselves.

    A seed is used if it is nearly tied with the best. The number of clusters is that of the other run as well if the
    seediness of the next seed is at the minimum. A point at a threshold could become a seed itself if it were not
    decided as in the other run, which would change the numbers of all later clusters.

    Args:
        points: The points.
        rule: Parameters of the clustering.
        seeds: Seeds of another run, in order; None for one that is not among the points.
        wanted: int32 `[P]`, labels in the other run of the points at a threshold there; `FREE` for all others.
        slack: Differences of the outputs that rounding can cause.
    """
    labels, doubtful = np.full(len(points), OUTLIER, np.int32), wanted != FREE
    table, tied, used = np.zeros((0, len(points)), np.float32), 0, list[Seed]()
    primary, free = np.float32(rule.primary_threshold), labels == OUTLIER
    for number in range(rule.max_clusters):
        free = labels == OUTLIER
        if not free.any():
            break
        best, minimum = int(np.where(free, points.seediness, -np.inf).argmax()), rule.min_seediness
        if number < len(seeds):
            other = seeds[number]
            minimum -= slack.seediness
            if other is not None and other != best and free[other]:
                near = bool(points.seediness[other] >= points.seediness[best] - slack.seediness)
                best, tied = (other, tied + 1) if near else (best, tied)
        elif number == len(seeds) < rule.max_clusters:
            minimum += slack.seediness
        if points.seediness[best] < minimum:
            break
        used.append(Seed.at(points, best, rule))
        membership, margin = memberships(points, best, rule, slack)
        given = doubtful & (np.abs(membership - primary) <= _BOTH * margin)
        inside = np.where(given, wanted == number, membership > primary)
        inside[best] = True
        labels[free & inside] = number
        table = np.concatenate([table, membership[None]])
    own = _own_labels(table, rule)
    if free.any() and len(table):
        if doubtful.any():  # the values of the point itself must be near a threshold as well
            doubtful &= at_threshold(points, rule, [seed.point for seed in used], slack.times(_BOTH))
        rest = np.where(table.min(axis=0) > np.float32(rule.secondary_threshold), table.argmin(axis=0), labels)
        labels = np.where(free, np.where(doubtful & (wanted < len(table)), wanted, rest), labels).astype(np.int32)
    changed = int(np.count_nonzero(doubtful & (labels != own)))
    return Replay(summarise(labels, used, points.maps.shape[1]), tied, changed)


def _own_labels(table: FloatArray, rule: ClusterRule) -> Labels:
    """Return the labels by the memberships `[K, P]` alone: the first cluster joined, else the farthest one."""
    if not len(table):
        return np.full(table.shape[1], OUTLIER, np.int32)
    joined = table > np.float32(rule.primary_threshold)
    near = table.min(axis=0) > np.float32(rule.secondary_threshold)
    rest = np.where(near, table.argmin(axis=0), OUTLIER)
    return np.where(joined.any(axis=0), joined.argmax(axis=0), rest).astype(np.int32)


def at_threshold(points: Points, rule: ClusterRule, seeds: Sequence[int], slack: Slack) -> BoolArray:
    """Return the points whose cluster is decided by rounding, bool `[P]`.

    These are points whose membership of a cluster is at the primary threshold, unless an earlier cluster takes them;
    and remaining points whose membership of the farthest cluster is at the secondary threshold, or nearly equal to that
    of another one.

    Args:
        points: The points.
        rule: Parameters of the clustering.
        seeds: The point at which each cluster started.
        slack: Differences of the outputs that rounding can cause.
    """
    found, joined = np.zeros(len(points), bool), np.zeros(len(points), bool)
    least, second = (np.full(len(points), np.inf, np.float32) for _ in range(2))
    error = np.zeros(len(points), np.float32)
    for number, seed in enumerate(seeds):
        membership, margin = memberships(points, seed, rule, slack)
        excess = membership - np.float32(rule.primary_threshold)
        found |= ~joined & (np.abs(excess) <= margin)
        if number < rule.max_clusters - 1:  # the pixels of the last allowed cluster are assigned again
            joined |= excess > margin
        second = np.minimum(second, np.maximum(least, membership))
        least, error = np.minimum(least, membership), np.maximum(error, margin)
    excess = least - np.float32(rule.secondary_threshold)
    with np.errstate(invalid="ignore"):  # infinite without clusters, and the second one without two
        tied = (excess > -error) & (second - least <= 2 * error)
    return np.asarray(found | (~joined & np.isfinite(least) & ((np.abs(excess) <= error) | tied)))


def memberships(points: Points, seed: int, rule: ClusterRule, slack: Slack) -> tuple[FloatArray, FloatArray]:
    """Return the membership `m = exp(-d / 2)` of every point in a cluster, and how much rounding can change it.

    An error of `e` in every embedding changes `d` by no more than `2 e sqrt(sum_k b_k)`, and a relative error of `r` in
    every bandwidth `b_k` by about `d r / 2`; the membership changes by half of this times `m`.

    Args:
        points: The points.
        seed: The point at which the cluster started.
        rule: Parameters of the clustering.
        slack: Differences of the outputs that rounding can cause.

    Returns:
        Both float32 `[P]`.
    """
    total, term = np.empty((2, len(points)), np.float32)
    _, center, spread = Seed.at(points, seed, rule)
    squared_distances(points.embeddings, center, spread, total, term)
    distance = np.sqrt(total, out=total)
    membership = np.exp(distance / -2)
    predicted = spread[: len(spread) - len(rule.free_dim_stds)]
    relative = np.float32(slack.bandwidths / max(float(predicted.min(initial=np.inf)), 1e-12))
    moved = np.float32(2 * slack.embeddings * float(np.sqrt(spread.sum()))) + distance * (relative / 2)
    return membership, membership * moved / 2
