"""JSON file with names, labels, scores and timestamps, for formats that store only pixels."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from visdeploy.atomic import write_text
from visdeploy.errors import DataError
from visdeploy.formats.common import dump_json, read_head, read_track, track_head, video_head
from visdeploy.json_fields import Entry, read_json
from visdeploy.results import VideoResult

logger = logging.getLogger(__name__)

_KIND = "visdeploy tracks 1"


def write_sidecar(path: Path, result: VideoResult, objects: Mapping[int, int], masks: int, moved: int) -> None:
    """Write the metadata that pixels cannot store, and log how many pixels were reassigned.

    Args:
        path: JSON file.
        result: Result of the video.
        objects: Map from track id to the number of the object in the pixel format.
        masks: Number of masks written.
        moved: Number of pixels reassigned from one mask to another with a higher score.
    """
    if moved:
        logger.warning("%s: %d pixels of overlapping masks were assigned to the higher score", result.name, moved)
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
    """Read a file written by `write_sidecar`.

    Returns:
        The result with its tracks but without masks; a map from object number to position in its `tracks`; and the
        number of masks written.
    """
    entry = Entry.of(str(path), read_json(path))
    if entry.text("kind") != _KIND:
        raise entry.fail("kind", seen=entry.text("kind"), expected=_KIND)
    classes = entry.list_of("classes", str)
    tracks = list(entry.entries("tracks"))
    result = read_head(entry, classes, (read_track(t, classes) for t in tracks))
    objects = {t.integer("object", minimum=1): i for i, t in enumerate(tracks)}
    if len(objects) != len(tracks):
        raise entry.fail("tracks", seen="a repeated object number", expected="one number per track")
    return result, objects, entry.integer("masks")


def paths_by_name(results: Sequence[VideoResult], folder: Path, *, suffix: str = "") -> list[Path]:
    """Return a path in `folder` for each video, named after the video.

    Raises:
        DataError: Two videos get the same path, because some characters are not allowed in file names.
    """
    paths = [folder / f"{safe_name(r.name)}{suffix}" for r in results]
    if len(set(paths)) != len(paths):
        kind = "file" if suffix else "folder"
        raise DataError(f"two videos would share a {kind} in {folder}", seen=", ".join(r.name for r in results))
    return paths


def safe_name(name: str) -> str:
    """Return the video name with all characters replaced that are not allowed in file names on some system."""
    cleaned = re.sub(r'[\\/:*?"<>|\x00-\x1f]+', "_", name).strip(" .")
    return cleaned or "video"
