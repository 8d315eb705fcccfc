"""Chaining of the clusters of overlapping windows to tracks, as in STEm-Seg (Athar et al., ECCV 2020).

The pixels that a window shares with the previous one carry the labels of tracks and those of new clusters. Tracks and
clusters are assigned one to one by the IoU of these pixels over all shared frames (Hungarian method). As in the
published implementation, every assigned pair is linked, whatever its IoU.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from visdeploy.tracking.stitching import match

Labels = npt.NDArray[np.int32]
"""Labels of the foreground pixels of a frame in row-major order; tracks from 0, -1 for outliers."""


@dataclass(frozen=True)
class Link:
    """Cluster of a window that continues a track.

    Attributes:
        track: Label of the track.
        cluster: Number of the cluster in its window, from 0.
        cost: 1 - IoU over the shared frames.
    """

    track: int
    cluster: int
    cost: float


@dataclass(frozen=True)
class Chain:
    """Tracks of the windows so far. It is immutable, so that a failed step leaves a stream unchanged.

    Attributes:
        next_label: Label of the next new cluster.
        previous: Frames of the last window, with the labels stored for them.
        links: Links made by the last window.
    """

    next_label: int = 0
    previous: Mapping[int, Labels] = field(default_factory=dict)
    links: tuple[Link, ...] = ()

    def add(
        self,
        frames: Sequence[int],
        labels: Sequence[Labels],
        clusters: int,
        *,
        preferred: Sequence[Link] = (),
        slack: float = 0.0,
    ) -> tuple[Chain, dict[int, Labels]]:
        """Chain a window to the previous one.

        A frame of the previous window keeps its labels. The published implementation leaves a gap in its labels only
        where the clusters with the largest numbers were all linked; here, the next label follows the largest one that
        has been stored for a frame.

        Args:
            frames: Frames of the window in ascending order.
            labels: Number of the cluster of each foreground pixel, one array per frame; -1 for outliers.
            clusters: Number of clusters of the window.
            preferred: Links to make if they are nearly the best, for the comparison of two chains.
            slack: Largest difference of the mean IoU of these links from that of the best.

        Returns:
            The chain with the window, and the labels of the frames that the previous window did not have.
        """
        shared = [t for t in frames if t in self.previous]
        given = dict(zip(frames, labels, strict=True))
        links = self._links([self.previous[t] for t in shared], [given[t] for t in shared], preferred, slack)
        names = np.arange(self.next_label, self.next_label + clusters + 1, dtype=np.int32)
        names[clusters] = -1  # index -1, the label of outliers
        for link in links:
            names[link.cluster] = link.track
        fresh = {t: names[given[t]] for t in frames if t not in self.previous}
        largest = max((int(each.max(initial=-1)) for each in fresh.values()), default=-1)
        window = {t: fresh[t] if t in fresh else self.previous[t] for t in frames}
        return replace(self, next_label=max(self.next_label, largest + 1), previous=window, links=links), fresh

    def _links(
        self, tracks: Sequence[Labels], clusters: Sequence[Labels], preferred: Sequence[Link], slack: float
    ) -> tuple[Link, ...]:
        if not tracks:
            return ()
        old, new = np.concatenate(tracks), np.concatenate(clusters)
        rows, columns, overlap = overlaps(old, new)
        if not overlap.size:
            return ()
        pairs = [(int(r), int(c)) for r, c in match(overlap, 0.0)]
        known = {int(k): r for r, k in enumerate(rows)}, {int(k): c for c, k in enumerate(columns)}
        wanted = [(known[0].get(link.track, -1), known[1].get(link.cluster, -1)) for link in preferred]
        if len(wanted) == len(pairs) and all(r >= 0 and c >= 0 for r, c in wanted):
            missing = sum(overlap[p] for p in pairs) - sum(overlap[p] for p in wanted)
            pairs = wanted if missing <= slack * len(pairs) else pairs
        return tuple(Link(int(rows[r]), int(columns[c]), float(np.float32(1) - overlap[r, c])) for r, c in pairs)


def overlaps(old: Labels, new: Labels) -> tuple[Labels, Labels, npt.NDArray[np.float64]]:
    """Compute the IoU of every pair of labels.

    Args:
        old: int32 `[P]`, first label of each pixel; negative for none.
        new: int32 `[P]`, second label of each pixel; negative for none.

    Returns:
        The first labels and the second labels in ascending order, and the IoU of each pair, float64.
    """
    rows, columns = (np.unique(each[each >= 0]) for each in (old, new))
    sizes = [np.array([np.count_nonzero(each == v) for v in values], np.int64)
             for each, values in ((old, rows), (new, columns))]  # fmt: skip
    common = np.zeros((len(rows), len(columns)), np.int64)
    both = (old >= 0) & (new >= 0)
    places = np.searchsorted(rows, old[both]), np.searchsorted(columns, new[both])
    np.add.at(common, places, 1)
    union = sizes[0][:, None] + sizes[1][None, :] - common
    return rows, columns, np.asarray(common / np.maximum(union, 1), np.float64)
