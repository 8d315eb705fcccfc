"""Conversion of frames to inputs: preprocessing and the window of a step."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from visdeploy.json_fields import MAX_SIDE
from visdeploy.manifest.base import Strict


class Preprocessing(Strict):
    """Conversion of an RGB uint8 frame to the graph input: resize, reorder channels, `(x - mean) / std`, pad.

    Attributes:
        channel_order: Order of the channels in the tensor.
        mean: Mean of each channel, in tensor order, on the scale 0..255.
        std: Standard deviation of each channel, in tensor order, on the scale 0..255.
        resize: `exact` scales to `height` x `width`; `shortest_edge` keeps the aspect ratio.
        rounding: Rounding of the sides by `shortest_edge`: to the `nearest` integer (halves up), `down`, or
            `half_even`, which multiplies each side by the scale as a float and rounds as Python's `round`.
        interpolation: Filter: `pil_bilinear` is the bilinear filter of Pillow, which is antialiased; `opencv_bilinear`
            is that of OpenCV, which is not; both give uint8 pixels. `float_bilinear` is that of OpenCV on float32
            pixels, which are not rounded, as in PyTorch's `interpolate` of float frames.
        height: Target height (`exact`), or target length of the shorter edge (`shortest_edge`).
        width: Target width (`exact`), or maximum length of the longer edge (`shortest_edge`).
        pad_divisor: The right and bottom edges are padded with zeros to a multiple of this.
    """

    channel_order: Literal["rgb", "bgr"]
    mean: Annotated[list[float], Field(min_length=3, max_length=3)]
    std: Annotated[list[Annotated[float, Field(gt=0)]], Field(min_length=3, max_length=3)]
    resize: Literal["exact", "shortest_edge"] = "exact"
    rounding: Literal["nearest", "down", "half_even"] = "nearest"
    interpolation: Literal["pil_bilinear", "opencv_bilinear", "float_bilinear"] = "pil_bilinear"
    height: Annotated[int, Field(ge=1, le=MAX_SIDE)]
    width: Annotated[int, Field(ge=1, le=MAX_SIDE)]
    pad_divisor: Annotated[int, Field(ge=1, le=MAX_SIDE)] = 1

    def padded(self, side: int) -> int:
        """Return the length of a side with its padding."""
        return -(-side // self.pad_divisor) * self.pad_divisor


class Window(Strict):
    """Frames of one step: a single frame (`online`), or a clip of `length` frames every `stride` frames (`clip`).

    Attributes:
        mode: Kind of window.
        length: Frames of a clip.
        stride: Frames between the starts of two clips.
        short_video: Frames that fill the clip of a graph with a fixed number of frames if a video is shorter:
            `repeat_video` appends the video again from its start; `repeat_first_frame` puts copies of the first frame
            in front. A manifest states it only if it is not `repeat_video`.
    """

    mode: Literal["online", "clip"]
    length: Annotated[int, Field(ge=1, le=MAX_SIDE)] = 1
    stride: Annotated[int, Field(ge=1)] = 1
    short_video: Literal["repeat_video", "repeat_first_frame"] = "repeat_video"

    @model_serializer(mode="wrap")
    def _without_default(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # versions of this schema without the field can then read all bundles that do not need it
        written: dict[str, Any] = handler(self)
        if self.short_video == "repeat_video":
            del written["short_video"]
        return written

    @model_validator(mode="after")
    def _online_is_one_frame(self) -> Window:
        if self.mode == "online" and (self.length, self.stride) != (1, 1):
            raise ValueError("an online window has length 1 and stride 1")
        if self.stride > self.length:
            raise ValueError("stride must not exceed length: frames would be skipped")
        return self

    @property
    def overlap(self) -> int:
        """Frames that two consecutive clips share."""
        return self.length - self.stride
