"""Predictions from result files or from `VideoResult`s, checked against the ground truth they are scored on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
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
    """

    video_id: int
    category_id: int
    score: float
    masks: tuple[Mask | None, ...]


def read_predictions(
    source: PredictionSource, truth: AnnotationSet, *, video_ids: Mapping[str, int] | None = None
) -> list[Prediction]:
    """Read and check predictions.

    Args:
        source: Path of a YouTube-VIS result file, a folder of such files (read in order of their names), a list of
            result entries, or `VideoResult`s.
        truth: The ground truth; videos, classes, frame counts and sizes must agree with it.
        video_ids: `VideoResult.name` → video id, for results whose name is not the video's folder name.

    Raises:
        DataError: A file cannot be read, an entry is malformed, or it does not fit the ground truth.
    """
    if isinstance(source, str | Path):
        return _from_path(Path(source), truth)
    items = [source] if isinstance(source, VideoResult) else list(source)
    results = [item for item in items if isinstance(item, VideoResult)]
    if results and len(results) == len(items):
        return _from_results(results, truth, video_ids or {})
    return _from_entries("predictions", items, truth)


def _from_path(path: Path, truth: AnnotationSet) -> list[Prediction]:
    if not path.is_dir():
        return _from_entries(str(path), read_json(path), truth)
    files = sorted(path.glob("*.json"))
    if not files:
        raise DataError(f"no results in {path}", seen="no *.json", hint="Give a folder of YouTube-VIS result files.")
    return [found for file in files for found in _from_entries(str(file), read_json(file), truth)]


def _from_entries(where: str, data: Any, truth: AnnotationSet) -> list[Prediction]:
    if not isinstance(data, list):
        raise DataError(
            f"{where} is not a result file",
            seen=type(data).__name__,
            expected="a list of objects with video_id, category_id, score and segmentations",
        )
    return [_from_entry(Entry.of(f"{where}[{index}]", item), truth) for index, item in enumerate(data)]


def _from_entry(entry: Entry, truth: AnnotationSet) -> Prediction:
    video_id = entry.integer("video_id", minimum=0)
    video = truth.video_by_id.get(video_id)
    if video is None:
        raise entry.fail("video_id", seen=f"{video_id}, an unknown video", expected=f"a video of {truth.source}")
    category_id = entry.integer("category_id", minimum=0)
    if category_id not in truth.category_by_id:
        raise entry.fail(
            "category_id",
            seen=f"{category_id}, an unknown category",
            expected=f"one of {sorted(truth.category_by_id)}",
            hint="The result was made for another set of classes.",
        )
    masks = entry.masks("segmentations", length=video.length, height=video.height, width=video.width)
    return Prediction(video_id, category_id, entry.number("score"), masks)


def _from_results(
    results: Sequence[VideoResult], truth: AnnotationSet, video_ids: Mapping[str, int]
) -> list[Prediction]:
    by_name: dict[str, list[Video]] = {}
    for video in truth.videos:
        by_name.setdefault(video.name, []).append(video)
    categories = {category.name: category.id for category in truth.categories}
    taken: dict[int, str] = {}
    found = []
    for result in results:
        video = _video_of(result, truth, by_name, video_ids)
        if video.id in taken:
            raise DataError(f"two results belong to video {video.id}", seen=f"{taken[video.id]!r} and {result.name!r}")
        taken[video.id] = result.name
        _check_shape(result, video)
        found += [_from_track(result, track, video, categories) for track in result.tracks]
    return found


def _video_of(
    result: VideoResult, truth: AnnotationSet, by_name: Mapping[str, list[Video]], video_ids: Mapping[str, int]
) -> Video:
    if result.name in video_ids:
        video = truth.video_by_id.get(video_ids[result.name])
        candidates = [] if video is None else [video]
    else:
        candidates = by_name.get(result.name, [])
    if len(candidates) != 1:
        raise DataError(
            f"the result {result.name!r} belongs to no single video of {truth.source}",
            seen=f"{len(candidates)} videos of that name",
            expected="the name of the video's frame folder",
            hint="Pass video_ids={name: id} to say which video it is.",
        )
    return candidates[0]


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


def _from_track(result: VideoResult, track: Track, video: Video, categories: Mapping[str, int]) -> Prediction:
    where = f"result {result.name!r}, track {track.track_id}"
    name = result.classes[track.label] if 0 <= track.label < len(result.classes) else None
    if name is None or name not in categories:
        raise DataError(
            f"{where}: unknown category",
            seen=f"label {track.label}, {name!r}",
            expected=f"one of {sorted(categories)}",
            hint="The classes of the bundle and of the ground truth are matched by name.",
        )
    for frame, mask in track.masks.items():
        if (mask.height, mask.width) != (video.height, video.width):
            raise DataError(
                f"{where}, frame {frame}: mask size differs from the video",
                seen=f"{mask.height}x{mask.width}",
                expected=f"{video.height}x{video.width}",
            )
    entry = Entry(where, {"score": track.score})
    masks = tuple(track.masks.get(frame) for frame in range(video.length))
    return Prediction(video.id, categories[name], entry.number("score"), masks)
