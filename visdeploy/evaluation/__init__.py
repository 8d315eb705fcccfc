"""Metrics of video instance segmentation: YouTube-VIS AP and AR, J&F, HOTA, CLEAR MOT, Identity."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from visdeploy.arguments import as_tuple, check_flag, check_names, check_path, check_video_ids
from visdeploy.brief import shorten
from visdeploy.errors import ConfigError, suggestion
from visdeploy.evaluation.annotations import Annotation, AnnotationSet, Category, Video, read_annotations
from visdeploy.evaluation.clear import ClearMetric, IdentityMetric
from visdeploy.evaluation.folders import is_folder_truth, read_folders, warn_of_missing
from visdeploy.evaluation.hota import HOTAMetric
from visdeploy.evaluation.ignored import without_ignored, without_void
from visdeploy.evaluation.jf import evaluate_jf
from visdeploy.evaluation.pairs import ClassPairs, class_pairs
from visdeploy.evaluation.predictions import Prediction, PredictionSource, read_predictions
from visdeploy.evaluation.report import Report
from visdeploy.evaluation.trackmap import TrackMAPMetric
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


class _TrackMetric(Protocol):
    def add(self, pairs: ClassPairs) -> None: ...

    def result(self) -> dict[str, Any]: ...


_TRACK_METRICS: dict[str, Callable[[Sequence[Category]], _TrackMetric]] = {
    "ytvis": YouTubeVISMetric,
    "hota": HOTAMetric,
    "clear": ClearMetric,
    "identity": IdentityMetric,
    "trackmap": TrackMAPMetric,
}
METRICS = ("ytvis", "jf", "hota", "clear", "identity", "trackmap")
"""Names of the metrics that `evaluate` accepts, in the order of a report."""


def evaluate(
    predictions: PredictionSource,
    ground_truth: str | Path | Mapping[str, Any] | AnnotationSet,
    *,
    metrics: Sequence[str] | None = None,
    video_ids: Mapping[str, int] | None = None,
    numbering: str | None = None,
    strict: bool = False,
    videos: Sequence[str] | None = None,
) -> Report:
    """Score predictions against ground truth of YouTube-VIS, DAVIS or MOTS.

    Args:
        predictions: Path of a YouTube-VIS result file, a folder of such files, a list of result entries, or
            `VideoResult`s (matched to videos by the name of the frame folder, to categories by class name). With ground
            truth of DAVIS or MOTS: a file or folder in any format, or `VideoResult`s.
        ground_truth: Path of the annotation file, its content, or an `AnnotationSet` from `read_annotations`. Or the
            folder of DAVIS annotations (a folder of indexed PNGs per video, 255 is void), or of MOTS text files (class
            10 is an ignore region); a warning names the videos of such a folder that have no result.
        metrics: Some of `METRICS`: `ytvis` (AP and AR), `jf` (J, F and their mean, unsupervised), `hota`, `clear`
            (MOTA, sMOTA), `identity` (IDF1), `trackmap` (AP as TrackEval computes it). By default, `ytvis` for
            YouTube-VIS, `jf` for DAVIS, `hota` and `clear` for MOTS.
        video_ids: Map from `VideoResult.name` to video id, for results not named after the frame folder.
        numbering: `kitti` or `motschallenge`: numbers of frames in MOTS text of other tools, see
            `visdeploy.formats.mots`.
        strict: Refuse odd entries, which are otherwise treated as in the reference evaluators, with a warning: objects
            with masks without pixels, polygons of fewer than three points, results of classes that the ground truth
            lacks.
        videos: Names of the videos that count, such as those of one split of DAVIS; by default all.

    Returns:
        The scores; -1 marks an AP or AR without ground truth.

    Raises:
        ConfigError: A metric or a numbering is unknown.
        DataError: A file is malformed, or predictions do not fit the ground truth.

    Example:
        >>> report = evaluate("results.json", "valid.json", metrics=("ytvis", "hota"))  # doctest: +SKIP
        >>> report["AP"], report["hota"]["per_class"]  # doctest: +SKIP
    """
    metrics = None if metrics is None else check_metrics(metrics)
    video_ids = check_video_ids(video_ids)
    strict = check_flag(strict, "strict")
    if not isinstance(ground_truth, Mapping | AnnotationSet):
        ground_truth = check_path(ground_truth, "ground truth")
    if isinstance(ground_truth, Path) and is_folder_truth(ground_truth):
        names = None if videos is None else check_names(videos, "videos to evaluate")
        truth, results = read_folders(ground_truth, predictions, numbering=numbering, videos=names)
        found = read_predictions(results, truth, video_ids=video_ids, strict=strict)
        warn_of_missing(truth, results, video_ids)
    elif numbering is not None:
        raise ConfigError("numbering is for MOTS text", seen=f"numbering={numbering!r:.60}", expected="None")
    else:
        truth = (
            ground_truth if isinstance(ground_truth, AnnotationSet) else read_annotations(ground_truth, strict=strict)
        )
        found = read_predictions(predictions, truth, video_ids=video_ids, strict=strict)
        if videos is not None:
            truth = truth.only(videos)
            found = [each for each in found if each.video_id in truth.video_by_id]
    metrics = truth.metrics if metrics is None else metrics
    collectors = {name: create(truth.categories) for name, create in _TRACK_METRICS.items() if name in metrics}
    for pairs in class_pairs(truth, without_ignored(truth, found)) if collectors else ():
        for collector in collectors.values():
            collector.add(pairs)
    scores = {name: collector.result() for name, collector in collectors.items()}
    if "jf" in metrics:
        scores["jf"] = evaluate_jf(*without_void(truth, found))
    return Report({name: scores[name] for name in METRICS if name in scores})


def check_metrics(metrics: Any) -> tuple[str, ...]:
    """Return the names of metrics, and raise a `ConfigError` for anything else."""
    names = None if isinstance(metrics, str) else as_tuple(metrics)
    for name in names or (None,):
        if not isinstance(name, str) or name not in METRICS:
            hint = suggestion(name, METRICS) if isinstance(name, str) else ""
            seen = f"metrics={shorten(metrics)}"
            raise ConfigError("cannot evaluate", seen=seen, expected=f"a list of some of {METRICS}", hint=hint)
    return names or ()
