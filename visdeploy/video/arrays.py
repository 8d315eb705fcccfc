"""Frames from arrays in memory: one array of all frames, or an iterable of frames."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sized
from functools import partial
from typing import Any, Literal, cast, get_args

import numpy as np

from visdeploy.brief import shorten
from visdeploy.errors import ConfigError, SourceError
from visdeploy.video.source import Frame, Image, OnError, RawFrame, Source

Channels = Literal["rgb", "bgr"]


class ArraySource(Source):
    """Source of arrays, or of `Frame`s with timestamps, from any iterable. A generator can be read only once."""

    def __init__(
        self,
        frames: Iterable[Any],
        *,
        name: str = "frames",
        max_frames: int | None = None,
        start: int = 0,
        step: int = 1,
        on_error: OnError = "raise",
        fps: float = 0.0,
        channels: Channels = "rgb",
    ) -> None:
        super().__init__(name, None, max_frames=max_frames, start=start, step=step, on_error=on_error)
        if isinstance(frames, np.ndarray) and frames.ndim != 4:
            raise SourceError(
                "an array as source has the wrong shape",
                seen=str(frames.shape),
                expected="(frames, height, width, 3)",
                hint="Pass image[None] for a single image." if frames.ndim == 3 else "",
            )
        self._items, self._channels = frames, check_channels(channels)
        self.fps = fps / step
        if isinstance(frames, Sized):
            self.expected_frames = self.estimated_frames = self._limit(len(frames))

    def _read(self) -> Iterator[RawFrame]:
        for number, item in enumerate(self._items):
            stamp, image = (item.timestamp, item.image) if isinstance(item, Frame) else (None, item)
            yield stamp, partial(self._image, image, number)

    def _image(self, image: Any, number: int) -> Image:
        return to_rgb(check_image(image, number), self._channels)


def check_channels(channels: str) -> Channels:
    """Return the order of the channels; raise a `ConfigError` if it is unknown."""
    if not isinstance(channels, str) or channels not in get_args(Channels):
        raise ConfigError("channels of a frame", seen=shorten(channels), expected=" or ".join(get_args(Channels)))
    return cast(Channels, channels)


def to_rgb(image: Image, channels: Channels) -> Image:
    """Return the RGB pixels of an image with this order of the channels.

    Raises:
        ConfigError: The order is unknown.
    """
    return image if check_channels(channels) == "rgb" else np.ascontiguousarray(image[:, :, ::-1])


def check_image(image: Any, number: int) -> Image:
    """Return `image` if it is an RGB array, uint8, `(height, width, 3)`.

    Raises:
        SourceError: It is anything else; the hint tells how to convert it.
    """
    if not isinstance(image, np.ndarray):
        raise SourceError(
            f"frame {number} is not an array",
            seen=type(image).__name__,
            expected="numpy.ndarray, uint8, (height, width, 3)",
            hint="Convert it with numpy.asarray(...) first.",
        )
    if image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
        raise SourceError(
            f"frame {number} has the wrong shape",
            seen=str(image.shape),
            expected="(height, width, 3)",
            hint=_shape_hint(image),
        )
    if image.dtype != np.uint8:
        scale = "(frame * 255).round().astype('uint8') for values in 0..1"
        raise SourceError(
            f"frame {number} has the wrong type",
            seen=str(image.dtype),
            expected="uint8, 0..255",
            hint=f"Convert it: {scale if image.dtype.kind == 'f' else 'scale to 0..255 and call astype(uint8)'}.",
        )
    return image


def _shape_hint(image: np.ndarray[Any, Any]) -> str:
    if image.ndim == 2 or (image.ndim == 3 and image.shape[2] == 1):
        return "Repeat the grey channel three times: numpy.repeat(frame.reshape(h, w, 1), 3, axis=2)."
    if image.ndim == 3 and image.shape[0] == 3:
        return "Channels go last: frame.transpose(1, 2, 0)."
    if image.ndim == 3 and image.shape[2] == 4:
        return "Drop the alpha channel: frame[:, :, :3]."
    return ""
