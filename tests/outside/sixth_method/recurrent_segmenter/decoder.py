"""Decoder for the runtime: converts raw outputs to instances with track ids. It uses NumPy, not torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
from pydantic import Field

from visdeploy.errors import StreamError
from visdeploy.masks import Mask
from visdeploy.masks.resampling import resize_mask
from visdeploy.methods import OnlineDecoder, Parameters, TrackSummary, take_output
from visdeploy.parity.measures import Comparison, Measure, StepContext
from visdeploy.profiling import Stage
from visdeploy.results import FrameResult, Instance

DIRECTION = "recurrent_segmenter.direction"
"""Name of the method's own measure."""


class Direction(Measure):
    """1 - cosine of two codes; their lengths carry no information."""

    name = DIRECTION
    quantity = "1 - cosine"

    def compare(self, reference: npt.NDArray[Any], candidate: npt.NDArray[Any], context: StepContext) -> Comparison:
        """See `Measure.compare`."""
        left, right = reference.astype(np.float64).ravel(), candidate.astype(np.float64).ravel()
        lengths = np.linalg.norm(left) * np.linalg.norm(right)
        error = float(1 - left @ right / lengths) if lengths > 0 else float((left != right).any())
        limit = self.least_limit()
        return Comparison(error, limit, error <= limit, 1)  # NaN is not within the limit


class DecodeParameters(Parameters):
    """Field `decode` of the manifest, without parameters."""


class TrackingParameters(Parameters):
    """Field `tracking` of the manifest.

    Attributes:
        max_gap: Frames without a detection after which a slot begins a new track.
    """

    max_gap: Annotated[int, Field(ge=0)] = 3


@dataclass(frozen=True)
class Track:
    """One track.

    Attributes:
        slot: The slot that finds it.
        last: Position of the last frame with it.
        presence: Number of frames with it.
        total: Sum of its class scores, float64 `[classes]`.
    """

    slot: int
    last: int
    presence: int
    total: npt.NDArray[np.float64]

    def summary(self, track_id: int) -> TrackSummary:
        """Return the decision over all of its frames."""
        mean = self.total / self.presence
        label = int(mean.argmax())
        return TrackSummary(track_id, label, float(mean[label]), tuple(mean.tolist()), self.presence)


class RecurrentSegmenterDecoder(OnlineDecoder[DecodeParameters, TrackingParameters]):
    """Decoder in which each slot is a track, until it has had no detection for more than `max_gap` frames."""

    decode_model = DecodeParameters
    tracking_model = TrackingParameters
    measures = (Direction,)

    def start(self) -> None:
        """See `Decoder.start`."""
        self._tracks: dict[int, Track] = {}
        self._next_id = 0

    def step(
        self, outputs: Mapping[str, npt.NDArray[Any]], *, index: int, timestamp: float, height: int, width: int
    ) -> FrameResult:
        """Return the result of the next frame, see `OnlineDecoder.step`."""
        with self.profiler.stage(Stage.OUTPUTS):
            masks = take_output(outputs, "masks", (None, None, None), "uint8")
            slots = take_output(outputs, "slots", (len(masks),), "int64")
            scores = take_output(outputs, "class_scores", (len(masks), len(self.classes)), "float32")
            rows, columns = take_output(outputs, "content", (2,), "int64").tolist()
            encoded = [Mask.encode(resize_mask(mask[:rows, :columns], height, width)) for mask in masks]
        with self.profiler.stage(Stage.TRACKING):
            tracks = self._alive(index)
            owner = {
                track.slot: track_id
                for track_id, track in tracks.items()
                if index - track.last <= self.tracking_parameters.max_gap + 1
            }
            instances, next_id = [], self._next_id
            for slot, score, mask in zip(slots.tolist(), scores.astype(np.float64), encoded, strict=True):
                if slot in owner:
                    track_id, before = owner[slot], tracks[owner[slot]]
                else:
                    track_id, before, next_id = next_id, Track(slot, index, 0, np.zeros(len(self.classes))), next_id + 1
                tracks[track_id] = Track(slot, index, before.presence + 1, before.total + score)
                if mask.area:
                    decided = tracks[track_id].summary(track_id)
                    instances.append(Instance(track_id, decided.label, decided.score, mask))
            self._tracks, self._next_id = tracks, next_id
        ordered = tuple(sorted(instances, key=lambda each: (-each.score, each.track_id)))
        return FrameResult(index, timestamp, height, width, ordered, self.classes)

    def _alive(self, index: int) -> dict[int, Track]:
        """Return the tracks to keep: all of them, or those that can continue."""
        limit = self.tracking_parameters.max_gap + 1
        return {i: t for i, t in self._tracks.items() if self.keep_tracks or index - t.last <= limit}

    def summaries(self) -> list[TrackSummary]:
        """See `Decoder.summaries`."""
        return [track.summary(track_id) for track_id, track in sorted(self._tracks.items())]

    def state(self) -> dict[str, npt.NDArray[Any]]:
        """See `Decoder.state`."""
        rows = [(i, t.slot, t.last, t.presence) for i, t in sorted(self._tracks.items())]
        totals = [t.total for _, t in sorted(self._tracks.items())]
        return {
            "tracks": np.array(rows, np.int64).reshape(len(rows), 4),
            "totals": np.array(totals, np.float64).reshape(len(rows), len(self.classes)),
            "next_id": np.array(self._next_id, np.int64),
        }

    def load_state(self, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
        """See `Decoder.load_state`."""
        try:
            rows, totals, next_id = arrays["tracks"], arrays["totals"], int(arrays["next_id"])
            if rows.shape != (len(rows), 4) or totals.shape != (len(rows), len(self.classes)):
                raise ValueError(f"tracks {rows.shape}, totals {totals.shape}")
            if len(rows) and not (rows[:, 0].max() < next_id and rows.min() >= 0 and rows[:, 3].min() >= 1):
                raise ValueError("a track out of its range")
        except (KeyError, ValueError, TypeError) as error:
            raise StreamError("the saved tracks cannot be read", seen=str(error)[:200]) from error
        self._next_id = next_id
        self._tracks = {
            track_id: Track(slot, last, presence, np.array(total, np.float64))
            for (track_id, slot, last, presence), total in zip(rows.astype(np.int64).tolist(), totals, strict=True)
        }
