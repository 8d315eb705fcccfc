"""YouTube-VIS result JSON: a list with one entry per track.

The official entry is `{video_id, category_id, score, segmentations}`, with category ids from 1 and one RLE or null per
frame. `save` adds keys that other evaluators ignore: `video_name` and `category_name`, to match a ground truth with
other ids; `track_id` and `scores`; and, in the first entry of a video, `video` with size, frame rate and timestamps, so
that reading the file restores the complete results. A video without tracks has no entry: `save` logs a warning, and
`load` restores the video only if it is given the ground truth.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from visdeploy.arguments import check_flag, check_names, check_video_ids
from visdeploy.atomic import write_text
from visdeploy.errors import DataError
from visdeploy.evaluation.annotations import AnnotationSet, read_annotations
from visdeploy.evaluation.matching import Matcher, result_entries
from visdeploy.formats.common import dump_json, read_head, shared_classes, sorted_tracks, video_head
from visdeploy.json_fields import Entry, read_json
from visdeploy.results import Track, VideoResult, class_name

logger = logging.getLogger(__name__)

_OFFICIAL = ("video_id", "category_id", "score", "segmentations")


def save(
    results: Sequence[VideoResult],
    path: Path,
    *,
    video_ids: Mapping[str, int] | None = None,
    ground_truth: str | Path | Mapping[str, Any] | AnnotationSet | None = None,
    official: bool = False,
) -> None:
    """Write a result list.

    Args:
        results: Results of one model.
        path: JSON file.
        video_ids: Map from video name to id; overrides the ground truth. Entries of these videos have no `video_name`,
            so that readers use the id.
        ground_truth: Annotation file with the ids to use: videos are matched by name, categories by class name. Without
            it, videos are numbered from 1 in the given order, and category ids are labels plus one.
        official: Write the four official keys alone, as for an evaluation server.

    Raises:
        DataError: A result matches no video of the ground truth, or two results would get the same id.
    """
    empty = [result.name for result in results if not result.tracks]
    if empty:
        shown = ", ".join(empty[:5]) + (", ..." if len(empty) > 5 else "")
        logger.warning("%d of %d videos have no tracks, therefore no entry in %s: %s",
                       len(empty), len(results), path, shown)  # fmt: skip
    write_text(path, to_text(results, video_ids=video_ids, ground_truth=ground_truth, official=official))


def to_text(
    results: Sequence[VideoResult],
    *,
    video_ids: Mapping[str, int] | None = None,
    ground_truth: str | Path | Mapping[str, Any] | AnnotationSet | None = None,
    official: bool = False,
) -> str:
    """Return the text of a result list; for the arguments see `save`."""
    classes, video_ids = shared_classes(results), check_video_ids(video_ids)
    truth = _matcher(ground_truth, video_ids)
    entries: list[dict[str, Any]] = []
    for result, video_id in zip(results, _video_ids(results, truth, video_ids), strict=True):
        if check_flag(official, "official"):
            found = (_entry(result, track, video_id, truth) for track in result.tracks)
            entries += [{key: entry[key] for key in _OFFICIAL} for entry in found]
            continue
        named = result.name not in video_ids
        head = {"video": {**video_head(result), "classes": list(classes)}}
        for track in result.tracks:
            entries.append(
                _entry(result, track, video_id, truth) | ({"video_name": result.name} if named else {}) | head
            )
            head = {}
    return dump_json(entries, "the results as YouTube-VIS JSON")


def _matcher(
    ground_truth: str | Path | Mapping[str, Any] | AnnotationSet | None, video_ids: Mapping[str, int] | None = None
) -> Matcher | None:
    if ground_truth is None:
        return None
    if not isinstance(ground_truth, AnnotationSet):
        ground_truth = read_annotations(ground_truth, require_annotations=False)
    return Matcher(ground_truth, video_ids)


def _video_ids(results: Sequence[VideoResult], truth: Matcher | None, given: Mapping[str, int]) -> list[int]:
    if truth is not None:
        return [video.id for video in truth.videos_of(results)]
    ids = [given.get(result.name, number) for number, result in enumerate(results, start=1)]
    for i, result in enumerate(results):
        if ids[i] in ids[:i]:
            raise DataError(
                f"two videos would get the id {ids[i]}",
                seen=f"{results[ids.index(ids[i])].name!r} and {result.name!r}",
                hint="Give the ids of all videos in video_ids.",
            )
    return ids


def _entry(result: VideoResult, track: Track, video_id: int, truth: Matcher | None) -> dict[str, Any]:
    name = class_name(result.classes, track.label)
    where = f"result {result.name!r}, track {track.track_id}"
    masks = [track.masks.get(i) for i in range(result.num_frames)]
    entry: dict[str, Any] = {
        "video_id": video_id,
        "category_id": track.label + 1 if truth is None else truth.category(where, name),
        "score": float(track.score),
        "segmentations": [None if m is None else m.to_coco() for m in masks],
        "track_id": int(track.track_id),
    }
    if result.classes:
        entry["category_name"] = name
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
        ground_truth: Annotation file with names, sizes, lengths, categories, and the videos without tracks.
        classes: Class names in the order of category ids, if neither the file nor a ground truth has them.

    Returns:
        One result per video, in the order of the ground truth or, without one, of the first entry of each video.
    """
    given = None if classes is None else check_names(classes, "classes of a result file")
    truth = _matcher(ground_truth)
    groups: dict[int, list[Entry]] = {} if truth is None else {video.id: [] for video in truth.truth.videos}
    for entry in result_entries(str(path), read_json(path)):
        video_id = entry.integer("video_id") if truth is None else truth.video_of_entry(entry).id
        groups.setdefault(video_id, []).append(entry)
    names = given or _class_names(groups, truth)
    return [_read_video(video_id, entries, names, truth) for video_id, entries in groups.items()]


def _class_names(groups: Mapping[int, Sequence[Entry]], truth: Matcher | None) -> tuple[str, ...]:
    if truth is not None:
        return tuple(category.name for category in truth.truth.categories)
    entries = [e for group in groups.values() for e in group]
    for entry in entries:
        if entry.has("video"):
            return entry.entry("video").list_of("classes", str)
    largest = max((e.integer("category_id", minimum=1, maximum=100_000) for e in entries), default=0)
    return tuple(f"class {i}" for i in range(largest))


def _read_video(
    video_id: int, entries: Sequence[Entry], classes: tuple[str, ...], truth: Matcher | None
) -> VideoResult:
    result = _blank(video_id, entries, classes, truth)
    for number, entry in enumerate(entries):
        track_id = entry.integer("track_id", default=number)
        if any(t.track_id == track_id for t in result.tracks):
            raise entry.fail("track_id", seen=f"{track_id} again", expected="one entry per track of a video")
        masks = entry.masks("segmentations", length=result.num_frames, height=result.height, width=result.width)
        found = {i: mask for i, mask in enumerate(masks) if mask is not None}
        label, score = _label(entry, classes, truth), entry.number("score")
        result.tracks.append(Track(track_id, label, score, found, entry.list_of("scores", float)))
    result.tracks = sorted_tracks(result.tracks)
    return result


def _label(entry: Entry, classes: tuple[str, ...], truth: Matcher | None) -> int:
    if truth is not None:
        return list(truth.truth.category_by_id).index(truth.category_of_entry(entry))
    return entry.integer("category_id", minimum=1, maximum=len(classes) or 2**31) - 1


def _blank(video_id: int, entries: Sequence[Entry], classes: tuple[str, ...], truth: Matcher | None) -> VideoResult:
    """Return a result without tracks, from the metadata in the file, the ground truth, or the sizes of the masks."""
    for entry in entries:
        if entry.has("video"):
            return read_head(entry.entry("video"), classes)
    if truth is not None:
        video = truth.truth.video_by_id[video_id]
        return VideoResult(video.name, video.height, video.width, video.length, classes)
    name = next((e.text("video_name") for e in entries if e.has("video_name")), str(video_id))
    length = len(entries[0].sequence("segmentations"))
    for entry in entries:
        for i, rle in enumerate(entry.sequence("segmentations")):
            if rle is not None:
                mask = entry.mask(f"segmentations[{i}]", rle)
                return VideoResult(name, mask.height, mask.width, length, classes)
    raise entries[0].fail("segmentations", seen="null in every frame",
                          expected="at least one mask in the video, to determine its size",
                          hint="Pass ground_truth=, which states the sizes.")  # fmt: skip
