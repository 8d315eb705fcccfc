"""Average precision and recall of tracks, as defined by the YouTube-VIS benchmark.

The definition is that of COCO with tracks in place of boxes. The IoU of two tracks is the sum of the intersections
over all frames divided by the sum of the unions. The size of a track is its mean area over the frames in which it is
present.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from visdeploy.evaluation.annotations import Category
from visdeploy.evaluation.pairs import BoolArray, ClassPairs, FloatArray

IOU_THRESHOLDS: FloatArray = np.linspace(0.5, 0.95, 10)
RECALL_POINTS: FloatArray = np.linspace(0.0, 1.0, 101)
MAX_DETECTIONS = (1, 10, 100)
AREA_RANGES = {
    "all": (0.0, 1e10),
    "small": (0.0, 128.0**2),
    "medium": (128.0**2, 256.0**2),
    "large": (256.0**2, 1e10),
}
_LOWEST, _HIGHEST = (np.array([bounds[side] for bounds in AREA_RANGES.values()]) for side in (0, 1))
NO_TRUTH = -1.0


@dataclass(frozen=True, slots=True)
class _VideoMatches:
    """Matches of one category in one video for A area ranges, T thresholds and D predictions by descending score."""

    scores: FloatArray
    matched: BoolArray
    ignored: BoolArray
    num_truth: FloatArray


class YouTubeVISMetric:
    """Accumulator of matches over classes and videos, and the average precision and recall of all of them.

    Args:
        categories: Classes of the data set; means exclude classes without ground truth.
        as_trackeval: Follow TrackEval's matching where it differs, see `visdeploy.evaluation.trackmap`.
    """

    def __init__(self, categories: Sequence[Category], *, as_trackeval: bool = False) -> None:
        self._categories = list(categories)
        self._as_trackeval = as_trackeval
        self._matches: dict[int, list[_VideoMatches]] = {category.id: [] for category in categories}

    def add(self, pairs: ClassPairs) -> None:
        """Add one category of one video. Add videos in ascending order of id: the order breaks ties between them."""
        self._matches[pairs.category_id].append(_match(pairs, as_trackeval=self._as_trackeval))

    def curves(self) -> tuple[FloatArray, FloatArray]:
        """Return precision `[K, A, T, 101]` at 100 detections and recall `[K, A, T, 3]` at 1, 10 and 100 detections.

        K is the number of categories, A of area ranges, T of thresholds. Precision is interpolated at 101 recall
        points. Entries without ground truth are -1.
        """
        thresholds, areas = len(IOU_THRESHOLDS), len(AREA_RANGES)
        precision = np.full((len(self._categories), areas, thresholds, len(RECALL_POINTS)), NO_TRUTH)
        recall = np.full((len(self._categories), areas, thresholds, len(MAX_DETECTIONS)), NO_TRUTH)
        for k, category in enumerate(self._categories):
            videos = self._matches[category.id]
            if not videos:
                continue
            for m, limit in enumerate(MAX_DETECTIONS):
                recall[k, ..., m], points = _accumulate(videos, limit, with_precision=limit == MAX_DETECTIONS[-1])
                if points is not None:
                    precision[k] = points
        return precision, recall

    def result(self) -> dict[str, Any]:
        """Return AP and AR for all area ranges, thresholds and detection limits, in total and per category."""
        precision, recall = self.curves()
        found: dict[str, Any] = _summary(precision, recall)
        found["AP_by_iou"] = [_mean(precision[:, 0, t]) for t in range(len(IOU_THRESHOLDS))]
        found["per_category"] = {
            category.name: _summary(precision[k : k + 1], recall[k : k + 1])
            | {"AP_by_iou": [_mean(precision[k, 0, t]) for t in range(len(IOU_THRESHOLDS))]}
            for k, category in enumerate(self._categories)
        }
        return found


def _mean(values: FloatArray) -> float:
    """Return the mean over the values with ground truth; -1 if there are none."""
    valid = values[values > NO_TRUTH]
    return float(valid.mean()) if valid.size else NO_TRUTH


def _summary(precision: FloatArray, recall: FloatArray) -> dict[str, float]:
    """Return the twelve numbers of the benchmark from arrays `[K, A, T, ...]`."""
    names = ("", "s", "m", "l")
    found = {"AP": _mean(precision[:, 0]), "AP50": _mean(precision[:, 0, 0]), "AP75": _mean(precision[:, 0, 5])}
    found |= {f"AP{name}": _mean(precision[:, a]) for a, name in enumerate(names) if name}
    found |= {f"AR{limit}": _mean(recall[:, 0, :, m]) for m, limit in enumerate(MAX_DETECTIONS)}
    found |= {f"AR{name}": _mean(recall[:, a, :, -1]) for a, name in enumerate(names) if name}
    return found


def _match(pairs: ClassPairs, *, as_trackeval: bool) -> _VideoMatches:
    """Match each prediction, in descending order of score, to the object with the highest IoU.

    Matching is done for every threshold and area range. Crowds and objects outside the area range are ignored: they are
    matched only if no other object reaches the threshold, and the prediction then counts as neither true nor false
    positive. Ties go to the later object, as in the reference evaluator.
    """
    ranked = np.argsort(-pairs.scores, kind="stable")[: MAX_DETECTIONS[-1]]
    iou = pairs.track_iou[ranked]
    crowd = np.array([truth.crowd for truth in pairs.truth], bool)
    sizes = np.array([truth.mean_area for truth in pairs.truth])
    ignored_truth = crowd | _outside(sizes)
    shape = (len(AREA_RANGES), len(IOU_THRESHOLDS))
    matched = np.zeros((*shape, len(iou)), bool)
    ignored = np.broadcast_to(_outside(pairs.predicted_mean_area[ranked])[:, None], matched.shape).copy()
    free = np.ones((*shape, len(crowd)), bool)
    reach = iou.max(axis=1, initial=0.0) >= IOU_THRESHOLDS[0]
    for d in np.flatnonzero(reach):
        fits = free & (iou[d] >= IOU_THRESHOLDS[:, None])
        counting = fits & ~ignored_truth[:, None]
        pool = np.where(counting.any(axis=-1, keepdims=True), counting, fits)
        overlap = np.where(pool, iou[d], -1.0)
        best = overlap.shape[-1] - 1 - overlap[..., ::-1].argmax(axis=-1)
        hit = pool.any(axis=-1)
        matched[..., d] = hit
        ignored[..., d] = np.where(hit, np.take_along_axis(ignored_truth, best, axis=-1), ignored[..., d])
        reusable = np.full_like(crowd, pairs.predictions[ranked[d]].first) if as_trackeval else crowd
        a, t = np.nonzero(hit & ~reusable[best])
        free[a, t, best[a, t]] = False
    return _VideoMatches(pairs.scores[ranked], matched, ignored, np.count_nonzero(~ignored_truth, axis=-1))


def _outside(sizes: FloatArray) -> BoolArray:
    """Return whether each size lies outside each area range (bounds inclusive), bool `[A, N]`."""
    return (sizes < _LOWEST[:, None]) | (sizes > _HIGHEST[:, None])


def _accumulate(
    videos: Sequence[_VideoMatches], limit: int, *, with_precision: bool
) -> tuple[FloatArray, FloatArray | None]:
    """Return the recall `[A, T]` of one category and, if requested, its interpolated precision `[A, T, 101]`."""
    scores = np.concatenate([video.scores[:limit] for video in videos])
    order = np.argsort(-scores, kind="stable")
    matched = np.concatenate([video.matched[..., :limit] for video in videos], axis=-1)[..., order]
    counts = ~np.concatenate([video.ignored[..., :limit] for video in videos], axis=-1)[..., order]
    right = np.cumsum(matched & counts, axis=-1)
    wrong = np.cumsum(~matched & counts, axis=-1)
    total = np.sum([video.num_truth for video in videos], axis=0)[:, None]
    known = np.broadcast_to(total > 0, right.shape[:-1])
    last = right[..., -1] if order.size else np.zeros(right.shape[:-1], np.int64)
    recall = np.where(known, last / np.maximum(total, 1), NO_TRUTH)
    if not with_precision:
        return recall, None
    precision = np.full((*recall.shape, len(RECALL_POINTS)), NO_TRUTH)
    for a, t in np.argwhere(known):
        precision[a, t] = _interpolate(right[a, t], wrong[a, t], int(total[a, 0]))
    return recall, precision


def _interpolate(right: Any, wrong: Any, total: int) -> FloatArray:
    """Return the precision at the 101 recall points: the maximum at that recall or above, 0 if it is not reached."""
    precision = right / (right + wrong + np.spacing(1.0))
    best = np.append(np.maximum.accumulate(precision[::-1])[::-1], 0.0)
    return np.asarray(best[np.searchsorted(right / total, RECALL_POINTS, side="left")])
