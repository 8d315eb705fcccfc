"""HOTA (Luiten et al., IJCV 2021) on the masks of YouTube-VIS tracks.

As in TrackEval's YouTube-VIS benchmark, each class is scored separately, crowds count as ordinary objects, and classes
without ground truth are included in the mean over classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from visdeploy.evaluation.annotations import Category
from visdeploy.evaluation.pairs import ClassPairs, FloatArray

ALPHAS: FloatArray = np.arange(0.05, 0.99, 0.05)
NAMES = ("HOTA", "DetA", "AssA", "DetRe", "DetPr", "AssRe", "AssPr", "LocA")
_EPS = float(np.finfo("float").eps)
# Rows of the tally of a class, one column per alpha: counts first, then sums over true positives.
_TP, _FN, _FP, _ASS, _ASS_RE, _ASS_PR, _LOC = range(7)


class HOTAMetric:
    """Accumulator of the counts of each class over all videos.

    Args:
        categories: Classes of the data set.
    """

    def __init__(self, categories: Sequence[Category]) -> None:
        self._names = {category.id: category.name for category in categories}
        self._tallies = {category.id: np.zeros((7, len(ALPHAS))) for category in categories}

    def add(self, pairs: ClassPairs) -> None:
        """Add one category of one video."""
        self._tallies[pairs.category_id] += _tally(pairs)

    def result(self) -> dict[str, Any]:
        """Return means over the 19 localisation thresholds: averaged over classes, over detections, and per class."""
        per_class = {category: _scores(tally) for category, tally in self._tallies.items()}
        average = {name: float(np.mean([scores[name] for scores in per_class.values()])) for name in NAMES}
        together = _scores(np.sum(list(self._tallies.values()), axis=0))
        return average | {
            "detection_average": together,
            "per_class": {self._names[category]: scores for category, scores in per_class.items()},
        }


def _tally(pairs: ClassPairs) -> FloatArray:
    """Return the counts and sums of one video, `[7, 19]`."""
    from scipy.optimize import linear_sum_assignment

    tally = np.zeros((7, len(ALPHAS)))
    truth_count, predicted_count = pairs.truth_present.sum(axis=0), pairs.predicted_present.sum(axis=0)
    total_truth, total_predicted = truth_count.sum(), predicted_count.sum()
    tally[_FN], tally[_FP] = total_truth, total_predicted
    if total_truth == 0 or total_predicted == 0:
        return tally
    iou = pairs.frame_iou.transpose(0, 2, 1)
    alignment = _alignment(iou, truth_count, predicted_count)
    matches = np.zeros((len(ALPHAS), *alignment.shape))
    for frame in range(len(iou)):
        objects = np.flatnonzero(pairs.truth_present[frame])
        tracks = np.flatnonzero(pairs.predicted_present[frame])
        similarity = iou[frame][np.ix_(objects, tracks)]
        rows, columns = linear_sum_assignment(-alignment[np.ix_(objects, tracks)] * similarity)
        matched = similarity[rows, columns]
        hit = matched >= ALPHAS[:, None] - _EPS
        matches[:, objects[rows], tracks[columns]] += hit
        tally[_LOC] += np.where(hit, matched, 0.0).sum(axis=1)
    tally[_TP] = matches.sum(axis=(1, 2))
    tally[_FN] -= tally[_TP]
    tally[_FP] -= tally[_TP]
    either = truth_count[:, None] + predicted_count[None, :] - matches
    for row, size in ((_ASS, either), (_ASS_RE, truth_count[:, None]), (_ASS_PR, predicted_count[None, :])):
        tally[row] = (matches * (matches / np.maximum(size, 1))).sum(axis=(1, 2))
    return tally


def _alignment(iou: FloatArray, truth_count: Any, predicted_count: Any) -> FloatArray:
    """Return the global alignment score of each object and each track over the whole video, `[G, D]`.

    The score is a soft Jaccard index. Each frame adds the IoU of the pair divided by the sum of all IoUs of its object
    and its track in that frame.
    """
    rivals = iou.sum(axis=1, keepdims=True) + iou.sum(axis=2, keepdims=True) - iou
    share = np.divide(iou, rivals, out=np.zeros_like(iou), where=rivals > _EPS).sum(axis=0)
    whole = truth_count[:, None] + predicted_count[None, :] - share
    return np.asarray(np.divide(share, whole, out=np.zeros_like(share), where=whole > 0), dtype=np.float64)


def _scores(tally: FloatArray) -> dict[str, float]:
    """Return all scores, averaged over the thresholds. LocA is 1 without a true positive."""
    found, missed, wrong = tally[_TP], tally[_FN], tally[_FP]
    accuracy = found / np.maximum(found + missed + wrong, 1)
    association = tally[_ASS] / np.maximum(found, 1)
    curves = {
        "HOTA": np.sqrt(accuracy * association),
        "DetA": accuracy,
        "AssA": association,
        "DetRe": found / np.maximum(found + missed, 1),
        "DetPr": found / np.maximum(found + wrong, 1),
        "AssRe": tally[_ASS_RE] / np.maximum(found, 1),
        "AssPr": tally[_ASS_PR] / np.maximum(found, 1),
        "LocA": np.maximum(1e-10, tally[_LOC]) / np.maximum(1e-10, found),
    }
    return {name: float(curves[name].mean()) for name in NAMES}
