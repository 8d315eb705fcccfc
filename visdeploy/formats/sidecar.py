"""A JSON file beside formats that hold only pixels: names, labels, scores, timestamps."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from visdeploy.atomic import write_text
from visdeploy.formats.common import Entry, dump_json, read_head, read_json, read_track, track_head, video_head
from visdeploy.results import VideoResult

_KIND = "visdeploy tracks 1"


def write_sidecar(path: Path, result: VideoResult, objects: Mapping[int, int], masks: int, moved: int) -> None:
    """Write what pixels do not tell.

    Args:
        path: JSON file.
        result: The video.
        objects: Track id → number of the object in the pixel format.
        masks: How many masks were written.
        moved: Pixels that went from one mask to a better one.
    """
    tracks = [{"object": objects[t.track_id], **track_head(t)} for t in result.tracks]
    head = video_head(result)
    content = {
        "kind": _KIND,
        **head,
        "classes": list(result.classes),
        "masks": masks,
        "reassigned_pixels": moved,
        "tracks": tracks,
    }
    write_text(path, dump_json(content, str(path)))


def read_sidecar(path: Path) -> tuple[VideoResult, dict[int, int], int]:
    """Read it back.

    Returns:
        The video with its tracks but no masks; object number → position in its `tracks`; how many masks
        were written.
    """
    entry = Entry(read_json(path), path, "top level")
    if entry.text("kind") != _KIND:
        entry.fail("kind", entry.text("kind"), _KIND)
    classes = entry.list_of("classes", str)
    tracks = entry.entries("tracks")
    result = read_head(entry, classes, (read_track(t, classes) for t in tracks))
    objects = {t.integer("object", least=1): i for i, t in enumerate(tracks)}
    if len(objects) != len(tracks):
        entry.fail("tracks", "an object number twice", "one number per track")
    return result, objects, entry.integer("masks")


def safe_name(name: str) -> str:
    """A video name that can be a file name on any system."""
    cleaned = re.sub(r'[\\/:*?"<>|\x00-\x1f]+', "_", name).strip(" .")
    return cleaned or "video"
