"""COCO RLE JSON with videos: `images` are frames, `annotations` are masks with track ids.

In addition to the COCO lists, the file has `videos` (as in YouTube-VIS and CocoVID) and `tracks` with the score of each
track, so that reading the file restores the complete results. Category ids are labels plus one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from visdeploy.atomic import write_text
from visdeploy.formats.common import dump_json, read_head, shared_classes, sorted_tracks, track_head, video_head
from visdeploy.json_fields import MAX_SIDE, Entry, read_json
from visdeploy.results import Track, VideoResult


def save(results: Sequence[VideoResult], path: Path) -> None:
    """Write videos, frames, masks, tracks and categories to a JSON file."""
    write_text(path, to_text(results))


def to_text(results: Sequence[VideoResult]) -> str:
    """Return the text that `save` writes."""
    classes = shared_classes(results)
    most = max((t.label for r in results for t in r.tracks), default=-1)
    names = classes or tuple(f"class {i}" for i in range(most + 1))
    content: dict[str, Any] = {
        "info": {"description": "visdeploy results", "named_classes": bool(classes)},
        "videos": [],
        "images": [],
        "annotations": [],
        "tracks": [],
        "categories": [{"id": i + 1, "name": name} for i, name in enumerate(names)],
    }
    for video_id, result in enumerate(results, start=1):
        _add_video(content, result, video_id)
    return dump_json(content, "the results as COCO JSON")


def _add_video(content: dict[str, Any], result: VideoResult, video_id: int) -> None:
    head = video_head(result)
    length = head.pop("num_frames")
    content["videos"].append({"id": video_id, **head, "length": length})
    first_image = len(content["images"]) + 1
    for i in range(result.num_frames):
        content["images"].append({
            "id": first_image + i,
            "video_id": video_id,
            "frame_id": i,
            "file_name": f"{result.name}/{i:05d}",
            "height": result.height,
            "width": result.width,
        })  # fmt: skip
    for track in result.tracks:
        facts = track_head(track)
        category = facts.pop("label") + 1
        content["tracks"].append({"video_id": video_id, "category_id": category, **facts})
        for i, mask in sorted(track.masks.items()):
            x1, y1, x2, y2 = mask.box
            content["annotations"].append({
                "id": len(content["annotations"]) + 1,
                "image_id": first_image + i,
                "video_id": video_id,
                "track_id": facts["track_id"],
                "category_id": category,
                "score": facts["score"],
                "segmentation": mask.to_coco(),
                "area": mask.area,
                "bbox": [x1, y1, x2 - x1, y2 - y1],
                "iscrowd": 0,
            })  # fmt: skip


def load(path: Path) -> list[VideoResult]:
    """Read a file in this layout.

    Files from other tools need `track_id` (or `instance_id`) in each annotation. Without `videos`, all images form one
    video, in the order of `frame_id` or of the list. Without `tracks`, the score of a track is the mean over its
    annotations (1 if they have none), and its class is the most frequent one.
    """
    top = Entry.of(str(path), read_json(path))
    categories = sorted((e.integer("id"), e.text("name")) for e in top.entries("categories"))
    labels = {number: i for i, (number, _) in enumerate(categories)}
    info = top.get("info", None)
    named = not (isinstance(info, Mapping) and info.get("named_classes") is False)
    classes = tuple(name for _, name in categories) if named else ()
    images = list(top.entries("images"))
    videos = _read_videos(top, path.stem, images, classes)
    frames = _frame_of_image(images, videos)
    tracks: dict[int, dict[int, Track]] = {number: {} for number in videos}
    for entry in top.entries("tracks", ()):
        track = _read_track(entry, labels)
        _owner(entry, tracks)[track.track_id] = track
    votes: dict[tuple[int, int], list[tuple[float, int]]] = {}
    for entry in top.entries("annotations"):
        _add_annotation(entry, videos, frames, tracks, votes, labels)
    for (video_id, track_id), found in votes.items():
        tracks[video_id][track_id].score = float(np.mean([score for score, _ in found]))
        tracks[video_id][track_id].label = int(np.bincount([label for _, label in found]).argmax())
    return [replace(video, tracks=sorted_tracks(tracks[number].values())) for number, video in videos.items()]


def _read_videos(top: Entry, alone: str, images: Sequence[Entry], classes: tuple[str, ...]) -> dict[int, VideoResult]:
    """Return a map from video id to a result without tracks; without `videos`, one with id 0 and the name `alone`."""
    entries = list(top.entries("videos", ()))
    if not entries and images:
        first = images[0]
        size = {side: first.integer(side, minimum=1, maximum=MAX_SIDE) for side in ("height", "width")}
        return {0: VideoResult(alone, size["height"], size["width"], len(images), classes)}
    counts: dict[int, int] = {}
    for image in images:
        number = image.integer("video_id")
        counts[number] = counts.get(number, 0) + 1
    videos = {}
    for entry in entries:
        number = entry.integer("id")
        name, length = entry.text("name", str(number)), entry.integer("length", default=counts.get(number, 0))
        videos[number] = read_head(entry, classes, name=name, num_frames=length)
    return videos


def _frame_of_image(images: Sequence[Entry], videos: Mapping[int, VideoResult]) -> dict[int, tuple[int, int]]:
    """Return a map from image id to (video id, frame index)."""
    frames: dict[int, tuple[int, int]] = {}
    seen: dict[int, int] = {}
    for entry in images:
        video_id = (
            entry.integer("video_id", default=0) if 0 in videos and len(videos) == 1 else entry.integer("video_id")
        )
        if video_id not in videos:
            raise entry.fail("video_id", seen=video_id, expected="the id of a video of the file")
        index = entry.integer(
            "frame_id", default=seen.get(video_id, 0), maximum=max(0, videos[video_id].num_frames - 1)
        )
        seen[video_id] = seen.get(video_id, 0) + 1
        number = entry.integer("id")
        if number in frames:
            raise entry.fail("id", seen=f"{number} again", expected="one image per id")
        frames[number] = (video_id, index)
    return frames


def _owner(entry: Entry, tracks: dict[int, dict[int, Track]]) -> dict[int, Track]:
    video_id = entry.integer("video_id")
    if video_id not in tracks:
        raise entry.fail("video_id", seen=video_id, expected="the id of a video of the file")
    return tracks[video_id]


def _label(entry: Entry, labels: Mapping[int, int]) -> int:
    category = entry.integer("category_id")
    if category not in labels:
        raise entry.fail("category_id", seen=category, expected="the id of a category of the file")
    return labels[category]


def _read_track(entry: Entry, labels: Mapping[int, int]) -> Track:
    scores = entry.list_of("scores", float)
    return Track(entry.integer("track_id"), _label(entry, labels), entry.number("score"), {}, scores)


def _add_annotation(
    entry: Entry,
    videos: Mapping[int, VideoResult],
    frames: Mapping[int, tuple[int, int]],
    tracks: dict[int, dict[int, Track]],
    votes: dict[tuple[int, int], list[tuple[float, int]]],
    labels: Mapping[int, int],
) -> None:
    image = entry.integer("image_id")
    if image not in frames:
        raise entry.fail("image_id", seen=image, expected="the id of an image of the file")
    video_id, index = frames[image]
    track_id = entry.integer("instance_id" if entry.has("instance_id") and not entry.has("track_id") else "track_id")
    label = _label(entry, labels)
    known = tracks[video_id]
    if track_id not in known or (video_id, track_id) in votes:
        known.setdefault(track_id, Track(track_id, label, 1.0))
        votes.setdefault((video_id, track_id), []).append((entry.number("score", 1.0), label))
    if index in known[track_id].masks:
        raise entry.fail("track_id", seen=f"{track_id} again in frame {index}", expected="each track once per frame")
    size = videos[video_id].height, videos[video_id].width
    known[track_id].masks[index] = entry.mask("segmentation", entry.get("segmentation"), *size)
