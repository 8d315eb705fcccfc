"""JSON file with names, labels, scores and timestamps, for formats that store only pixels."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from visdeploy.errors import DataError
from visdeploy.formats.common import dump_json, read_head, read_track, track_head, video_head
from visdeploy.json_fields import Entry, read_json
from visdeploy.results import VideoResult

logger = logging.getLogger(__name__)

_KIND = "visdeploy tracks 1"


def sidecar_text(
    result: VideoResult,
    objects: Mapping[int, int],
    masks: int,
    moved: int,
    *,
    digest: str | None = None,
    first_frame: int = 0,
) -> str:
    """Return the metadata that pixels cannot store as JSON text, and log how many pixels were reassigned.

    Args:
        result: Result of the video.
        objects: Map from track id to the number of the object in the pixel format.
        masks: Number of masks written.
        moved: Number of pixels reassigned from one mask to another with a higher score.
        digest: Checksum of the masks, which ties the metadata to them.
        first_frame: Number of the first frame in the pixel format.
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
    if digest is not None:
        content["masks_sha256"] = digest
    if first_frame:
        content["first_frame"] = first_frame
    return dump_json(content, f"the metadata of {result.name!r}")


@dataclass(frozen=True, slots=True)
class Sidecar:
    """Content of a sidecar file.

    Attributes:
        result: Result with its tracks but without masks.
        objects: Map from object number to position in the tracks of `result`.
        masks: Number of masks written.
        digest: Checksum of the masks; None in files of earlier versions.
        first_frame: Number of the first frame in the pixel format.
    """

    result: VideoResult
    objects: dict[int, int]
    masks: int
    digest: str | None
    first_frame: int = 0


def read_sidecar(path: Path) -> Sidecar:
    """Read a file with the text of `sidecar_text`."""
    entry = Entry.of(str(path), read_json(path))
    if entry.text("kind") != _KIND:
        raise entry.fail("kind", seen=entry.text("kind"), expected=_KIND)
    classes = entry.list_of("classes", str)
    tracks = list(entry.entries("tracks"))
    result = read_head(entry, classes, (read_track(t, classes) for t in tracks))
    objects = {t.integer("object", minimum=1): i for i, t in enumerate(tracks)}
    if len(objects) != len(tracks):
        raise entry.fail("tracks", seen="a repeated object number", expected="one number per track")
    first = entry.integer("first_frame", maximum=1, default=0)
    return Sidecar(result, objects, entry.integer("masks"), entry.text("masks_sha256", None), first)


def paths_by_name(names: Sequence[str], folder: Path, *, suffix: str = "") -> list[Path]:
    """Return a path in `folder` for each video name.

    Raises:
        DataError: Two videos get the same path, because some characters are not allowed in file names.
    """
    paths = [folder / f"{safe_name(name)}{suffix}" for name in names]
    if len(set(paths)) != len(paths):
        kind = "file" if suffix else "folder"
        raise DataError(f"two videos would share a {kind} in {folder}", seen=", ".join(names))
    return paths


def safe_name(name: str) -> str:
    """Return the video name with all characters replaced that are not allowed in file names on some system."""
    cleaned = re.sub(r'[\\/:*?"<>|\x00-\x1f]+', "_", name).strip(" .")
    return cleaned or "video"
