"""Regions that do not count: void pixels of DAVIS, and the ignore regions of MOTS."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from visdeploy.evaluation.annotations import Annotation, AnnotationSet
from visdeploy.evaluation.pairs import ClassPairs, class_pairs
from visdeploy.evaluation.predictions import Prediction
from visdeploy.masks import Mask
from visdeploy.masks.combining import difference

_EPS = float(np.finfo("float").eps)
_MATCH = 0.5
_INSIDE = 0.5
_Item = TypeVar("_Item", Annotation, Prediction)


def without_void(truth: AnnotationSet, predictions: Sequence[Prediction]) -> tuple[AnnotationSet, Sequence[Prediction]]:
    """Remove void pixels from all masks, as in the evaluation of DAVIS: no intersection, union or contour has them.

    Returns:
        Ground truth and predictions; those given if there are no void pixels.
    """
    if not truth.ignored:
        return truth, predictions
    annotations = tuple(_outside(each, truth) for each in truth.annotations)
    return replace(truth, annotations=annotations), [_outside(each, truth) for each in predictions]


def _outside(item: _Item, truth: AnnotationSet) -> _Item:
    void = truth.ignored.get(item.video_id)
    if void is None:
        return item
    masks = tuple(difference(mask, region) for mask, region in zip(item.masks, void, strict=True))
    return replace(item, masks=masks)


def without_ignored(truth: AnnotationSet, predictions: Sequence[Prediction]) -> Sequence[Prediction]:
    """Remove predictions in ignore regions, frame by frame, as the evaluation of KITTI MOTS does.

    Within each class, masks are matched with the objects of the frame (IoU at least 0.5, Hungarian method). A mask that
    is not matched and has more than half of its pixels in an ignore region is removed.

    Returns:
        The predictions, those given if there are no ignore regions.
    """
    if not truth.ignored:
        return predictions
    removed: dict[int, set[int]] = {}
    for pairs in class_pairs(truth, predictions):
        videos = [each.video_id for each in pairs.predictions]
        for frame, region in enumerate(truth.ignored.get(videos[0], ()) if videos else ()):
            if region is not None:
                for row in _ignored_rows(pairs, frame, region):
                    removed.setdefault(id(pairs.predictions[row]), set()).add(frame)
    return [_without(each, removed.get(id(each), set())) for each in predictions]


def _without(prediction: Prediction, frames: set[int]) -> Prediction:
    if not frames:
        return prediction
    return replace(prediction, masks=tuple(None if t in frames else m for t, m in enumerate(prediction.masks)))


def _ignored_rows(pairs: ClassPairs, frame: int, region: Mask) -> npt.NDArray[np.int64]:
    """Return the predictions of a frame that are not matched and lie in the region."""
    from pycocotools import mask as coco
    from scipy.optimize import linear_sum_assignment

    tracks = np.flatnonzero(pairs.predicted_present[frame])
    objects = np.flatnonzero(pairs.truth_present[frame])
    similarity = pairs.frame_iou[frame][np.ix_(tracks, objects)]
    worth = np.where(similarity >= _MATCH - _EPS, similarity, -10000.0)
    rows, columns = linear_sum_assignment(worth, maximize=True)
    free = np.setdiff1d(tracks, tracks[rows[worth[rows, columns] > _EPS]])
    masks = [pairs.predictions[d].masks[frame] for d in free]
    encoded = [{"size": [m.height, m.width], "counts": m.counts} for m in masks if m is not None]
    if not encoded:
        return np.zeros(0, np.int64)
    area = {"size": [region.height, region.width], "counts": region.counts}
    inside = np.asarray(coco.iou(encoded, [area], [True]), np.float64)[:, 0]  # crowd: relative to the first mask
    return free[inside > _INSIDE + _EPS]
