"""CLEAR MOT (MOTA, MOTP, sMOTA, identity switches, fragmentations) and Identity (IDF1) on masks of tracks.

The rules are those of TrackEval's YouTube-VIS benchmark: each class is scored separately, a match needs a mask IoU of
at least 0.5, and crowds count as ordinary objects. On masks, MOTA is MOTSA, MOTP is MOTSP, and sMOTA is sMOTSA of MOTS
(Voigtlaender et al., CVPR 2019).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from visdeploy.evaluation.annotations import Category
from visdeploy.evaluation.pairs import ClassPairs, FloatArray, IntArray

THRESHOLD = 0.5
_EPS = float(np.finfo("float").eps)
Tally = dict[str, float]
_CLEAR_COUNTS = ("CLR_TP", "CLR_FN", "CLR_FP", "IDSW", "Frag", "MT", "PT", "ML")
_IDENTITY_COUNTS = ("IDTP", "IDFN", "IDFP")


class _CountingMetric:
    """Accumulator of counts per class, from which ratios are computed per class, as class mean and over all classes."""

    def __init__(
        self,
        categories: Sequence[Category],
        counts: Sequence[str],
        tally: Callable[[ClassPairs], Tally],
        ratios: Callable[[Tally], dict[str, float]],
    ) -> None:
        self._names = {category.id: category.name for category in categories}
        self._counts, self._tally, self._ratios = counts, tally, ratios
        self._tallies: dict[int, Tally] = {category.id: {} for category in categories}

    def add(self, pairs: ClassPairs) -> None:
        """Add one category of one video."""
        _accumulate(self._tallies[pairs.category_id], self._tally(pairs))

    def result(self) -> dict[str, Any]:
        """Return the scores averaged over classes (counts are summed), over detections, and per class."""
        everything: Tally = {}
        for tally in self._tallies.values():
            _accumulate(everything, tally)
        counts = {name: everything.get(name, 0.0) for name in self._counts}
        per_class = {
            self._names[category]: self._ratios(tally) | {name: tally.get(name, 0.0) for name in self._counts}
            for category, tally in self._tallies.items()
        }
        ratios = self._ratios(everything)
        average = {name: float(np.mean([scores[name] for scores in per_class.values()])) for name in ratios} | counts
        return average | {"detection_average": ratios | counts, "per_class": per_class}


class ClearMetric(_CountingMetric):
    """MOTA, MOTP, sMOTA and the underlying counts.

    Args:
        categories: Classes of the data set.
    """

    def __init__(self, categories: Sequence[Category]) -> None:
        super().__init__(categories, _CLEAR_COUNTS, _clear, _clear_ratios)


class IdentityMetric(_CountingMetric):
    """IDF1, IDP, IDR and the underlying counts.

    Args:
        categories: Classes of the data set.
    """

    def __init__(self, categories: Sequence[Category]) -> None:
        super().__init__(categories, _IDENTITY_COUNTS, _identity, _identity_ratios)


def _accumulate(total: Tally, part: Mapping[str, float]) -> None:
    for name, value in part.items():
        total[name] = total.get(name, 0.0) + value


def _over(part: float, whole: float) -> float:
    return part / max(1.0, whole)


def _clear_ratios(tally: Tally) -> dict[str, float]:
    found, missed, wrong = (tally.get(name, 0.0) for name in ("CLR_TP", "CLR_FN", "CLR_FP"))
    return {
        "MOTA": _over(found - wrong - tally.get("IDSW", 0.0), found + missed),
        "MOTP": _over(tally.get("similarity", 0.0), found),
        "sMOTA": _over(tally.get("similarity", 0.0) - wrong - tally.get("IDSW", 0.0), found + missed),
    }


def _identity_ratios(tally: Tally) -> dict[str, float]:
    found, missed, wrong = (tally.get(name, 0.0) for name in _IDENTITY_COUNTS)
    return {
        "IDF1": _over(found, found + 0.5 * (missed + wrong)),
        "IDP": _over(found, found + wrong),
        "IDR": _over(found, found + missed),
    }


def _clear(pairs: ClassPairs) -> Tally:
    """Return the counts of one class in one video.

    An object keeps the track of the previous frame as long as their IoU reaches the threshold. A frame without
    predictions or without objects does not change these assignments, as in TrackEval.
    """
    total_truth, total_predicted = int(pairs.truth_present.sum()), int(pairs.predicted_present.sum())
    objects = int(np.count_nonzero(pairs.truth_present.any(axis=0)))
    if total_truth == 0 or total_predicted == 0:
        return {"CLR_FN": total_truth, "CLR_FP": total_predicted, "ML": objects}
    latest = np.full(len(pairs.truth), -1)
    current = latest.copy()
    matched_frames, starts = np.zeros(len(latest), np.int64), np.zeros(len(latest), np.int64)
    switches, similarity = 0, 0.0
    for frame in range(len(pairs.truth_present)):
        if not (pairs.truth_present[frame].any() and pairs.predicted_present[frame].any()):
            continue
        matched, tracks, overlap = _frame_matches(pairs, frame, current)
        switches += int(np.count_nonzero((latest[matched] >= 0) & (latest[matched] != tracks)))
        starts[matched] += current[matched] < 0
        current[:] = -1
        latest[matched] = current[matched] = tracks
        matched_frames[matched] += 1
        similarity += float(overlap.sum())
    found = int(matched_frames.sum())
    present = pairs.truth_present.sum(axis=0)
    share = matched_frames[present > 0] / present[present > 0]
    mostly, tracked = int(np.count_nonzero(share > 0.8)), int(np.count_nonzero(share >= 0.2))
    return {
        "CLR_TP": found,
        "CLR_FN": total_truth - found,
        "CLR_FP": total_predicted - found,
        "IDSW": switches,
        "Frag": int((starts[starts > 0] - 1).sum()),
        "MT": mostly,
        "PT": tracked - mostly,
        "ML": objects - tracked,
        "similarity": similarity,
    }


def _frame_matches(pairs: ClassPairs, frame: int, current: IntArray) -> tuple[IntArray, IntArray, FloatArray]:
    """Match objects and tracks of one frame: keep as many pairs as possible, then maximise the sum of IoUs.

    Returns:
        Matched objects, their tracks, and the IoUs of the pairs.
    """
    from scipy.optimize import linear_sum_assignment

    objects = np.flatnonzero(pairs.truth_present[frame])
    tracks = np.flatnonzero(pairs.predicted_present[frame])
    overlap = pairs.frame_iou[frame][np.ix_(tracks, objects)].T
    worth = np.where(overlap >= THRESHOLD - _EPS, overlap + 1000.0 * (current[objects, None] == tracks), 0.0)
    rows, columns = linear_sum_assignment(-worth)
    kept = worth[rows, columns] > _EPS
    rows, columns = rows[kept], columns[kept]
    return objects[rows], tracks[columns], overlap[rows, columns]


def _identity(pairs: ClassPairs) -> Tally:
    """Return the identity counts under the best one-to-one assignment of objects to tracks over the whole video."""
    from scipy.optimize import linear_sum_assignment

    agreeing = np.count_nonzero(pairs.frame_iou >= THRESHOLD, axis=0)
    rows, columns = linear_sum_assignment(agreeing, maximize=True)
    found = int(agreeing[rows, columns].sum())
    return {
        "IDTP": found,
        "IDFN": int(pairs.truth_present.sum()) - found,
        "IDFP": int(pairs.predicted_present.sum()) - found,
    }
