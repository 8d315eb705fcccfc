"""Conversion of a decoded frame to the graph input, exactly as during training."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from visdeploy.errors import SourceError
from visdeploy.manifest import Preprocessing


def fitted_size(height: int, width: int, *, shorter: int, longest: int) -> tuple[int, int]:
    """Return the size with a shorter edge of `shorter`, unless the longer one would exceed `longest`, as in STEm-Seg.

    Sides are rounded to the nearest whole number, halves to the even one.
    """
    scale = shorter / min(height, width)
    if max(height, width) * scale > longest:
        scale = longest / max(height, width)
    return max(1, round(height * scale)), max(1, round(width * scale))


class Preprocessor:
    """Resizes, reorders channels, normalises and pads frames as described in the manifest.

    Args:
        spec: Field `preprocessing` of the manifest.

    Example:
        >>> spec = Preprocessing(channel_order="rgb", mean=[0, 0, 0], std=[255, 255, 255], height=4, width=6)
        >>> Preprocessor(spec)(np.zeros((8, 12, 3), np.uint8)).shape
        (1, 3, 4, 6)
    """

    def __init__(self, spec: Preprocessing) -> None:
        self.spec = spec
        self._mean = np.array(spec.mean, dtype=np.float32)
        self._std = np.array(spec.std, dtype=np.float32)
        self._channels = (0, 1, 2) if spec.channel_order == "rgb" else (2, 1, 0)

    def content_size(self, height: int, width: int) -> tuple[int, int]:
        """Return the height and width to which a frame of this size is scaled, before padding."""
        if self.spec.resize == "exact":
            return self.spec.height, self.spec.width
        short, long = min(height, width), max(height, width)
        if self.spec.rounding == "half_even":
            return fitted_size(height, width, shorter=self.spec.height, longest=self.spec.width)
        # the scale is a fraction of integers, so that rounding down does not decrease a result that is an integer
        target, source = min((self.spec.height, short), (self.spec.width, long), key=lambda f: f[0] / f[1])
        extra = 0.5 if self.spec.rounding == "nearest" else 0.0
        return max(1, int(height * target / source + extra)), max(1, int(width * target / source + extra))

    def tensor_size(self, height: int, width: int) -> tuple[int, int]:
        """Return the height and width of the tensor of a frame of this size, including padding."""
        divisor = self.spec.pad_divisor
        rows, columns = self.content_size(height, width)
        return -(-rows // divisor) * divisor, -(-columns // divisor) * divisor

    def __call__(self, frame: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Convert one frame to a tensor.

        Args:
            frame: RGB pixels, uint8 `[h, w, 3]`; need not be contiguous.

        Returns:
            float32 `[1, 3, H, W]`, contiguous.

        Raises:
            SourceError: The frame has a wrong dtype or shape.
        """
        check_frame(frame)
        content = self._resize(frame, *self.content_size(*frame.shape[:2]))
        height, width = content.shape[:2]
        rows, columns = self.tensor_size(*frame.shape[:2])
        tensor = (np.empty if (rows, columns) == (height, width) else np.zeros)((1, 3, rows, columns), np.float32)
        for position, channel in enumerate(self._channels):
            plane = tensor[0, position, :height, :width]
            np.subtract(content[:, :, channel], self._mean[position], out=plane, dtype=np.float32)
            plane /= self._std[position]
        return tensor

    def _resize(self, frame: npt.NDArray[np.uint8], height: int, width: int) -> npt.NDArray[np.uint8 | np.float32]:
        """Resize with the library used by the authors of the network, because the results differ between libraries."""
        if frame.shape[:2] == (height, width):
            return frame
        if self.spec.interpolation != "pil_bilinear":
            import cv2

            pixels = frame if self.spec.interpolation == "opencv_bilinear" else frame.astype(np.float32)
            return np.asarray(cv2.resize(pixels, (width, height), interpolation=cv2.INTER_LINEAR), dtype=pixels.dtype)
        from PIL import Image

        image = Image.fromarray(np.ascontiguousarray(frame))
        return np.asarray(image.resize((width, height), Image.Resampling.BILINEAR))


def check_frame(frame: Any) -> None:
    """Raise an error unless a frame is an RGB image.

    Raises:
        SourceError: It is not an array, or has a wrong dtype or shape; the hint says how to convert it.
    """
    from visdeploy.video.arrays import check_image

    if not isinstance(frame, np.ndarray) or frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3:
        check_image(frame, 0)
    if 0 in frame.shape:
        raise SourceError("a frame is empty", seen=str(frame.shape), expected="(height, width, 3)")
