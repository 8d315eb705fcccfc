"""Conversion of decoded PyAV frames to upright 8-bit RGB."""

from __future__ import annotations

import logging
import struct
from typing import TYPE_CHECKING, Any

import numpy as np

from visdeploy.video.hdr import TRANSFERS, tone_map
from visdeploy.video.source import Image

if TYPE_CHECKING:
    import av

logger = logging.getLogger(__name__)

_IDENTITY = (1, 0, 0, 1)
_FULL_RANGE = 2  # AVCOL_RANGE_JPEG
_LIMITED_RANGE = 1  # AVCOL_RANGE_MPEG
_BT709 = 1  # AVCOL_PRI_BT709


class RgbConverter:
    """Converter of decoded frames to RGB arrays in display orientation.

    Any pixel format and bit depth becomes 8-bit RGB, with the matrix (BT.601, 709, 2020) and range that the stream
    declares. Without a declaration, BT.601 with limited range is used, as in FFmpeg. HDR is tone-mapped, see
    `visdeploy.video.hdr`. The display matrix (rotation by a multiple of 90 degrees, mirroring) is applied. One scaler
    is used for the whole video.

    Attributes:
        turn: Signs of the display matrix of the last frame; None if its rotation is not a multiple of 90 degrees, and
            it was therefore not applied.
    """

    def __init__(self, name: str = "video") -> None:
        from av.video.reformatter import Interpolation, VideoReformatter

        self._scaler, self._name = VideoReformatter(), name
        self._angle: int | None = None
        self._warned: str | None = None
        self.turn: tuple[int, int, int, int] | None = _IDENTITY
        self._flags = int(
            Interpolation.BICUBIC
            | Interpolation.FULL_CHR_H_INT
            | Interpolation.FULL_CHR_H_INP
            | Interpolation.ACCURATE_RND
        )

    def __call__(self, frame: av.VideoFrame) -> Image:
        """Return the RGB pixels of a frame, uint8, `(height, width, 3)`, upright and contiguous."""
        transfer = TRANSFERS.get(frame.color_trc)
        if transfer is not None and transfer != self._warned:
            self._warned = transfer
            logger.warning("%s: HDR (%s) is tone-mapped to SDR", self._name, transfer)
        full = frame.color_range == _FULL_RANGE or frame.format.name.startswith("yuvj")
        rgb = self._scaler.reformat(
            frame,
            format="rgb24" if transfer is None else "rgb48le",
            interpolation=self._flags,
            src_color_range=_FULL_RANGE if full else _LIMITED_RANGE,
            dst_color_range=_FULL_RANGE,
            threads=1,
        )
        pixels: Any = rgb.to_ndarray()
        if transfer is not None:
            pixels = tone_map(pixels, transfer, wide=frame.color_primaries != _BT709)
        # Reading the side data creates a reference cycle that keeps the frame until the garbage collector runs.
        # Therefore the matrix is read only if the angle, which is cheap to read, has changed.
        if frame.rotation != self._angle:
            self._angle, self.turn = frame.rotation, quarter_turn(frame)
            if self.turn is None:
                logger.warning(
                    "%s: the rotation is not applied, because it is not a multiple of 90 degrees", self._name
                )
        return orient(pixels, self.turn)


def quarter_turn(frame: av.VideoFrame) -> tuple[int, int, int, int] | None:
    """Return the signs `(a, b, c, d)` of the frame's display matrix; None if it rotates by other than 90 degree steps.

    The matrix maps a stored pixel `(x, y)` to `(a x + c y, b x + d y)` on the screen.
    """
    data: Any = frame.side_data.get("DISPLAYMATRIX")
    if data is None:
        return _IDENTITY
    cells = struct.unpack("=9i", bytes(data)[:36])
    largest = max(abs(cells[i]) for i in (0, 1, 3, 4)) or 1
    a, b, c, d = (round(cells[i] / largest) for i in (0, 1, 3, 4))
    aligned = all(abs(cells[i] / largest - v) < 1e-3 for i, v in zip((0, 1, 3, 4), (a, b, c, d), strict=True))
    return (a, b, c, d) if aligned and abs(a * d - b * c) == 1 else None


def orient(image: Image, turn: tuple[int, int, int, int] | None) -> Image:
    """Apply the signs of a display matrix to `(height, width, 3)` pixels; None leaves them unchanged."""
    if turn is None or turn == _IDENTITY:
        return image
    a, b, c, d = turn
    if a == 0:
        image, flip_x, flip_y = image.transpose(1, 0, 2), c < 0, b < 0
    else:
        flip_x, flip_y = a < 0, d < 0
    image = image[:, ::-1] if flip_x else image
    return np.ascontiguousarray(image[::-1] if flip_y else image)
