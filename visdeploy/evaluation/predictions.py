"""Predictions from result files or `VideoResult`s, checked against the ground truth."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from visdeploy.errors import DataError
from visdeploy.evaluation.annotations import AnnotationSet, Video
from visdeploy.evaluation.matching import Matcher, result_entries
from visdeploy.json_fields import Entry, read_json
from visdeploy.masks import Mask
from visdeploy.results import Track, VideoResult

PredictionSource = str | Path | Iterable[Mapping[str, Any]] | Iterable[VideoResult] | VideoResult


@dataclass(frozen=True, slots=True)
class Prediction:
    """Predicted track.

    Attributes:
        video_id: Id of the video in the ground truth.
        category_id: Id of the category in the ground truth.
        score: Confidence; metrics use only the order of the scores.
        masks: One item per frame; None where the object is absent.
        first: Whether the track is the first of all predictions (TrackEval treats this one differently).
    """

    video_id: int
    category_id: int
    score: float
    masks: tuple[Mask | None, ...]
    first: bool = False


def read_predictions(
    source: PredictionSource, truth: AnnotationSet, *, video_ids: Mapping[str, int] | None = None
) -> list[Prediction]:
    """Read and check predictions.

    The ids in an entry of a result file select its video and category. A field `video_name` or `category_name`, which
    files written by visdeploy have, takes precedence over the id: a file that was written without the ground truth may
    number videos and classes differently.

    Args:
        source: Path of a YouTube-VIS result file, a folder of result files (read in order of their names), a list of
            result entries, or `VideoResult`s.
        truth: The ground truth; videos, classes, frame counts and sizes must agree with it.
        video_ids: Map from the name of a result to the video id, for results not named after the frame folder.

    Raises:
        DataError: A file cannot be read, or an entry is malformed or does not match the ground truth.
    """
    matcher = Matcher(truth, video_ids)
    found = _read(source, matcher)
    return [replace(found[0], first=True), *found[1:]] if found else []


def _read(source: PredictionSource, matcher: Matcher) -> list[Prediction]:
    if isinstance(source, str | Path):
        return _from_path(Path(source), matcher)
    items = [source] if isinstance(source, VideoResult) else list(source)
    results = [item for item in items if isinstance(item, VideoResult)]
    if results and len(results) == len(items):
        return _from_results(results, matcher)
    return _from_entries("predictions", items, matcher)


def _from_path(path: Path, matcher: Matcher) -> list[Prediction]:
    if not path.is_dir():
        return _from_entries(str(path), read_json(path), matcher)
    files = sorted(path.glob("*.json"))
    if not files:
        raise DataError(f"no results in {path}", seen="no *.json", hint="Give a folder of YouTube-VIS result files.")
    return [found for file in files for found in _from_entries(str(file), read_json(file), matcher)]


def _from_entries(where: str, data: Any, matcher: Matcher) -> list[Prediction]:
    return [_from_entry(entry, matcher) for entry in result_entries(where, data)]


def _from_entry(entry: Entry, matcher: Matcher) -> Prediction:
    video, category_id = matcher.video_of_entry(entry), matcher.category_of_entry(entry)
    masks = entry.masks("segmentations", length=video.length, height=video.height, width=video.width)
    return Prediction(video.id, category_id, entry.number("score"), masks)


def _from_results(results: Sequence[VideoResult], matcher: Matcher) -> list[Prediction]:
    videos = matcher.videos_of(results)
    for result in results:
        result.check()
    return [
        _from_track(result, track, video, matcher)
        for result, video in zip(results, videos, strict=True)
        for track in result.tracks
    ]


def _from_track(result: VideoResult, track: Track, video: Video, matcher: Matcher) -> Prediction:
    where = f"result {result.name!r}, track {track.track_id}"
    if not result.classes:
        raise DataError(f"{where}: label without a class", seen=str(track.label), hint="Set the classes of the result.")
    masks = tuple(track.masks.get(frame) for frame in range(video.length))
    return Prediction(video.id, matcher.category(where, result.classes[track.label]), float(track.score), masks)
