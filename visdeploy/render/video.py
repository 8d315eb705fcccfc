"""Rendering of results over their source video, as H.264."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import ExitStack, closing
from itertools import pairwise
from pathlib import Path
from typing import Any

from visdeploy.arguments import check_number, check_path, check_type
from visdeploy.brief import shorten
from visdeploy.errors import ConfigError, DataError
from visdeploy.outputs import Output, check_inputs_kept
from visdeploy.render.draw import Style, draw_styled
from visdeploy.results import VideoResult
from visdeploy.video import Frame, Source, VideoWriter, is_repeatable, local_files, open_source

_FPS = 25.0  # frame rate of videos rendered from images without one
_TOLERANCE = 1e-4  # seconds; far below any frame period, far above the rounding of timestamps in files


def render_video(
    result: VideoResult,
    path: str | Path,
    *,
    source: Any = None,
    fps: float | None = None,
    quality: int = 20,
    progress: Callable[[int], None] | None = None,
    **style: Any,
) -> Path:
    """Draw all tracks over the source and write an `.mp4`, `.mov` or `.mkv`.

    The source is read again. If the result has the positions of its frames in the source, because frames were left out,
    these select the frames. Otherwise frames are matched by timestamp if both have timestamps, else by order. The
    timestamps are kept, so that a video with a variable frame rate stays one.

    Args:
        result: Tracks of the video.
        path: Video file to write; it appears complete or not at all.
        source: Source from which the result was computed, or its processed frames alone, see `open_source`; by default
            that of the result.
        fps: Frame rate; by default that of the result, or 25 if the result has none.
        quality: See `VideoWriter`.
        progress: Called with the number of frames written so far.
        **style: See `Style`.

    Returns:
        Path of the video file.

    Raises:
        DataError: There is no source, or it does not match the result.
        SourceError: The source cannot be read.
        ConfigError: The style, the ending or the frame rate is not supported.
        OutputError: The file cannot be written, or is the source.
    """
    look, path = Style.of(style), check_path(path, "path of a video")
    check_type(result, VideoResult, "the result to render", expected="a VideoResult")
    if progress is not None and not callable(progress):
        raise ConfigError("progress of a rendering", seen=shorten(progress), expected="a function, or None")
    if fps is not None:
        fps = check_number(fps, "fps of a rendered video", minimum=1 / 1001, maximum=1e6)
    source = (result.address or result.source) if source is None else source
    if source is None:
        raise DataError(f"the result of {result.name!r} does not name its source",
                        hint="Pass source= with the video, folder or frames it was computed from.")  # fmt: skip
    if not is_repeatable(source):
        raise DataError(f"cannot read the frames of {result.name!r} again", seen="a live source",
                        hint="Record the source to a file first, or pass its recording as source=.")  # fmt: skip
    if result.num_frames == 0:
        raise DataError(f"the result of {result.name!r} has no frames to render")
    check_inputs_kept([Output(path)], local_files(source))
    stamped = _rising(result) and fps is None
    rate = fps or result.fps or _FPS
    with ExitStack() as stack:
        opened = stack.enter_context(open_source(source, on_error="skip"))
        frames = stack.enter_context(closing(_matching(result, opened)))
        writer = stack.enter_context(
            VideoWriter(path, result.width, result.height, rate, quality=quality, pixel_aspect=opened.pixel_aspect)
        )
        for index, frame in enumerate(frames):
            image = draw_styled(frame.image, result.frame(index), look)
            writer.write(image, result.timestamps[index] if stamped else None)
            if progress is not None:
                progress(index + 1)
        if writer.frames_written < result.num_frames:
            raise DataError(
                f"the source of {result.name!r} is shorter than its result",
                seen=f"{writer.frames_written} matching frames",
                expected=f"{result.num_frames}",
                hint="Pass source= with the video from which the result was computed.",
            )
    return path


def _rising(result: VideoResult) -> bool:
    stamps = result.timestamps
    return len(stamps) == result.num_frames and all(b > a for a, b in pairwise(stamps))


def _matching(result: VideoResult, source: Source) -> Generator[Frame, None, None]:
    """Yield the frames of the source that belong to the result, in order."""
    wanted, belongs = 0, _selector(result, source)
    for frame in source:
        if not belongs(frame, wanted):
            continue
        if frame.image.shape[:2] != (result.height, result.width):
            raise DataError(
                f"the source does not match the result of {result.name!r}",
                seen=f"frames of {frame.image.shape[0]}x{frame.image.shape[1]}",
                expected=f"{result.height}x{result.width}",
            )
        yield frame
        wanted += 1
        if wanted == result.num_frames:
            return


def _selector(result: VideoResult, source: Source) -> Callable[[Frame, int], bool]:
    """Return a function that decides whether a frame of the source is a given frame of the result."""
    result.check_positions()
    # too few for the positions; if the source itself leaves frames out, it gives their positions
    processed_alone = source.expected_frames == result.num_frames and source.start == 0 and source.step == 1
    if result.positions and processed_alone and source.kind in ("video", "url"):  # the count of a header may be wrong
        processed_alone = sum(1 for _ in source) == result.num_frames
    if result.positions and not processed_alone:
        return lambda frame, wanted: frame.position is None or frame.position == result.positions[wanted]
    if result.positions or not (_rising(result) and result.num_frames > 1):
        return lambda frame, wanted: True
    last = -1.0

    def by_time(frame: Frame, wanted: int) -> bool:
        nonlocal last
        timed, last = frame.timestamp > last, frame.timestamp
        return not timed or frame.timestamp >= result.timestamps[wanted] - _TOLERANCE

    return by_time
