"""TrackMAP: YouTube-VIS average precision as TrackEval reports it, one number per IoU threshold and area range.

TrackEval differs from the official evaluation (`ytvis`) in two ways. A crowd absorbs only one prediction; further ones
are false positives. And TrackEval numbers the tracks of a result file from 0 but reads 0 as "not matched", so the
object matched by the first track can be matched again and recall can exceed 1. Report `ytvis`; use this metric only to
compare with TrackEval.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from visdeploy.evaluation.annotations import Category
from visdeploy.evaluation.pairs import FloatArray
from visdeploy.evaluation.ytvis import NO_TRUTH, YouTubeVISMetric

AREA_NAMES = ("all", "area_s", "area_m", "area_l")


class TrackMAPMetric(YouTubeVISMetric):
    """YouTube-VIS precision and recall under TrackEval's matching.

    Args:
        categories: Classes of the data set.
    """

    def __init__(self, categories: Sequence[Category]) -> None:
        super().__init__(categories, as_trackeval=True)

    def result(self) -> dict[str, Any]:
        """Return AP and AR per threshold (lists of ten, 0.50 to 0.95), over all classes and per class."""
        precision, recall = self.curves()
        average = precision.mean(axis=-1)
        together = _by_area(_class_mean(average), _class_mean(recall[..., -1]))
        return together | {
            "AP": float(np.mean(together["AP_all"])),
            "AR": float(np.mean(together["AR_all"])),
            "per_class": {
                category.name: _by_area(average[k], recall[k, ..., -1]) for k, category in enumerate(self._categories)
            },
        }


def _by_area(precision: FloatArray, recall: FloatArray) -> dict[str, Any]:
    found: dict[str, Any] = {f"AP_{name}": precision[a].tolist() for a, name in enumerate(AREA_NAMES)}
    return found | {f"AR_{name}": recall[a].tolist() for a, name in enumerate(AREA_NAMES)}


def _class_mean(values: FloatArray) -> FloatArray:
    """Return the mean over classes with ground truth, `[K, A, T]` → `[A, T]`; -1 if there are none."""
    known = values > NO_TRUTH
    total = np.where(known, values, 0.0).sum(axis=0)
    return np.asarray(np.where(known.any(axis=0), total / np.maximum(known.sum(axis=0), 1), NO_TRUTH))
