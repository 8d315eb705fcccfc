"""How frames become inputs: preprocessing and the window of a step."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from visdeploy.manifest.base import Strict


class Preprocessing(Strict):
    """From an RGB uint8 frame to the `frame` input: resize, order channels, `(x - mean) / std`, pad.

    Attributes:
        channel_order: Order of the channels in the tensor.
        mean: Per channel, in tensor order, on the 0..255 scale.
        std: Per channel, in tensor order, on the 0..255 scale.
        resize: `exact` scales straight to `height` x `width`; `shortest_edge` keeps the aspect ratio.
        rounding: How `shortest_edge` rounds the sides: to the `nearest` number, halves up, or `down`.
        interpolation: On uint8: `pil_bilinear` is Pillow's antialiased bilinear filter, `opencv_bilinear` is OpenCV's,
            which is not antialiased.
        height: Target height (`exact`) or target of the shorter edge (`shortest_edge`).
        width: Target width (`exact`) or largest longer edge (`shortest_edge`).
        pad_divisor: Zero padding at the right and bottom up to a multiple of this.
    """

    channel_order: Literal["rgb", "bgr"]
    mean: Annotated[list[float], Field(min_length=3, max_length=3)]
    std: Annotated[list[Annotated[float, Field(gt=0)]], Field(min_length=3, max_length=3)]
    resize: Literal["exact", "shortest_edge"] = "exact"
    rounding: Literal["nearest", "down"] = "nearest"
    interpolation: Literal["pil_bilinear", "opencv_bilinear"] = "pil_bilinear"
    height: Annotated[int, Field(ge=1)]
    width: Annotated[int, Field(ge=1)]
    pad_divisor: Annotated[int, Field(ge=1)] = 1


class Window(Strict):
    """How many frames one step takes: one (`online`), or clips of `length` frames every `stride` frames."""

    mode: Literal["online", "clip"]
    length: Annotated[int, Field(ge=1)] = 1
    stride: Annotated[int, Field(ge=1)] = 1

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
