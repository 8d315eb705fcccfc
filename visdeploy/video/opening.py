"""Selection of the source class for a path, URL, camera index, array or iterable."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlparse

from visdeploy.errors import ConfigError, SourceError
from visdeploy.video.arrays import ArraySource, Channels, check_channels
from visdeploy.video.camera import CameraSource
from visdeploy.video.files import VideoSource, is_url
from visdeploy.video.images import SUFFIXES, ImageSource, list_folder, natural_order, report_left_out
from visdeploy.video.source import OnError, Source

_KINDS = "a video file, a folder of images, a glob, a URL, a camera index, an array or an iterable of RGB arrays"


def open_source(
    source: Any,
    *,
    max_frames: int | None = None,
    step: int = 1,
    name: str | None = None,
    fps: float = 0.0,
    on_error: OnError = "raise",
    timeout: float = 10.0,
    options: dict[str, str] | None = None,
    channels: Channels = "rgb",
) -> Source:
    """Open a source of frames. The first frame of a video is decoded at once, so that its size is known.

    Args:
        source: A video file, a folder of images or a glob (both in natural order), an image file, a URL (http, rtsp,
            ...), a camera index, an array `(frames, height, width, 3)`, a list of image paths, or any iterable of
            arrays (uint8, `(height, width, 3)`) or `Frame`s. An open `Source` is returned unchanged.
        max_frames: Maximum number of frames to deliver.
        step: Deliver every `step`-th frame.
        name: Name for the results; the file stem or folder name by default.
        fps: Frame rate of images and arrays, from which their timestamps are computed.
        on_error: Response to missing frames and damaged files: `raise` a `SourceError`, `stop` at the first damage
            with a logged warning, or `skip` it with a logged warning and continue. Frames in which the decoder
            concealed damage are delivered with a warning. `Source.verdict` tells afterwards what was found.
        timeout: Seconds to wait for a URL to open and for each read from it.
        options: FFmpeg options for files and URLs, such as `{"rtsp_transport": "udp"}`.
        channels: Order of the channels of arrays, `rgb` or `bgr` (OpenCV). All other sources are read as RGB.

    Returns:
        The source; iterate it, or use it as a context manager.

    Raises:
        SourceError: The source is missing, empty, not a video, or of an unknown kind.
        ConfigError: An option is out of range.
    """
    _check_order(source, channels)
    limits: dict[str, Any] = {"max_frames": max_frames, "step": step, "on_error": on_error}
    if isinstance(source, Source):
        return source
    if isinstance(source, int) and not isinstance(source, bool):
        return CameraSource(source, name=name, **limits)
    if isinstance(source, str | os.PathLike):
        return _open_path(os.fspath(source), name, fps, limits, {"timeout": timeout, "options": options})
    if _are_paths(source):
        files = [Path(s) for s in source]
        return ImageSource(files, name=name or files[0].parent.name or "images", path=None, fps=fps, **limits)
    if isinstance(source, Iterable) and not isinstance(source, bytes | dict):
        return ArraySource(source, name=name or "frames", fps=fps, channels=channels, **limits)
    raise SourceError("cannot read frames from this object", seen=type(source).__name__, expected=_KINDS)


def _are_paths(source: Any) -> bool:
    return isinstance(source, list | tuple) and bool(source) and all(isinstance(s, str | os.PathLike) for s in source)


def _check_order(source: Any, channels: str) -> None:
    files = isinstance(source, Source | int | str | os.PathLike) or _are_paths(source)
    if check_channels(channels) != "rgb" and files:
        raise ConfigError(
            "channels of a source",
            seen=f"{channels} for {type(source).__name__}",
            expected="bgr for arrays alone",
            hint="Files, URLs and cameras are always read as RGB.",
        )


def _open_path(text: str, name: str | None, fps: float, limits: dict[str, Any], reading: dict[str, Any]) -> Source:
    text = _without_scheme(text)
    if is_url(text):
        return VideoSource(text, name=name, **reading, **limits)
    path = Path(text)
    if path.is_dir():
        files = list_folder(path)
        if not files:
            raise SourceError(
                f"folder {path} contains no images",
                seen=f"{sum(1 for _ in path.iterdir())} other files",
                expected=f"files ending in {', '.join(sorted(SUFFIXES))}",
            )
        report_left_out(path, len(files))
        return ImageSource(files, name=name or path.resolve().name, path=text, fps=fps, **limits)
    if not path.exists():
        if text.isdecimal():
            return CameraSource(int(text), name=name, **limits)
        if glob.has_magic(text):
            return _open_glob(text, name, fps, limits)
    if path.suffix.lower() in SUFFIXES and path.is_file():
        return ImageSource([path], name=name or path.stem, path=text, fps=fps, **limits)
    return VideoSource(path, name=name, **reading, **limits)


def local_files(source: Any) -> tuple[Path, ...]:
    """Return the existing files and folders that a source would read; none for URLs, cameras and arrays.

    Args:
        source: See `open_source`.
    """
    if isinstance(source, Source):
        return source.files
    if isinstance(source, list | tuple):
        return tuple(Path(each) for each in source if isinstance(each, str | os.PathLike))
    if not isinstance(source, str | os.PathLike):
        return ()
    text = _without_scheme(os.fspath(source))
    path = Path(text)
    if is_url(text):
        return ()
    if path.is_dir():
        return (path, *list_folder(path))
    if path.exists() or not glob.has_magic(text):
        return (path,)
    return tuple(Path(each) for each in glob.glob(text, recursive=True))


def is_live(source: Any) -> bool:
    """Return whether a source is a URL or a camera, which should not be opened before its frames can be taken."""
    if not isinstance(source, str | os.PathLike):
        return isinstance(source, int)
    text = _without_scheme(os.fspath(source))
    return is_url(text) or (text.isdecimal() and not Path(text).exists())


def _without_scheme(text: str) -> str:
    return unquote(urlparse(text).path) if text.lower().startswith("file://") else text


def _open_glob(pattern: str, name: str | None, fps: float, limits: dict[str, Any]) -> Source:
    found = [Path(f) for f in glob.glob(pattern, recursive=True)]
    files = natural_order(f for f in found if f.suffix.lower() in SUFFIXES and f.is_file())
    if not files:
        raise SourceError(
            f"no image matches {pattern}",
            seen=f"{len(found)} other files" if found else "nothing",
            expected=f"files ending in {', '.join(sorted(SUFFIXES))}",
            hint="A glob selects the frames of one video; open several videos one by one.",
        )
    parent = Path(pattern).parent.name
    return ImageSource(files, name=name or (parent if parent and not glob.has_magic(parent) else "images"),
                       path=pattern, fps=fps, **limits)  # fmt: skip
