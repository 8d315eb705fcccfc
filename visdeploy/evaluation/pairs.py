"""Areas and pairwise intersections of the masks of one class in one video, the input of all track metrics."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from visdeploy.evaluation.annotations import Annotation, AnnotationSet
from visdeploy.evaluation.predictions import Prediction
from visdeploy.masks import Mask

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class ClassPairs:
    """Predictions and ground truth of one category in one video, with all pairwise mask intersections.

    F is the number of frames, D of predictions, G of objects. Predictions and objects keep the order of their files.

    Attributes:
        category_id: Id of the category.
        truth: G objects, including crowds.
        predictions: D tracks.
        truth_present: bool `[F, G]`, whether there is a mask.
        predicted_present: bool `[F, D]`, whether there is a mask, which may be empty.
        truth_area: int64 `[F, G]`, area in pixels.
        predicted_area: int64 `[F, D]`, area in pixels.
        intersection: int64 `[F, D, G]`, intersection in pixels.
    """

    category_id: int
    truth: tuple[Annotation, ...]
    predictions: tuple[Prediction, ...]
    truth_present: BoolArray
    predicted_present: BoolArray
    truth_area: IntArray
    predicted_area: IntArray
    intersection: IntArray

    @cached_property
    def track_iou(self) -> FloatArray:
        """IoU of tracks, float64 `[D, G]`: sum of the intersections over frames divided by sum of the unions."""
        common = self.intersection.sum(axis=0)
        union = self.predicted_area.sum(axis=0)[:, None] + self.truth_area.sum(axis=0)[None, :] - common
        return _ratio(common, union)

    @cached_property
    def frame_iou(self) -> FloatArray:
        """IoU per frame, float64 `[F, D, G]`; 0 where a mask is absent or both masks are empty."""
        union = self.predicted_area[:, :, None] + self.truth_area[:, None, :] - self.intersection
        return _ratio(self.intersection, union)

    @cached_property
    def predicted_mean_area(self) -> FloatArray:
        """Mean area in pixels over the frames with a non-empty mask, float64 `[D]`; 0 without such a frame."""
        frames = np.count_nonzero(self.predicted_area, axis=0)
        return _ratio(self.predicted_area.sum(axis=0), frames)

    @cached_property
    def scores(self) -> FloatArray:
        """Scores of the predictions, float64 `[D]`."""
        return np.array([prediction.score for prediction in self.predictions], dtype=np.float64)


def class_pairs(truth: AnnotationSet, predictions: Sequence[Prediction]) -> Iterator[ClassPairs]:
    """Yield the pairs of every (video, category) with an object or a prediction, in ascending order of video id."""
    predicted: dict[tuple[int, int], list[Prediction]] = {}
    for prediction in predictions:
        predicted.setdefault((prediction.video_id, prediction.category_id), []).append(prediction)
    annotated: dict[tuple[int, int], list[Annotation]] = {}
    for annotation in truth.annotations:
        annotated.setdefault((annotation.video_id, annotation.category_id), []).append(annotation)
    for key in sorted(predicted.keys() | annotated.keys()):
        frames = truth.video_by_id[key[0]].length
        yield _pairs(key[1], frames, tuple(annotated.get(key, ())), tuple(predicted.get(key, ())))


def _pairs(
    category_id: int, frames: int, truth: tuple[Annotation, ...], predictions: tuple[Prediction, ...]
) -> ClassPairs:
    truth_present = np.array([[m is not None for m in t.masks] for t in truth], bool).reshape(-1, frames).T
    present = np.array([[m is not None for m in p.masks] for p in predictions], bool).reshape(-1, frames).T
    truth_area = np.zeros(truth_present.shape, np.int64)
    area = np.zeros(present.shape, np.int64)
    intersection = np.zeros((frames, len(predictions), len(truth)), np.int64)
    for frame in range(frames):
        rows, columns = np.flatnonzero(present[frame]), np.flatnonzero(truth_present[frame])
        found = [_rle(predictions[d].masks[frame]) for d in rows]
        wanted = [_rle(truth[g].masks[frame]) for g in columns]
        area[frame, rows], truth_area[frame, columns] = _areas(found), _areas(wanted)
        if found and wanted:
            intersection[frame, rows[:, None], columns] = _intersections(
                found, wanted, area[frame, rows, None] + truth_area[frame, columns]
            )
    return ClassPairs(category_id, truth, predictions, truth_present, present, truth_area, area, intersection)


def _ratio(part: IntArray, whole: IntArray) -> FloatArray:
    """Return `part / whole`, 0 where `whole` is 0."""
    return np.asarray(np.divide(part, whole, out=np.zeros(whole.shape), where=whole > 0), dtype=np.float64)


def _rle(mask: Mask | None) -> dict[str, Any]:
    return {} if mask is None else {"size": (mask.height, mask.width), "counts": mask.counts}


def _areas(rles: list[dict[str, Any]]) -> IntArray:
    from pycocotools import mask as coco

    return np.asarray(coco.area(rles), dtype=np.int64) if rles else np.zeros(0, np.int64)


def _intersections(found: list[dict[str, Any]], wanted: list[dict[str, Any]], total: IntArray) -> IntArray:
    """Return the intersections of all pairs of one frame in pixels, `[D, G]`, from one call of pycocotools.

    pycocotools returns iou = i / u with u = total - i, where i and u are integers below 2**32. Hence
    i = iou * total / (1 + iou), and rounding recovers the exact integer.
    """
    from pycocotools import mask as coco

    iou = np.asarray(coco.iou(found, wanted, [False] * len(wanted)), dtype=np.float64)
    iou[total == 0] = 0.0
    return np.rint(iou * total / (1.0 + iou)).astype(np.int64)
