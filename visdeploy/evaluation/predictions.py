"""Predictions from result files or from `VideoResult`s, checked against the ground truth they are scored on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from visdeploy.errors import DataError
from visdeploy.evaluation.annotations import AnnotationSet, Video
from visdeploy.evaluation.entries import Entry, read_json
from visdeploy.masks import Mask
from visdeploy.results import Track, VideoResult

PredictionSource = str | Path | Iterable[Mapping[str, Any]] | Iterable[VideoResult] | VideoResult


@dataclass(frozen=True, slots=True)
class Prediction:
    """One predicted track.

    Attributes:
        video_id: Video of the ground truth.
        category_id: Category of the ground truth.
        score: Confidence; only the order counts.
        masks: One item a frame; None where the object is absent.
        first: Whether the track is the first of all predictions (TrackEval treats it differently).
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

    Entries of result files belong to the video and category whose ids they state. Where an entry also holds
    `video_name` or `category_name`, as files written by visdeploy do, the name decides: files written video by video,
    without knowledge of the ground truth, number videos and classes in their own way.

    Args:
        source: Path of a YouTube-VIS result file, a folder of such files (read in order of their names), a list of
            result entries, or `VideoResult`s.
        truth: The ground truth; videos, classes, frame counts and sizes must agree with it.
        video_ids: Name of a result → video id, for results whose name is not the video's folder name.

    Raises:
        DataError: A file cannot be read, an entry is malformed, or it does not fit the ground truth.
    """
    matcher = _Matcher(truth, video_ids or {})
    found = _read(source, matcher)
    return [replace(found[0], first=True), *found[1:]] if found else []


def _read(source: PredictionSource, matcher: _Matcher) -> list[Prediction]:
    if isinstance(source, str | Path):
        return _from_path(Path(source), matcher)
    items = [source] if isinstance(source, VideoResult) else list(source)
    results = [item for item in items if isinstance(item, VideoResult)]
    if results and len(results) == len(items):
        return _from_results(results, matcher)
    return _from_entries("predictions", items, matcher)


class _Matcher:
    """Finds the video and the category that a prediction belongs to.

    Args:
        truth: The ground truth.
        video_ids: Name of a result → video id, before all other rules.
    """

    def __init__(self, truth: AnnotationSet, video_ids: Mapping[str, int]) -> None:
        self.truth, self._video_ids = truth, video_ids
        self._category_ids = {category.name: category.id for category in truth.categories}
        self._by_name: dict[str, list[Video]] = {}
        for video in truth.videos:
            self._by_name.setdefault(video.name, []).append(video)

    def video(self, where: str, name: str, stated: int | None = None) -> Video:
        """The video of this name; of several, the one with the stated id."""
        candidates = self._by_name.get(name, [])
        if name in self._video_ids:
            candidates = [v for v in self.truth.videos if v.id == self._video_ids[name]]
        elif len(candidates) > 1:
            candidates = [video for video in candidates if video.id == stated]
        if len(candidates) != 1:
            raise DataError(
                f"{where} belongs to no single video of {self.truth.source}",
                seen=f"name {name!r}",
                expected="the name of a video's frame folder",
                hint="Pass video_ids={name: id} to say which video it is.",
            )
        return candidates[0]

    def category(self, where: str, name: str) -> int:
        """The id of the category of this name."""
        if name not in self._category_ids:
            raise DataError(
                f"{where}: unknown category",
                seen=repr(name),
                expected=f"one of {sorted(self._category_ids)}",
                hint="The classes of the results and of the ground truth are matched by name.",
            )
        return self._category_ids[name]


def _from_path(path: Path, matcher: _Matcher) -> list[Prediction]:
    if not path.is_dir():
        return _from_entries(str(path), read_json(path), matcher)
    files = sorted(path.glob("*.json"))
    if not files:
        raise DataError(f"no results in {path}", seen="no *.json", hint="Give a folder of YouTube-VIS result files.")
    return [found for file in files for found in _from_entries(str(file), read_json(file), matcher)]


def _from_entries(where: str, data: Any, matcher: _Matcher) -> list[Prediction]:
    if not isinstance(data, list):
        raise DataError(
            f"{where} is not a result file",
            seen=type(data).__name__,
            expected="a list of objects with video_id, category_id, score and segmentations",
        )
    return [_from_entry(Entry.of(f"{where}[{index}]", item), matcher) for index, item in enumerate(data)]


def _from_entry(entry: Entry, matcher: _Matcher) -> Prediction:
    video, category_id = _video_of(entry, matcher), _category_of(entry, matcher)
    masks = entry.masks("segmentations", length=video.length, height=video.height, width=video.width)
    return Prediction(video.id, category_id, entry.number("score"), masks)


def _video_of(entry: Entry, matcher: _Matcher) -> Video:
    video_id = entry.integer("video_id", minimum=0)
    if entry.get("video_name", None) is not None:
        return matcher.video(entry.where, entry.text("video_name"), video_id)
    video = matcher.truth.video_by_id.get(video_id)
    if video is None:
        raise entry.fail(
            "video_id", seen=f"{video_id}, an unknown video", expected=f"a video of {matcher.truth.source}"
        )
    return video


def _category_of(entry: Entry, matcher: _Matcher) -> int:
    category_id = entry.integer("category_id", minimum=0)
    if entry.get("category_name", None) is not None:
        return matcher.category(entry.where, entry.text("category_name"))
    if category_id not in matcher.truth.category_by_id:
        raise entry.fail(
            "category_id",
            seen=f"{category_id}, an unknown category",
            expected=f"one of {sorted(matcher.truth.category_by_id)}",
            hint="The result was made for another set of classes.",
        )
    return category_id


def _from_results(results: Sequence[VideoResult], matcher: _Matcher) -> list[Prediction]:
    taken: dict[int, str] = {}
    found = []
    for result in results:
        video = matcher.video(f"the result {result.name!r}", result.name)
        if video.id in taken:
            raise DataError(f"two results belong to video {video.id}", seen=f"{taken[video.id]!r} and {result.name!r}")
        taken[video.id] = result.name
        _check_shape(result, video)
        found += [_from_track(result, track, video, matcher) for track in result.tracks]
    return found


def _check_shape(result: VideoResult, video: Video) -> None:
    for what, seen, expected in (
        ("number of frames", result.num_frames, video.length),
        ("height", result.height, video.height),
        ("width", result.width, video.width),
    ):
        if seen != expected:
            raise DataError(
                f"result {result.name!r}: {what} differs from video {video.id} of the ground truth",
                seen=str(seen),
                expected=str(expected),
                hint="Evaluate results of the very frames that the ground truth lists.",
            )


def _from_track(result: VideoResult, track: Track, video: Video, matcher: _Matcher) -> Prediction:
    where = f"result {result.name!r}, track {track.track_id}"
    if not 0 <= track.label < len(result.classes):
        raise DataError(
            f"{where}: label without a class", seen=str(track.label), expected=f"0..{len(result.classes) - 1}"
        )
    for frame, mask in track.masks.items():
        if (mask.height, mask.width) != (video.height, video.width):
            raise DataError(
                f"{where}, frame {frame}: mask size differs from the video",
                seen=f"{mask.height}x{mask.width}",
                expected=f"{video.height}x{video.width}",
            )
    score = Entry(where, {"score": track.score}).number("score")
    masks = tuple(track.masks.get(frame) for frame in range(video.length))
    return Prediction(video.id, matcher.category(where, result.classes[track.label]), score, masks)
