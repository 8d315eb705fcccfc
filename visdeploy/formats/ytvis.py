"""YouTube-VIS result JSON: a list with one entry per track.

The official entry is `{video_id, category_id, score, segmentations}`, category ids from 1, one RLE or null per frame.
Written entries carry further keys that evaluators ignore (`track_id`, `scores`, `video_name`, and `video` with size,
rate and timestamps on the first entry of a video), so that reading back is complete. A video without tracks has no
entry (a warning says so) and comes back only when the ground truth is given.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from visdeploy.atomic import write_text
from visdeploy.errors import DataError
from visdeploy.formats.common import (
    Entry,
    class_name,
    dump_json,
    read_head,
    read_json,
    shared_classes,
    sorted_tracks,
    video_head,
)
from visdeploy.formats.ytvis_truth import GroundTruth
from visdeploy.results import Track, VideoResult

logger = logging.getLogger(__name__)


def save(
    results: Sequence[VideoResult],
    path: Path,
    *,
    video_ids: Mapping[str, int] | None = None,
    ground_truth: str | Path | Mapping[str, Any] | None = None,
) -> None:
    """Write a result list.

    Args:
        results: Results of one model.
        path: JSON file.
        video_ids: Video name → id; overrides the ground truth.
        ground_truth: Annotation file whose ids to use: videos by name, categories by class name. Without it videos
            count from 1 in the given order and category ids are labels plus one.
    """
    classes = shared_classes(results)
    truth = None if ground_truth is None else GroundTruth.read(ground_truth)
    entries: list[dict[str, Any]] = []
    for number, result in enumerate(results, start=1):
        video_id = number
        if video_ids is not None and result.name in video_ids:
            video_id = video_ids[result.name]
        elif truth is not None:
            video_id = truth.video_id(result)
        if not result.tracks:
            logger.warning("%s: no tracks, so no entry in %s", result.name, path)
        head: dict[str, Any] | None = {**video_head(result), "classes": list(classes)}
        for track in result.tracks:
            category = truth.category_id(class_name(classes, track.label)) if truth else track.label + 1
            entry = _entry(result, track, video_id, category)
            if head is not None:
                entry["video"], head = head, None
            entries.append(entry)
    write_text(path, dump_json(entries, str(path)))


def _entry(result: VideoResult, track: Track, video_id: int, category: int) -> dict[str, Any]:
    masks = [track.masks.get(i) for i in range(result.num_frames)]
    entry: dict[str, Any] = {
        "video_id": int(video_id),
        "category_id": int(category),
        "score": float(track.score),
        "segmentations": [None if m is None else m.to_coco() for m in masks],
        "track_id": int(track.track_id),
        "video_name": result.name,
    }
    return {**entry, "scores": [float(s) for s in track.scores]} if track.scores else entry


def load(
    path: Path,
    *,
    ground_truth: str | Path | Mapping[str, Any] | None = None,
    classes: Sequence[str] | None = None,
) -> list[VideoResult]:
    """Read a result list.

    Args:
        path: JSON file.
        ground_truth: Annotation file that gives names, sizes, lengths and categories, and the videos without tracks.
        classes: Class names in the order of category ids, where neither the file nor a ground truth names them.

    Returns:
        One result per video, in the order of first mention (with ground truth: in its order).
    """
    content = read_json(path)
    if not isinstance(content, list):
        raise DataError(f"{path} is no YouTube-VIS result file", seen=type(content).__name__, expected="a list",
                        hint="A file with images and annotations is format 'coco'.")  # fmt: skip
    truth = None if ground_truth is None else GroundTruth.read(ground_truth)
    groups: dict[int, list[Entry]] = {} if truth is None else {video.id: [] for video in truth.videos}
    for i, value in enumerate(content):
        entry = Entry(value, path, f"entry {i}")
        video_id = entry.integer("video_id")
        if truth is not None and video_id not in groups:
            entry.fail("video_id", str(video_id), "the id of a video of the ground truth")
        groups.setdefault(video_id, []).append(entry)
    names = tuple(classes or ()) or _class_names(groups, truth)
    return [_read_video(video_id, entries, names, truth) for video_id, entries in groups.items()]


def _class_names(groups: Mapping[int, Sequence[Entry]], truth: GroundTruth | None) -> tuple[str, ...]:
    if truth is not None:
        return truth.class_names
    entries = [e for group in groups.values() for e in group]
    for entry in entries:
        if entry.has("video"):
            head = Entry(entry.value["video"], entry.path, f"{entry.place}, field 'video'")
            return head.list_of("classes", str)
    largest = max((e.integer("category_id", least=1, most=100_000) for e in entries), default=0)
    return tuple(f"class {i}" for i in range(largest))


def _read_video(
    video_id: int, entries: Sequence[Entry], classes: tuple[str, ...], truth: GroundTruth | None
) -> VideoResult:
    result = _blank(video_id, entries, classes, truth)
    for number, entry in enumerate(entries):
        label = _label(entry, classes, truth)
        track_id = entry.integer("track_id", number)
        track = Track(track_id, label, entry.number("score"), {}, entry.list_of("scores", float))
        segmentations = _segmentations(entry)
        if len(segmentations) != result.num_frames:
            entry.fail("segmentations", f"{len(segmentations)} items", f"{result.num_frames}, one per frame")
        for i, rle in enumerate(segmentations):
            if rle is not None:
                track.masks[i] = entry.mask(f"segmentations[{i}]", rle, result.height, result.width)
        if any(t.track_id == track_id for t in result.tracks):
            entry.fail("track_id", f"{track_id} again", "one entry per track of a video")
        result.tracks.append(track)
    result.tracks = sorted_tracks(result.tracks)
    return result


def _label(entry: Entry, classes: tuple[str, ...], truth: GroundTruth | None) -> int:
    category = entry.integer("category_id", least=0 if truth else 1)
    if truth is not None:
        if category not in truth.labels:
            entry.fail("category_id", str(category), "a category of the ground truth")
        return truth.labels[category]
    if classes and category > len(classes):
        entry.fail("category_id", str(category), f"1..{len(classes)}")
    return category - 1


def _segmentations(entry: Entry) -> list[Any]:
    value = entry.value.get("segmentations")
    if not isinstance(value, list):
        entry.fail("segmentations", type(value).__name__, "a list with one mask or null per frame")
    return value


def _blank(video_id: int, entries: Sequence[Entry], classes: tuple[str, ...], truth: GroundTruth | None) -> VideoResult:
    """The video without tracks, from the ground truth, the head in the file, or the masks themselves."""
    for entry in entries:
        if entry.has("video"):
            return read_head(Entry(entry.value["video"], entry.path, f"{entry.place}, field 'video'"), classes, ())
    if truth is not None:
        video = truth.by_id(video_id)
        return VideoResult(video.name, video.height, video.width, video.length, classes)
    name = next((e.text("video_name") for e in entries if e.has("video_name")), str(video_id))
    length = len(_segmentations(entries[0]))
    found = ((e, i, rle) for e in entries for i, rle in enumerate(_segmentations(e)) if rle is not None)
    entry, i, rle = next(found, (entries[0], 0, None))
    if rle is not None:
        mask = entry.mask(f"segmentations[{i}]", rle)
        return VideoResult(name, mask.height, mask.width, length, classes)
    return entry.fail("segmentations", "null in every frame", "a mask somewhere in the video, to know its size",
                    hint="Pass ground_truth=, which states the sizes.")  # fmt: skip
