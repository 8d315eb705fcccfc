"""Damage that the structure of a video file shows.

FFmpeg reports the end of a truncated file as the end of the video, and passes over parts that it cannot read. Most
containers state the lengths of their parts, so that both can be detected.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from visdeploy.video.integrity import gif, matroska, mp4, program, simple, transport
from visdeploy.video.integrity.structure import Ending, Structure

__all__ = ["Ending", "Structure", "examine"]

_READERS: dict[str, Callable[..., Structure]] = {
    "avi": simple.examine_riff,
    "flv": simple.examine_flv,
    "gif": gif.examine,
    "matroska": matroska.examine,
    "mp4": mp4.examine,
    "mpeg": program.examine,
    "mpegts": transport.examine,
}


def examine(path: Path, container: str, *, index: int, identity: int) -> Structure | None:
    """Return what the structure of a video file tells about its completeness; None for other containers.

    Args:
        path: The file.
        container: FFmpeg's name of its format, such as `mov,mp4,m4a`.
        index: Index of the video stream among the streams of the file.
        identity: FFmpeg's id of the video stream.
    """
    reader = next((_READERS[name] for name in container.split(",") if name in _READERS), None)
    if reader is None or not path.is_file():
        return None
    with path.open("rb") as file:
        return reader(file, path.stat().st_size, index=index, identity=identity)
