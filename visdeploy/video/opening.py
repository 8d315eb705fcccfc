"""Selection of the source class for a path, URL, camera index, array or iterable."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlparse

from visdeploy.arguments import check_number, check_options, check_path, check_type
from visdeploy.brief import shorten
from visdeploy.errors import ConfigError, SourceError
from visdeploy.video.arrays import ArraySource, Channels, check_channels
from visdeploy.video.camera import CameraSource
from visdeploy.video.files import VideoSource, is_url
from visdeploy.video.images import SUFFIXES, ImageSource, list_folder, natural_order, report_left_out
from visdeploy.video.source import OnError, Source

_LONGEST_TIMEOUT = 1e6
_KINDS = "a video file, a folder of images, a glob, a URL, a camera index, an array or an iterable of RGB arrays"


def open_with(source: Any, options: Mapping[str, Any]) -> Source:
    """Open a source with options that a caller passes on, see `open_source`.

    Raises:
        ConfigError: An option is unknown or out of range.
        SourceError: See `open_source`.
    """
    check_options(options, open_source, "a source")
    return open_source(source, **options)


def open_source(
    source: Any,
    *,
    max_frames: int | None = None,
    start: int = 0,
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
        start: Position of the first frame to deliver, from 0, in frames of the source. Earlier frames are read, but not
            delivered; timestamps and positions are those of the whole source.
        step: Deliver every `step`-th frame from there on.
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
    limits: dict[str, Any] = {"max_frames": max_frames, "start": start, "step": step, "on_error": on_error}
    if name is not None:
        check_type(name, str, "name of a source")
    if isinstance(source, Source):
        if max_frames is not None or name is not None or not (_is(start, 0) and _is(step, 1)):
            raise ConfigError(
                "an open source cannot be limited",
                expected="no max_frames, start, step or name",
                hint="Pass these options to the open_source(...) that opens it.",
            )
        return source
    fps = check_number(fps, "fps of a source", minimum=0)
    timeout = check_number(timeout, "timeout of a source", minimum=0, maximum=_LONGEST_TIMEOUT)
    _check_options(options)
    if isinstance(source, int) and not isinstance(source, bool):
        return CameraSource(source, name=name, **limits)
    if isinstance(source, str | os.PathLike):
        return _open_path(os.fspath(source), name, fps, limits, {"timeout": timeout, "options": options})
    if _are_paths(source):
        files = [check_path(s, "an image of a list", error=SourceError) for s in source]
        return ImageSource(files, name=name or files[0].parent.name or "images", path=None, fps=fps, **limits)
    if isinstance(source, Iterable) and not isinstance(source, bytes | bytearray | memoryview | dict):
        return ArraySource(source, name=name or "frames", fps=fps, channels=channels, **limits)
    raise SourceError("cannot read frames from this object", seen=type(source).__name__, expected=_KINDS)


def _is(value: Any, number: int) -> bool:
    return isinstance(value, int) and value == number


def _check_options(options: Any) -> None:
    if options is not None and not (
        isinstance(options, dict) and all(isinstance(word, str) for pair in options.items() for word in pair)
    ):
        raise ConfigError("options of a source", seen=shorten(options), expected="a dict of str for FFmpeg, or None")


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


def _open_path(text: Any, name: str | None, fps: float, limits: dict[str, Any], reading: dict[str, Any]) -> Source:
    text = _without_scheme(text)
    if isinstance(text, str) and is_url(text):
        return VideoSource(text, name=name, **reading, **limits)
    path = check_path(text, "cannot open a source", error=SourceError)
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
        return tuple(Path(each) for each in source if _is_text(each))
    if not _is_text(source):
        return ()
    text = _without_scheme(os.fspath(source))
    if is_url(text):
        return ()
    path = check_path(text, "cannot open a source", error=SourceError)
    if path.is_dir():
        return (path, *list_folder(path))
    if path.exists() or not glob.has_magic(text):
        return (path,)
    return tuple(Path(each) for each in glob.glob(text, recursive=True))


def _is_text(source: Any) -> bool:
    return isinstance(source, str | os.PathLike) and isinstance(os.fspath(source), str)


def is_live(source: Any) -> bool:
    """Return whether a source is a URL or a camera, which should not be opened before its frames can be taken."""
    if not _is_text(source):
        return isinstance(source, int) and not isinstance(source, bool)
    text = _without_scheme(os.fspath(source))
    return is_url(text) or (text.isdecimal() and not Path(text).exists())


def is_repeatable(source: Any) -> bool:
    """Return whether a source can be read again from its start: files, and videos behind http; no cameras."""
    return not is_live(source) or (isinstance(source, str) and source.lower().startswith(("http:", "https:")))


def _without_scheme(text: Any) -> Any:
    if not isinstance(text, str) or not text.lower().startswith("file://"):
        return text
    try:
        return unquote(urlparse(text).path)
    except ValueError as error:
        raise SourceError("cannot open a source", seen=f"{shorten(text)}: {error}", expected="file:///PATH") from error


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
