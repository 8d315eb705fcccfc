"""Saved streams in several files, so that saving a long stream again and again writes every result once.

`stream.npz` contains the state, `results-N.npz` the collected results from index N to the next file. The results are
written first; those of a later file than the state are ignored when the stream is continued.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import takewhile
from pathlib import Path

from visdeploy.errors import StreamError
from visdeploy.masks import Mask
from visdeploy.streaming.saved import SavedStream, read_part, write_part

STATE = "stream.npz"


def save_parts(saved: SavedStream, folder: Path, first: int) -> int:
    """Write the state of a stream, and its results from an index on.

    Args:
        saved: The stream.
        folder: Existing folder.
        first: Number of results that the folder contains.

    Returns:
        Number of results that the folder contains now.

    Raises:
        StreamError: The stream collects no results, or a file cannot be written.
    """
    if saved.masks is None:
        raise StreamError("cannot save the stream in parts", seen="no collected results", expected="collect=True")
    if saved.num_results > first:
        new = {track: _since(frames, first) for track, frames in saved.masks.items()}
        write_part(_part(folder, first), new, saved.timestamps[first:], first)
    replace(saved, masks=None, timestamps=[]).write(folder / STATE)
    return saved.num_results


def load_parts(folder: Path, *, bundle: str) -> SavedStream:
    """Read the files of `save_parts`.

    Args:
        folder: The folder.
        bundle: Identity of the bundle that is to continue the stream.

    Raises:
        StreamError: A file is missing or damaged, or was saved with another bundle.
    """
    saved = SavedStream.read(folder / STATE, bundle=bundle)
    masks: dict[int, dict[int, Mask]] = {}
    stamps: list[float] = []
    while len(stamps) < saved.num_results:
        path = _part(folder, len(stamps))
        found, times = read_part(path, saved.size, len(stamps))
        if not times or len(stamps) + len(times) > saved.num_results:
            raise StreamError(f"{path} does not belong to {folder / STATE}", seen=f"{len(times)} results")
        for track, frames in found.items():
            masks.setdefault(track, {}).update(frames)
        stamps += times
    return replace(saved, masks=masks, timestamps=stamps)


def _part(folder: Path, first: int) -> Path:
    return folder / f"results-{first:09d}.npz"


def _since(frames: dict[int, Mask], first: int) -> dict[int, Mask]:
    """Return the masks from a frame on; the frames are in ascending order."""
    found = list(takewhile(lambda frame: frame >= first, reversed(frames)))
    return {frame: frames[frame] for frame in reversed(found)}
