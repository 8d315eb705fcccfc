"""Decoder of VISOLO: suppression of overlapping masks, tracking, and the class of a track.

The graph returns the detections of a frame in descending order of score. The steps in this module follow the published
implementation of VISOLO (Han et al., CVPR 2022). They process a few small arrays.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
from pydantic import Field

from visdeploy.errors import StreamError
from visdeploy.masks import Mask
from visdeploy.masks.resampling import resize_mask
from visdeploy.methods.base import Arrays, OnlineDecoder, Parameters, TrackSummary, take_output
from visdeploy.profiling import Stage
from visdeploy.results import FrameResult, Instance
from visdeploy.tracking import AffinityTracker, Association

Unit = Annotated[float, Field(ge=0, le=1)]


class DecodeParameters(Parameters):
    """Field `decode` of the manifest.

    Attributes:
        overlap_threshold: Fraction of a mask covered by a mask with a higher score above which it is suppressed.
    """

    overlap_threshold: Unit = 0.5


class TrackingParameters(Parameters):
    """Field `tracking` of the manifest.

    Attributes:
        affinity_threshold: Minimum affinity to continue a track.
        max_lost: Maximum number of lost tracks kept; the published implementation has no limit.
    """

    affinity_threshold: Unit = 0.1
    max_lost: Annotated[int, Field(ge=0)] = 1024


@dataclass(frozen=True)
class VisoloStep:
    """Decisions of the last step, for inspection.

    Attributes:
        kept: int64 `[k]`, rows of the outputs of the graph that were not suppressed, in descending order of score.
        association: Result of their association with tracks.
    """

    kept: npt.NDArray[np.int64]
    association: Association


@dataclass
class _Votes:
    """Sum of the class vectors of a track over the frames in which it is present."""

    total: npt.NDArray[np.float64]
    presence: int = 0

    def mean(self) -> npt.NDArray[np.float64]:
        return self.total / self.presence


def suppress_overlaps(overlaps: npt.NDArray[np.float32], threshold: float = 0.5) -> npt.NDArray[np.int64]:
    """Suppress masks that are covered by masks with higher scores, independently of their classes.

    In descending order of score, each remaining detection removes those below it of which more than the fraction
    `threshold` is covered by it. Empty masks remove nothing and are removed.

    Args:
        overlaps: float32 `[n, n]`, common pixels of every pair of masks, areas on the diagonal; rows in descending
            order of score.
        threshold: Maximum fraction of a mask that may be covered.

    Returns:
        int64 `[k]`, the remaining rows in order.
    """
    areas = np.diagonal(overlaps)
    alive = areas > 0
    for i in range(len(overlaps)):
        if alive[i]:
            alive[i + 1 :] &= ~(overlaps[i, i + 1 :] > threshold * areas[i + 1 :])
    return np.flatnonzero(alive)


class VisoloDecoder(OnlineDecoder[DecodeParameters, TrackingParameters]):
    """Decoder of VISOLO. See `Decoder` for the arguments.

    Attributes:
        tracker: Tracks of the stream.
        last: Decisions of the last step; None before the first step.
    """

    decode_model = DecodeParameters
    tracking_model = TrackingParameters

    def start(self) -> None:
        """See `Decoder.start`."""
        limits = self.tracking_parameters
        self.tracker = AffinityTracker(threshold=limits.affinity_threshold, max_lost=limits.max_lost)
        self.last: VisoloStep | None = None
        self._votes: dict[int, _Votes] = {}

    def step(self, outputs: Arrays, *, index: int, timestamp: float, height: int, width: int) -> FrameResult:
        """Return the result of the next frame, see `OnlineDecoder.step`.

        Args:
            outputs: `masks` uint8 `[n, h, w]`, `overlaps` float32 `[n, n]`, `cells` int64 `[n]`, `class_scores`
                float32 `[n, classes]`, `query` and `reference` float32 `[n, d]`; rows in descending order of score.
            index: Position of the frame in its source.
            timestamp: Seconds from the start of the source.
            height: Rows of the original frame.
            width: Columns of the original frame.

        Raises:
            BundleError: An output is missing or malformed.
        """
        with self.profiler.stage(Stage.OUTPUTS):
            masks = take_output(outputs, "masks", (None, None, None), "uint8")
            n = len(masks)
            overlaps = take_output(outputs, "overlaps", (n, n), "float32")
            cells = take_output(outputs, "cells", (n,), "int64")
            class_scores = take_output(outputs, "class_scores", (n, len(self.classes)), "float32")
            query = take_output(outputs, "query", (n, None), "float32")
            reference = take_output(outputs, "reference", query.shape, "float32")
            kept = suppress_overlaps(overlaps, self.decode_parameters.overlap_threshold)
            encoded = [Mask.encode(resize_mask(masks[row], height, width)) for row in kept]
        with self.profiler.stage(Stage.TRACKING):
            association = self.tracker.update(cells[kept], query[kept], reference[kept])
            self.last = VisoloStep(kept, association)
            instances = self._vote(association, class_scores[kept], encoded)
        return FrameResult(index, timestamp, height, width, instances, self.classes)

    def _vote(
        self, association: Association, class_scores: npt.NDArray[np.float32], masks: Sequence[Mask]
    ) -> tuple[Instance, ...]:
        """Add the class vectors of the frame to their tracks; return the instances in descending order of score.

        A mask that is empty after it was scaled down counts for its track, but is not an instance of the frame.
        """
        instances = []
        for track_id, scores, mask in zip(association.track_ids.tolist(), class_scores, masks, strict=True):
            votes = self._votes.setdefault(track_id, _Votes(np.zeros(len(self.classes))))
            votes.total += scores
            votes.presence += 1
            mean = votes.mean()
            if mask.area:
                label = int(mean.argmax())
                instances.append(Instance(track_id, label, float(mean[label]), mask))
        if not self.keep_tracks:
            for track_id in association.forgotten.tolist():
                del self._votes[track_id]
        return tuple(sorted(instances, key=lambda i: (-i.score, i.track_id)))

    def summaries(self) -> list[TrackSummary]:
        """Return the remembered tracks in ascending order of id. Label and score follow from the mean class vector."""
        found = []
        for track_id, votes in sorted(self._votes.items()):
            mean = votes.mean()
            label = int(mean.argmax())
            found.append(TrackSummary(track_id, label, float(mean[label]), tuple(mean.tolist()), votes.presence))
        return found

    def state(self) -> dict[str, npt.NDArray[Any]]:
        """Return tracks and votes as arrays, see `Decoder.state`."""
        ids = sorted(self._votes)
        arrays = {f"tracker.{name}": array for name, array in self.tracker.state().items()}
        arrays["votes.track_ids"] = np.array(ids, dtype=np.int64)
        arrays["votes.presence"] = np.array([self._votes[i].presence for i in ids], dtype=np.int64)
        arrays["votes.total"] = np.array([self._votes[i].total for i in ids]).reshape(len(ids), len(self.classes))
        return arrays

    def load_state(self, arrays: Arrays) -> None:
        """Restore the state returned by `state`.

        Raises:
            StreamError: The arrays are incomplete or inconsistent.
        """
        try:
            ids, presence, total = (arrays[f"votes.{name}"] for name in ("track_ids", "presence", "total"))
        except KeyError as error:
            raise StreamError("the saved class decisions cannot be read", seen=f"no array {error}") from error
        if total.shape != (len(ids), len(self.classes)) or presence.shape != ids.shape or (presence < 1).any():
            raise StreamError(
                "the saved class decisions do not fit the bundle",
                seen=f"{total.shape} class sums of {len(ids)} tracks",
                expected=f"{len(self.classes)} classes",
            )
        tracker = AffinityTracker(threshold=self.tracker.threshold, max_lost=self.tracker.max_lost)
        prefix = "tracker."
        tracker.load_state({name[len(prefix) :]: a for name, a in arrays.items() if name.startswith(prefix)})
        if not set(tracker.live.tolist()) <= set(ids.tolist()):
            raise StreamError("the saved tracks contradict each other", seen="a live track without a class decision")
        self.tracker, self.last = tracker, None
        self._votes = {
            int(i): _Votes(np.array(t, dtype=np.float64), int(p)) for i, t, p in zip(ids, total, presence, strict=True)
        }
