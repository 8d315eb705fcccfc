"""Reading of images as tensors."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from visdeploy.errors import DataError


def read_image(path: Path, height: int, width: int, *, shrink: bool = False) -> Tensor:
    """Read an image file as RGB uint8 `[3, height, width]`.

    Args:
        path: The file.
        height: Rows in the annotations.
        width: Columns in the annotations.
        shrink: Scale a larger image down, with bilinear interpolation and without smoothing, as OpenCV does.

    Raises:
        DataError: The file cannot be decoded, or its size differs from that in the annotations.
    """
    try:
        with Image.open(path) as file:
            pixels = np.array(file.convert("RGB"))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise DataError(
            f"cannot read the image {path}",
            seen=(str(error).splitlines() or ["no data"])[0][:100],
            hint="The file is missing, empty or damaged; extract the data set again.",
        ) from error
    if shrink and pixels.shape[:2] != (height, width) and pixels.shape[0] >= height and pixels.shape[1] >= width:
        whole = torch.from_numpy(pixels).permute(2, 0, 1)[None].float()
        return F.interpolate(whole, (height, width), mode="bilinear", align_corners=False)[0].round().byte()
    if pixels.shape[:2] != (height, width):
        raise DataError(
            f"the image {path} has another size than its annotation",
            seen=f"{pixels.shape[0]}x{pixels.shape[1]}",
            expected=f"{height}x{width}",
            hint="Use images and annotations of the same release. The option sizes scales larger images down.",
        )
    return torch.from_numpy(pixels).permute(2, 0, 1).contiguous()


class ImageStore:
    """Reader of images that can keep decoded images in memory.

    Args:
        keep: Keep every image after it was first read; useful for small sets, as an image of 640x360 takes 0.7 MB.
    """

    def __init__(self, *, keep: bool = False) -> None:
        self.keep = keep
        self._kept: dict[Path, Tensor] = {}

    def __call__(self, path: Path, height: int, width: int, *, shrink: bool = False) -> Tensor:
        """See `read_image`; the caller must not write into the tensor."""
        image = self._kept.get(path)
        if image is None:
            image = read_image(path, height, width, shrink=shrink)
            if self.keep:
                self._kept[path] = image
        return image
