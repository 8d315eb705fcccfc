"""Base class of the decoders of clip methods: joins overlapping clips to one sequence of frames with track ids.

The result of a clip has the same instances in all of its frames. Frames that two clips share serve two purposes. The
masks in them show which instances of the clips are the same (`visdeploy.tracking.stitching`). And every frame is taken
from the clip that contains more of its neighbours: the first half of an overlap from the earlier clip, the second half
from the later one.
"""

from __future__ import annotations

import logging
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar

import numpy as np
import numpy.typing as npt
from pydantic import Field

from visdeploy.errors import DataError, StreamError
from visdeploy.masks import Mask
from visdeploy.methods.base import Arrays, Decoder, DecodeT, Parameters, TrackSummary, check_position
from visdeploy.methods.clip_state import pack_instances, unpack_instances
from visdeploy.profiling import Stage
from visdeploy.results import FrameResult, Instance
from visdeploy.streaming.windows import Step
from visdeploy.tracking.stitching import match, tube_overlaps

logger = logging.getLogger(__name__)
Votes = npt.NDArray[np.float64]
_NO_SLOT = -1
"""Value in saved streams if there is no slot."""


class StitchParameters(Parameters):
    """Field `tracking` of the manifest of a clip method.

    Attributes:
        iou_threshold: Minimum IoU over the shared frames to continue a track.
        label_bonus: Added to the IoU of a pair above the threshold if the labels are equal. It decides between
            instances with nearly equal masks.
        slot_bonus: Added to the IoU of a pair above the threshold if the slots are equal. It decides between instances
            with nearly equal masks and equal labels, which would otherwise be decided by rounding.
    """

    iou_threshold: Annotated[float, Field(gt=0, le=1)] = 0.1
    label_bonus: Annotated[float, Field(ge=0, le=1)] = 0.1
    slot_bonus: Annotated[float, Field(ge=0, le=1)] = 0.05


@dataclass(frozen=True)
class ClipInstance:
    """Object in the frames of a clip.

    Attributes:
        masks: Mask in every frame; None if the object is absent.
        votes: float64 `[frames, values]`, contribution of each frame to label and score. `ClipDecoder.judge` reads
            their sum.
        slot: Slot or query of the network; None if the method has none.
    """

    masks: tuple[Mask | None, ...]
    votes: Votes
    slot: int | None = None


@dataclass(frozen=True)
class _Track:
    total: Votes
    frames: int


@dataclass(frozen=True)
class _Clip:
    """Last clip, with the track of each instance and the first frame whose result has not been returned."""

    first: int
    timestamps: tuple[float, ...]
    size: tuple[int, int]
    track_ids: tuple[int, ...]
    instances: tuple[ClipInstance, ...]
    pending: int


class ClipDecoder(Decoder[DecodeT, StitchParameters]):
    """Decoder of overlapping clips. See `Decoder` for the arguments.

    Attributes:
        values: Number of values in the vote of an instance.
    """

    tracking_model = StitchParameters
    extra_values: ClassVar[int] = 0
    """Number of values in the vote of an instance, in addition to one for each class."""

    def start(self) -> None:
        """See `Decoder.start`."""
        self.values = len(self.classes) + self.extra_values
        self._tracks: dict[int, _Track] = {}
        self._last: _Clip | None = None
        self._next_id = 0

    @abstractmethod
    def read(self, outputs: Arrays, *, length: int, height: int, width: int) -> list[ClipInstance]:
        """Return the instances of one clip.

        Args:
            outputs: The graph's non-state outputs.
            length: Number of frames of the clip, without repetitions that fill a fixed input.
            height: Rows of the original frames.
            width: Columns of the original frames.

        Raises:
            BundleError: An output is missing or malformed.
        """

    @abstractmethod
    def judge(self, total: Votes, frames: int) -> tuple[int, float, tuple[float, ...]]:
        """Return label, score and class scores of a track.

        Args:
            total: Sum of the votes of its frames.
            frames: Number of these frames, at least 1.
        """

    def decode(self, outputs: Arrays, step: Step, *, height: int, width: int) -> list[FrameResult]:
        """Return the results that are final after this clip: up to the middle of the overlap with the next one."""
        with self.profiler.stage(Stage.OUTPUTS):
            instances = self.read(outputs, length=step.length, height=height, width=width)
        with self.profiler.stage(Stage.TRACKING):
            pending = step.first if self._last is None else self._last.pending
            ids, next_id = self._identify(instances, step)
            clip = _Clip(step.first, step.timestamps, (height, width), ids, tuple(instances), pending)
            until = max(step.end - self.window.overlap // 2, pending)
            results, tracks = self._give_out(clip, until)
            self._last, self._next_id = replace(clip, pending=until), next_id
            self._keep(tracks, ids)
        return results

    def finish(self) -> list[FrameResult]:
        """Return the results of the last frames, which no later clip contains."""
        if self._last is None:
            return []
        end = self._last.first + len(self._last.timestamps)
        results, self._tracks = self._give_out(self._last, end)
        self._last = replace(self._last, pending=end)
        return results

    def _identify(self, instances: Sequence[ClipInstance], step: Step) -> tuple[tuple[int, ...], int]:
        """Return the track id of every instance, and the next new id."""
        ids: dict[int, int] = {}
        last, shared = self._last, step.length - step.fresh
        if last is not None and shared:
            start = step.first - last.first
            before = [each.masks[start : start + shared] for each in last.instances]
            overlaps = tube_overlaps([each.masks[:shared] for each in instances], before)
            limits = self.tracking_parameters
            bonus = limits.label_bonus * _same(self._label, instances, last.instances)
            bonus += limits.slot_bonus * _same(lambda each: each.slot, instances, last.instances)
            similar = np.where(overlaps >= limits.iou_threshold, overlaps + bonus, 0.0)
            ids = {row: last.track_ids[column] for row, column in match(similar, limits.iou_threshold)}
        self._report_lost(ids, step)
        fresh = iter(range(self._next_id, self._next_id + len(instances)))
        chosen = tuple(ids[row] if row in ids else next(fresh) for row in range(len(instances)))
        return chosen, self._next_id + len(instances) - len(ids)

    def _report_lost(self, ids: Mapping[int, int], step: Step) -> None:
        """Log the tracks that are visible where the previous clip ends if no instance in this clip matches."""
        if self._last is None:
            return
        seen = {i for i, each in zip(self._last.track_ids, self._last.instances, strict=True) if each.masks[-1]}
        if lost := sorted(seen - set(ids.values())):
            logger.info("tracks %s end at a window border, before frame %d", lost, step.end - step.fresh)

    def _label(self, instance: ClipInstance) -> int:
        return self.judge(instance.votes.sum(0), max(len(instance.votes), 1))[0]

    def _give_out(self, clip: _Clip, until: int) -> tuple[list[FrameResult], dict[int, _Track]]:
        """Return the results of the pending frames before `until`, and the tracks with the votes of these frames."""
        tracks, judged, (height, width) = dict(self._tracks), [], clip.size
        here, there = clip.pending - clip.first, until - clip.first
        for track_id, each in zip(clip.track_ids, clip.instances, strict=True):
            known = tracks.get(track_id, _Track(np.zeros(self.values), 0))
            # all frames of a clip are known, so they share one decision, including frames that are still pending
            seen = _Track(known.total + each.votes[here:].sum(0), known.frames + len(each.votes) - here)
            judged.append(self.judge(seen.total, seen.frames)[:2] if seen.frames else (0, 0.0))
            if there > here:
                tracks[track_id] = _Track(known.total + each.votes[here:there].sum(0), known.frames + there - here)
        results = []
        for place in range(here, there):
            shown = zip(clip.track_ids, judged, (each.masks[place] for each in clip.instances), strict=True)
            instances = [Instance(i, *decision, mask) for i, decision, mask in shown if mask is not None and mask.area]
            ordered = tuple(sorted(instances, key=lambda i: (-i.score, i.track_id)))
            results.append(
                FrameResult(clip.first + place, clip.timestamps[place], height, width, ordered, self.classes)
            )
        return results, tracks

    def _keep(self, tracks: dict[int, _Track], ids: Sequence[int]) -> None:
        """Store the tracks; only those of the last clip can continue."""
        self._tracks = tracks if self.keep_tracks else {i: t for i, t in tracks.items() if i in set(ids)}

    def summaries(self) -> list[TrackSummary]:
        """Return the remembered tracks in ascending order of id, decided over all of their frames."""
        found = []
        for track_id, track in sorted(self._tracks.items()):
            label, score, scores = self.judge(track.total, track.frames)
            found.append(TrackSummary(track_id, label, score, scores, track.frames))
        return found

    def state(self) -> dict[str, npt.NDArray[Any]]:
        """Return the tracks and the last clip as arrays, see `Decoder.state`."""
        ids = sorted(self._tracks)
        total = np.array([self._tracks[i].total for i in ids], np.float64).reshape(len(ids), self.values)
        arrays: dict[str, npt.NDArray[Any]] = {
            "tracks.ids": np.array(ids, np.int64),
            "tracks.frames": np.array([self._tracks[i].frames for i in ids], np.int64),
            "tracks.total": total,
            "tracks.next": np.array(self._next_id, np.int64),
        }
        if (last := self._last) is not None:
            arrays |= {
                "clip.position": np.array([last.first, last.pending, *last.size], np.int64),
                "clip.timestamps": np.array(last.timestamps, np.float64),
                "clip.track_ids": np.array(last.track_ids, np.int64),
                "clip.slots": np.array([_NO_SLOT if i.slot is None else i.slot for i in last.instances], np.int64),
            }
            arrays |= pack_instances([(each.masks, each.votes) for each in last.instances], self.values)
        return arrays

    def check_resumed(self, *, done: int, given: int, size: tuple[int, int] | None) -> None:
        """See `Decoder.check_resumed`."""
        check_position(_position(self._last), (done, given, size if done else None))

    def load_state(self, arrays: Arrays) -> None:
        """Restore the state returned by `state`.

        Raises:
            StreamError: The arrays are incomplete or inconsistent.
        """
        try:
            ids, frames, total = (arrays[f"tracks.{name}"] for name in ("ids", "frames", "total"))
            if total.shape != (len(ids), self.values) or frames.shape != ids.shape or (frames < 1).any():
                raise ValueError(f"{total.shape} votes of {len(ids)} tracks")
            next_id, last = int(arrays["tracks.next"]), None
            if "clip.position" in arrays:
                first, pending, height, width = (int(v) for v in arrays["clip.position"])
                stamps, track_ids = tuple(arrays["clip.timestamps"].tolist()), tuple(arrays["clip.track_ids"].tolist())
                packed = unpack_instances(arrays, len(track_ids), len(stamps), (height, width), self.values)
                slots = arrays["clip.slots"].tolist()
                found = tuple(
                    ClipInstance(m, v, None if slot == _NO_SLOT else int(slot))
                    for (m, v), slot in zip(packed, slots, strict=True)
                )
                if not first <= pending <= first + len(stamps) or any(not 0 <= i < next_id for i in track_ids):
                    raise ValueError(f"frames from {first}, given out before {pending}, tracks {track_ids}")
                last = _Clip(first, stamps, (height, width), track_ids, found, pending)
        except (KeyError, ValueError, TypeError, IndexError, DataError) as error:
            raise StreamError("the saved tracks cannot be read", seen=str(error)[:200]) from error
        self._tracks = {
            int(i): _Track(np.array(t, np.float64), int(n)) for i, t, n in zip(ids, total, frames, strict=True)
        }
        self._last, self._next_id = last, next_id


def _position(last: _Clip | None) -> tuple[int, int, tuple[int, int] | None]:
    """Return the end of the last clip, the first frame whose result is pending, and the size of the frames."""
    return (0, 0, None) if last is None else (last.first + len(last.timestamps), last.pending, last.size)


def _same(
    of: Callable[[ClipInstance], int | None], first: Sequence[ClipInstance], second: Sequence[ClipInstance]
) -> npt.NDArray[np.bool_]:
    """Return for each pair whether both have the same number. None equals nothing."""
    left, right = ([of(each) for each in side] for side in (first, second))
    pairs = [[a is not None and a == b for b in right] for a in left]
    return np.array(pairs, np.bool_).reshape(len(left), len(right))
