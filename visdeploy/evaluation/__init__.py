"""Scores of video instance segmentation: YouTube-VIS AP and AR, J&F, HOTA, CLEAR and Identity."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from visdeploy.errors import ConfigError
from visdeploy.evaluation.annotations import Annotation, AnnotationSet, Category, Video, read_annotations
from visdeploy.evaluation.pairs import class_pairs
from visdeploy.evaluation.predictions import Prediction, PredictionSource, read_predictions
from visdeploy.evaluation.report import Report
from visdeploy.evaluation.ytvis import YouTubeVISMetric

__all__ = [
    "METRICS",
    "Annotation",
    "AnnotationSet",
    "Category",
    "Prediction",
    "Report",
    "Video",
    "evaluate",
    "read_annotations",
    "read_predictions",
]

METRICS = ("ytvis",)


def evaluate(
    predictions: PredictionSource,
    ground_truth: str | Path | Mapping[str, Any] | AnnotationSet,
    *,
    metrics: Sequence[str] = ("ytvis",),
    video_ids: Mapping[str, int] | None = None,
) -> Report:
    """Score predictions against ground truth."""
    unknown = [name for name in metrics if name not in METRICS]
    if unknown or not metrics or isinstance(metrics, str):
        raise ConfigError("unknown metrics", seen=repr(metrics), expected=f"some of {METRICS}")
    truth = ground_truth if isinstance(ground_truth, AnnotationSet) else read_annotations(ground_truth)
    found = read_predictions(predictions, truth, video_ids=video_ids)
    metric = YouTubeVISMetric(truth.categories)
    for pairs in class_pairs(truth, found):
        metric.add(pairs)
    return Report({"ytvis": metric.result()})
