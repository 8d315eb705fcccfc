"""What every track metric needs of one class in one video: areas and intersections, frame by frame."""

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
    """Predictions and ground truth of one category in one video, with all pairwise mask overlaps.

    Shapes use F frames, D predictions and G objects, both in the order of their files.

    Attributes:
        category_id: The category.
        truth: G objects, crowds among them.
        predictions: D tracks.
        truth_present: bool `[F, G]`, a mask is given.
        predicted_present: bool `[F, D]`, a mask is given (it may be empty).
        truth_area: int64 `[F, G]`, pixels.
        predicted_area: int64 `[F, D]`, pixels.
        intersection: int64 `[F, D, G]`, pixels.
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
        """float64 `[D, G]`: intersections summed over frames by unions summed over frames."""
        common = self.intersection.sum(axis=0)
        union = self.predicted_area.sum(axis=0)[:, None] + self.truth_area.sum(axis=0)[None, :] - common
        return _ratio(common, union)

    @cached_property
    def frame_iou(self) -> FloatArray:
        """float64 `[F, D, G]`, 0 where a mask is absent or both are empty."""
        union = self.predicted_area[:, :, None] + self.truth_area[:, None, :] - self.intersection
        return _ratio(self.intersection, union)

    @cached_property
    def predicted_mean_area(self) -> FloatArray:
        """float64 `[D]`: mean area over the frames where the mask is not empty, 0 if there is none."""
        frames = np.count_nonzero(self.predicted_area, axis=0)
        return _ratio(self.predicted_area.sum(axis=0), frames)

    @cached_property
    def scores(self) -> FloatArray:
        """float64 `[D]`."""
        return np.array([prediction.score for prediction in self.predictions], dtype=np.float64)


def class_pairs(truth: AnnotationSet, predictions: Sequence[Prediction]) -> Iterator[ClassPairs]:
    """Every (video, category) that holds an object or a prediction, videos by rising id."""
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
    """part / whole, 0 where the whole is 0."""
    return np.asarray(np.divide(part, whole, out=np.zeros(whole.shape), where=whole > 0), dtype=np.float64)


def _rle(mask: Mask | None) -> dict[str, Any]:
    return {} if mask is None else {"size": (mask.height, mask.width), "counts": mask.counts}


def _areas(rles: list[dict[str, Any]]) -> IntArray:
    from pycocotools import mask as coco

    return np.asarray(coco.area(rles), dtype=np.int64) if rles else np.zeros(0, np.int64)


def _intersections(found: list[dict[str, Any]], wanted: list[dict[str, Any]], total: IntArray) -> IntArray:
    """Pixels in common, `[D, G]`, from one call for all pairs of a frame.

    The library returns i / u with u = total - i, both whole numbers below 2**32; so i = iou * total / (1 + iou),
    and rounding gives it exactly.
    """
    from pycocotools import mask as coco

    iou = np.asarray(coco.iou(found, wanted, [False] * len(wanted)), dtype=np.float64)
    iou[total == 0] = 0.0
    return np.rint(iou * total / (1.0 + iou)).astype(np.int64)
