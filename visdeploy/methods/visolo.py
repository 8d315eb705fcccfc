"""VISOLO's light half: overlap suppression, tracking, class decision (specification sections 7 to 9).

The graph ends with the sorted detections of a frame; from there on everything is a handful of small arrays.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
from pydantic import Field

from visdeploy.errors import StreamError
from visdeploy.manifest import Window
from visdeploy.masks import Mask
from visdeploy.masks.resampling import resize_mask
from visdeploy.methods.base import Arrays, OnlineDecoder, Parameters, TrackSummary, read_parameters, take_output
from visdeploy.profiling import OFF, Profiler, Stage
from visdeploy.results import FrameResult, Instance
from visdeploy.tracking import AffinityTracker, Association

Unit = Annotated[float, Field(ge=0, le=1)]


class DecodeParameters(Parameters):
    """The manifest's `decode` field.

    Attributes:
        overlap_threshold: A detection disappears if more than this part of its mask lies in a better one.
    """

    overlap_threshold: Unit = 0.5


class TrackingParameters(Parameters):
    """The manifest's `tracking` field.

    Attributes:
        affinity_threshold: Smallest affinity that continues a track.
        max_lost: Lost tracks remembered; the reference has no limit.
    """

    affinity_threshold: Unit = 0.1
    max_lost: Annotated[int, Field(ge=0)] = 1024


@dataclass(frozen=True)
class VisoloStep:
    """What the last step decided, for inspection.

    Attributes:
        kept: int64 `[k]`, rows of the graph's outputs that survive overlap suppression, best first.
        association: Their tracks, and what became of the earlier ones.
    """

    kept: npt.NDArray[np.int64]
    association: Association


@dataclass
class _Votes:
    """Running class decision of one track: sum of the raw class vectors over the frames where it is present."""

    total: npt.NDArray[np.float64]
    presence: int = 0

    def mean(self) -> npt.NDArray[np.float64]:
        return self.total / self.presence


def suppress_overlaps(overlaps: npt.NDArray[np.float32], threshold: float = 0.5) -> npt.NDArray[np.int64]:
    """Class-agnostic mask suppression, steps 9 and 10 of section 7.

    From the best detection on, each one that is still there removes the worse ones of which more than `threshold`
    lies inside it. (The reference empties their masks; an empty mask neither removes nor survives.)

    Args:
        overlaps: float32 `[n, n]`, common pixels of every pair of masks, areas on the diagonal; rows by falling score.
        threshold: Largest part of the worse mask that may be covered.

    Returns:
        int64 `[k]`, the surviving rows in order.
    """
    areas = np.diagonal(overlaps)
    alive = areas > 0
    for i in range(len(overlaps)):
        if alive[i]:
            alive[i + 1 :] &= ~(overlaps[i, i + 1 :] > threshold * areas[i + 1 :])
    return np.flatnonzero(alive)


class VisoloDecoder(OnlineDecoder):
    """Detections of consecutive frames → tracks. See `Decoder` for the common arguments.

    Args:
        classes: Class names.
        window: Frames of one step, here one.
        decode: The manifest's `decode` field, see `DecodeParameters`.
        tracking: The manifest's `tracking` field, see `TrackingParameters`.
        keep_tracks: Remember every track for `summaries`.
        profiler: Takes the time of the stages.

    Attributes:
        last: What the last step decided; None before the first.

    Raises:
        BundleError: A parameter is unknown or wrong.
    """

    def __init__(
        self,
        classes: Sequence[str],
        *,
        window: Window,
        decode: Mapping[str, Any],
        tracking: Mapping[str, Any],
        keep_tracks: bool = False,
        profiler: Profiler = OFF,
    ) -> None:
        super().__init__(
            classes, window=window, decode=decode, tracking=tracking, keep_tracks=keep_tracks, profiler=profiler
        )
        self._decode = read_parameters(DecodeParameters, decode, field="decode")
        limits = read_parameters(TrackingParameters, tracking, field="tracking")
        self.tracker = AffinityTracker(threshold=limits.affinity_threshold, max_lost=limits.max_lost)
        self.last: VisoloStep | None = None
        self._votes: dict[int, _Votes] = {}

    def step(self, outputs: Arrays, *, index: int, timestamp: float, height: int, width: int) -> FrameResult:
        """The result of the next frame, see `OnlineDecoder.step`.

        Args:
            outputs: `masks` uint8 `[n, h, w]`, `overlaps` float32 `[n, n]`, `cells` int64 `[n]`, `class_scores`
                float32 `[n, classes]`, `query` and `reference` float32 `[n, d]`; rows by falling score.
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
            kept = suppress_overlaps(overlaps, self._decode.overlap_threshold)
            encoded = [Mask.encode(resize_mask(masks[row], height, width)) for row in kept]
        with self.profiler.stage(Stage.TRACKING):
            association = self.tracker.update(cells[kept], query[kept], reference[kept])
            self.last = VisoloStep(kept, association)
            instances = self._vote(association, class_scores[kept], encoded)
        return FrameResult(index, timestamp, height, width, instances, self.classes)

    def _vote(
        self, association: Association, class_scores: npt.NDArray[np.float32], masks: Sequence[Mask]
    ) -> tuple[Instance, ...]:
        """Add the frame's class vectors to their tracks; the instances with the decision so far, best first.

        A mask that vanished when it was scaled down counts for its track but is no instance of the frame.
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
        """Every remembered track by rising id, decided by the mean of its class vectors (section 9)."""
        found = []
        for track_id, votes in sorted(self._votes.items()):
            mean = votes.mean()
            label = int(mean.argmax())
            found.append(TrackSummary(track_id, label, float(mean[label]), tuple(mean.tolist()), votes.presence))
        return found

    def state(self) -> dict[str, npt.NDArray[Any]]:
        """Tracks and votes as arrays, see `Decoder.state`."""
        ids = sorted(self._votes)
        arrays = {f"tracker.{name}": array for name, array in self.tracker.state().items()}
        arrays["votes.track_ids"] = np.array(ids, dtype=np.int64)
        arrays["votes.presence"] = np.array([self._votes[i].presence for i in ids], dtype=np.int64)
        arrays["votes.total"] = np.array([self._votes[i].total for i in ids]).reshape(len(ids), len(self.classes))
        return arrays

    def load_state(self, arrays: Arrays) -> None:
        """Take back what `state` gave, see `Decoder.load_state`.

        Raises:
            StreamError: The arrays are incomplete or contradict each other.
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
