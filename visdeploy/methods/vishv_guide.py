"""Comparison of two VIShv decoders: one decides near-ties as the other does, and counts them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from visdeploy.manifest import Tolerance
from visdeploy.methods.vishv_ties import Slack, follow_clusters
from visdeploy.tracking.cluster_chain import Link
from visdeploy.tracking.cluster_rule import ClusterRule
from visdeploy.tracking.embedding_clusters import Clusters, find_clusters
from visdeploy.tracking.embedding_points import Points

if TYPE_CHECKING:
    from visdeploy.methods.vishv import ClusteredWindow

BoolArray = npt.NDArray[np.bool_]
FloatArray = npt.NDArray[np.float32]


class Guide:
    """Decisions of the decoder of another engine, which a decoder follows in near-ties (see `Decoder.follow`).

    - A pixel whose foreground is within the tolerance of its threshold in the other engine is decided as it is there.
    - The seed of a cluster is that of the other engine if its seediness is within the tolerance of the best.
    - A pixel at a threshold of the other engine's clusters (`at_threshold`) belongs to the cluster to which it belongs
      there.
    - Clusters are linked to the tracks of the other engine if the mean IoU is within the tolerance of the best.

    Args:
        windows: Returns the windows that the other decoder completed in its last step, with their evidence.
        tolerance: Limits within which the outputs of both engines may differ.
    """

    def __init__(self, windows: Callable[[], Sequence[ClusteredWindow]], tolerance: Tolerance) -> None:
        self._windows, self._tolerance = windows, tolerance
        self._pixels = self._compared = self._seeds = self._links = 0

    @property
    def slack(self) -> float:
        """Largest difference of the mean IoU of nearly tied links."""
        return 1 - self._tolerance.mask_iou

    def foreground(self, frames: range, found: BoolArray, margins: FloatArray) -> BoolArray:
        """Return the foreground of a window, bool `[T, h, w]`.

        Args:
            frames: Frames of the window.
            found: The foreground of the decoder alone.
            margins: float32 `[T, h, w]`, its mean minus its threshold.
        """
        other = self._window(frames)
        if other is None or other.evidence is None or other.foreground.shape != found.shape:
            return found
        theirs = np.abs(other.evidence.margins)
        slack = max(self._tolerance.atol, self._tolerance.rtol * float(theirs.max(initial=0)))
        tied = (found != other.foreground) & (theirs <= slack) & (np.abs(margins) <= 2 * slack)
        self._pixels += int(np.count_nonzero(tied))
        self._compared += int(np.count_nonzero(found | other.foreground))
        return np.asarray(found ^ tied)

    def find(self, frames: range, points: Points, rule: ClusterRule) -> tuple[Clusters, tuple[Link, ...]]:
        """Return the clusters of a window, and the links to prefer.

        Args:
            frames: Frames of the window.
            points: Its foreground pixels.
            rule: Parameters of the clustering.
        """
        other = self._window(frames)
        if other is None or other.evidence is None:
            return find_clusters(points, rule), ()
        theirs = other.evidence.points
        again = follow_clusters(points, theirs, other.clusters, rule, Slack.of(self._tolerance, theirs))
        self._seeds += again.seeds
        self._pixels += again.pixels
        return again.clusters, other.chain.links

    def count_links(self, made: Sequence[Link], best: Sequence[Link]) -> None:
        """Count the links that are not those that would have been made without preference."""
        self._links += len({(x.track, x.cluster) for x in made} - {(x.track, x.cluster) for x in best})

    def note(self) -> str:
        """Return how many near-ties were decided as in the other engine; empty if there were none."""
        counts = (
            (self._pixels, f"of {self._compared} pixels at a threshold"),
            (self._seeds, "tied seeds"),
            (self._links, "tied links"),
        )
        named = ", ".join(f"{count} {name}" for count, name in counts if count)
        return f"{named} decided as in the reference" if named else ""

    def _window(self, frames: range) -> ClusteredWindow | None:
        return next((each for each in self._windows() if each.frames == frames), None)
