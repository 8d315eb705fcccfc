"""Predictions from result files or `VideoResult`s, checked against the ground truth."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from visdeploy.arguments import as_tuple, check_flag, check_path, check_type
from visdeploy.brief import brief, counted, shorten
from visdeploy.errors import DataError
from visdeploy.evaluation.annotations import AnnotationSet, Video
from visdeploy.evaluation.matching import Matcher, UnknownCategoryError, result_entries
from visdeploy.json_fields import Entry, has_no_runs, read_json
from visdeploy.masks import Mask
from visdeploy.oddities import Oddities
from visdeploy.results import Track, VideoResult

PredictionSource = str | Path | Iterable[Mapping[str, Any]] | Iterable[VideoResult] | VideoResult

_NO_RUNS = "masks without runs, read as absent"
_UNKNOWN = "results of classes that the ground truth lacks, left out"


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

    def __repr__(self) -> str:
        facts = {"video_id": self.video_id, "category_id": self.category_id, "score": self.score}
        return brief(self, **facts, masks=counted(self.masks))


def read_predictions(
    source: PredictionSource,
    truth: AnnotationSet,
    *,
    video_ids: Mapping[str, int] | None = None,
    strict: bool = False,
) -> list[Prediction]:
    """Read and check predictions.

    The ids in an entry of a result file select its video and category. A field `video_name` or `category_name`, which
    files written by visdeploy have, takes precedence over the id: a file that was written without the ground truth may
    number videos and classes differently. As in the reference evaluator, results of classes that the ground truth lacks
    take no part; a warning gives their number.

    Args:
        source: Path of a YouTube-VIS result file, a folder of result files (read in order of their names), a list of
            result entries, or `VideoResult`s.
        truth: The ground truth; videos, classes, frame counts and sizes must agree with it.
        video_ids: Map from the name of a result to the video id, for results not named after the frame folder.
        strict: Refuse results of classes that the ground truth lacks, and masks without runs.

    Raises:
        DataError: A file cannot be read, or an entry is malformed or does not match the ground truth.
    """
    check_type(truth, AnnotationSet, "ground truth", expected="an AnnotationSet, as read_annotations returns it")
    strict = check_flag(strict, "strict")
    odd = Oddities(str(source) if isinstance(source, str | Path) else "the list of predictions", strict)
    found = _read(source, Matcher(truth, video_ids), odd)
    odd.report(of=len(found))
    if found and found[0] is not None:
        found[0] = replace(found[0], first=True)
    return [each for each in found if each is not None]


def _read(source: PredictionSource, matcher: Matcher, odd: Oddities) -> list[Prediction | None]:
    """Return all predictions, None for those of classes that the ground truth lacks."""
    if isinstance(source, str | Path):
        return _from_path(check_path(source, "predictions"), matcher, odd)
    found = (source,) if isinstance(source, VideoResult) else as_tuple(source)
    if found is None or isinstance(source, bytes | Mapping):
        raise DataError("predictions", seen=shorten(source), expected="a path, VideoResults, or a list of entries")
    items = list(found)
    results = [item for item in items if isinstance(item, VideoResult)]
    if results and len(results) == len(items):
        return _from_results(results, matcher, odd)
    return _from_entries("predictions", items, matcher, odd)


def _from_path(path: Path, matcher: Matcher, odd: Oddities) -> list[Prediction | None]:
    if not path.is_dir():
        return _from_entries(str(path), read_json(path), matcher, odd)
    files = sorted(p for p in path.glob("*.json") if not p.name.startswith("."))
    if not files:
        raise DataError(f"no results in {path}", seen="no *.json", hint="Give a folder of YouTube-VIS result files.")
    return [found for file in files for found in _from_entries(str(file), read_json(file), matcher, odd)]


def _from_entries(where: str, data: Any, matcher: Matcher, odd: Oddities) -> list[Prediction | None]:
    return [_from_entry(entry, matcher, odd) for entry in result_entries(where, data)]


def _from_entry(entry: Entry, matcher: Matcher, odd: Oddities) -> Prediction | None:
    video = matcher.video_of_entry(entry)
    try:
        category_id = matcher.category_of_entry(entry)
    except UnknownCategoryError as error:
        odd.add(_UNKNOWN, entry.where, error)
        return None

    def read(field: str, item: Any) -> Mask | None:
        if has_no_runs(item):
            odd.add(_NO_RUNS, entry.where, entry.fail(field, seen="no runs", expected="runs of the frame, or null"))
            return None
        return entry.mask(field, item, video.height, video.width, hint="Write null where the object is absent.")

    masks = entry.masks("segmentations", length=video.length, height=video.height, width=video.width, read=read)
    return Prediction(video.id, category_id, entry.number("score"), masks)


def _from_results(results: Sequence[VideoResult], matcher: Matcher, odd: Oddities) -> list[Prediction | None]:
    videos = matcher.videos_of(results)
    for result in results:
        result.check()
    return [
        _from_track(result, track, video, matcher, odd)
        for result, video in zip(results, videos, strict=True)
        for track in result.tracks
    ]


def _from_track(result: VideoResult, track: Track, video: Video, matcher: Matcher, odd: Oddities) -> Prediction | None:
    where = f"result {result.name!r}, track {track.track_id}"
    if not result.classes:
        raise DataError(f"{where}: label without a class", seen=str(track.label), hint="Set the classes of the result.")
    try:
        category_id = matcher.category(where, result.classes[track.label])
    except UnknownCategoryError as error:
        odd.add(_UNKNOWN, where, error)
        return None
    masks = tuple(track.masks.get(frame) for frame in range(video.length))
    return Prediction(video.id, category_id, float(track.score), masks)
