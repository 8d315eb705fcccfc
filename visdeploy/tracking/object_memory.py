"""Assignment of detections to remembered objects by embedding, score, overlap and class, as published with TPR.

Source: Temporal Pyramid Routing (Li et al., TPAMI 2023) and its published implementation. An object is remembered by
the embedding and the box of the detection that was assigned to it last, and by the class of its first detection. A
detection with embedding `e`, score `s`, box `b` and class `c` has a matching score for a new object (column 0) and for
each remembered object `k` (column `k + 1`):

    log_softmax([0, e . E_1, ..., e . E_m]) + w_score * log(s) + w_iou * [0, IoU(b, B_k)] + w_label * [1, c == C_k]

Each detection selects the column with the maximum. The candidates are the objects remembered before the frame, as they
were then: detections of one frame do not match each other. If several detections select the same object, those that
are better than all earlier ones are assigned to it, and the last of them replaces its embedding and box.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from visdeploy.errors import ConfigError, StreamError
from visdeploy.tracking.objects import ROW_FIELDS, FloatArray, IntArray, Objects, box_overlaps

_FLOOR = -100.0
"""Matching score that a detection must exceed to be assigned to a remembered object."""


@dataclass(frozen=True)
class Assignment:
    """Result of the assignment of one frame.

    Attributes:
        object_ids: int64 `[n]`, object of each detection; -1 where an earlier detection matches the same object at
            least as well. Two detections have the same object if the later one matches it better.
        scores: float32 `[n, m + 1]`, matching scores of a new object and of the `m` objects remembered before the
            frame; `[n, 0]` if none was remembered, in which case every detection is a new object.
        forgotten: int64 `[k]`, objects dropped because the memory was full; they cannot be matched again.
        num_objects: Number of objects found so far, including dropped ones.
    """

    object_ids: IntArray
    scores: FloatArray
    forgotten: IntArray
    num_objects: int


@dataclass(frozen=True)
class _State:
    frame: int
    num_objects: int
    objects: Objects


class ObjectMemory:
    """Memory of the objects of one stream.

    The published implementation remembers all objects of a video. Here the memory holds at most `max_objects`, so that
    it is bounded on an endless stream, and drops the objects that were matched least recently (after a tie, the lowest
    id). Results are identical until the memory is full. No id is used twice.

    A frame without detections does not change the memory. The published implementation has one memory for all videos,
    which the first frame of a video resets only if it has detections; otherwise, the objects of the previous video
    remain. Here every stream has its own memory, so that this cannot occur.

    Args:
        score_weight: Weight of the logarithm of the detection's score. It is the same in all columns of a detection.
        iou_weight: Weight of the overlap of the boxes.
        label_weight: Weight of equal classes. A new object always has this term.
        max_objects: Maximum number of objects remembered.

    Raises:
        ConfigError: A parameter is out of range.
    """

    def __init__(
        self,
        *,
        score_weight: float = 1.0,
        iou_weight: float = 2.0,
        label_weight: float = 10.0,
        max_objects: int = 1024,
    ) -> None:
        weights = (score_weight, iou_weight, label_weight)
        if not np.isfinite(weights).all():
            raise ConfigError("wrong weight of a matching score", seen=str(weights), expected="finite numbers")
        if max_objects < 1:
            raise ConfigError("wrong size of the memory", seen=str(max_objects), expected="max_objects of 1 or more")
        self.score_weight, self.iou_weight, self.label_weight = weights
        self.max_objects = max_objects
        self._state = _State(0, 0, Objects.empty())

    @property
    def objects(self) -> Objects:
        """The remembered objects."""
        return self._state.objects

    @property
    def num_objects(self) -> int:
        """Number of objects found so far."""
        return self._state.num_objects

    def update(
        self,
        embeddings: FloatArray,
        boxes: FloatArray,
        labels: IntArray,
        scores: FloatArray,
        *,
        first_boxes: FloatArray | None = None,
    ) -> Assignment:
        """Assign the detections of the next frame to objects.

        The memory does not change if an error is raised.

        Args:
            embeddings: float32 `[n, d]`, in descending order of score.
            boxes: float32 `[n, 4]`, left, top, right, bottom.
            labels: int64 `[n]`.
            scores: float32 `[n]`, greater than 0.
            first_boxes: float32 `[n, 4]`, remembered instead of `boxes` if no object is remembered yet.

        Raises:
            StreamError: The shapes do not match each other or the previous frames.
        """
        state, known, n = self._state, self._state.objects, len(labels)
        remembered = boxes if len(known) or first_boxes is None else first_boxes
        self._check(embeddings, boxes, labels, scores, remembered)
        matching = self._match(embeddings, boxes, labels, scores) if len(known) else np.zeros((n, 0), dtype=np.float32)
        rows = matching.argmax(axis=1) - 1 if len(known) else np.full(n, -1, dtype=np.int64)
        won, new = _improvements(rows, matching), np.flatnonzero(rows < 0)
        object_ids = np.full(n, -1, dtype=np.int64)
        object_ids[won] = known.object_ids[rows[won]]
        object_ids[new] = state.num_objects + np.arange(len(new))
        if not n:
            return Assignment(object_ids, matching, object_ids, state.num_objects)
        frames = np.full(n, state.frame, dtype=np.int64)
        grown = known.then(Objects(object_ids, embeddings, remembered, labels, frames).take(new))
        # where two detections have the same row, NumPy keeps the value assigned last, that of the better one
        grown.embeddings[rows[won]], grown.boxes[rows[won]] = embeddings[won], boxes[won]
        grown.matched[rows[won]] = state.frame
        oldest = np.argsort(grown.matched, kind="stable")
        excess = max(0, len(grown) - self.max_objects)
        kept = grown.take(np.sort(oldest[excess:])) if excess else grown
        self._state = _State(state.frame + 1, state.num_objects + len(new), kept)
        return Assignment(object_ids, matching, grown.object_ids[oldest[:excess]], self.num_objects)

    def _match(self, embeddings: FloatArray, boxes: FloatArray, labels: IntArray, scores: FloatArray) -> FloatArray:
        """Return the matching scores `[n, m + 1]`. An embedding that is not finite matches no object."""
        known = self._state.objects
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            dots = embeddings @ known.embeddings.T
            logits = np.pad(np.where(np.isfinite(dots), dots, -np.inf), ((0, 0), (1, 0)))
            logits -= logits.max(axis=1, keepdims=True)
            total = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
            total += np.float32(self.score_weight) * np.log(scores)[:, None]
            total[:, 1:] += np.float32(self.iou_weight) * box_overlaps(boxes, known.boxes)
        total[:, 0] += np.float32(self.label_weight)
        total[:, 1:] += np.float32(self.label_weight) * (labels[:, None] == known.labels)
        return np.asarray(total, dtype=np.float32)

    def _check(
        self, embeddings: FloatArray, boxes: FloatArray, labels: IntArray, scores: FloatArray, remembered: FloatArray
    ) -> None:
        n, size = len(labels), embeddings.shape[-1]
        shapes = [labels.shape, scores.shape, boxes.shape, remembered.shape, embeddings.shape]
        if shapes != [(n,), (n,), (n, 4), (n, 4), (n, size)]:
            raise StreamError(
                "cannot assign detections",
                seen=f"embeddings {embeddings.shape}, boxes {boxes.shape} and {remembered.shape}, "
                f"labels {labels.shape}, scores {scores.shape}",
                expected="embeddings [n, d], boxes [n, 4], labels [n], scores [n]",
            )
        known = self._state.objects
        if n and len(known) and known.embeddings.shape[1] != size:
            raise StreamError(
                "cannot assign detections",
                seen=f"embeddings of {size} numbers",
                expected=f"{known.embeddings.shape[1]}, as in the previous frames",
            )

    def state(self) -> dict[str, npt.NDArray[Any]]:
        """Return the memory as arrays, to be restored by `load_state`."""
        counters = np.array([self._state.frame, self._state.num_objects], dtype=np.int64)
        return {"counters": counters} | {name: getattr(self.objects, name).copy() for name in ROW_FIELDS}

    def load_state(self, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
        """Restore the memory returned by `state`.

        Raises:
            StreamError: An array is missing, or the arrays are inconsistent.
        """
        try:
            frame, num_objects = (int(v) for v in arrays["counters"])
        except (KeyError, TypeError, ValueError) as error:
            raise StreamError("the saved objects cannot be read", seen=repr(error)) from error
        objects = Objects.from_arrays(arrays)
        if len(objects) > self.max_objects:
            raise StreamError("too many saved objects", seen=str(len(objects)), expected=f"at most {self.max_objects}")
        last = int(objects.object_ids[-1]) if len(objects) else -1
        in_the_past = frame >= 0 and ((objects.matched >= 0) & (objects.matched < frame)).all()
        if not in_the_past or last >= num_objects or (num_objects > 0) != (len(objects) > 0):
            raise StreamError(
                "the saved objects are inconsistent",
                seen=f"{len(objects)} of {num_objects} objects, the last with id {last}, after {frame} frames",
                expected="objects with ids below their number, matched in earlier frames",
            )
        self._state = _State(frame, num_objects, objects)


def _improvements(rows: IntArray, matching: FloatArray) -> IntArray:
    """Return the detections that match their row, an object, better than all earlier ones of the same row."""
    best: dict[int, float] = {}
    won = []
    for detection, row in enumerate(rows.tolist()):
        score = float(matching[detection, row + 1]) if row >= 0 else -np.inf
        if score > best.get(row, _FLOOR):
            best[row] = score
            won.append(detection)
    return np.array(won, dtype=np.int64)
