"""Parameters, seeds and distances of the clustering of embeddings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from visdeploy.tracking.embedding_points import FloatArray, Points

OUTLIER = -1
"""Label of a pixel that belongs to no cluster."""


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


class Seed(NamedTuple):
    """Start of a cluster: position among the points, embedding, and bandwidths in all dimensions of the embedding."""

    point: int
    center: FloatArray
    bandwidths: FloatArray

    @classmethod
    def at(cls, points: Points, point: int, rule: ClusterRule) -> Seed:
        """Return the start of a cluster at a point."""
        free = [1.0 / std**2 for std in rule.free_dim_stds]
        bandwidths = np.concatenate([points.bandwidths_of(point), np.array(free, np.float32)])
        return cls(point, points.embedding_of(point), bandwidths)


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
