"""Reading of images as tensors."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from visdeploy.errors import DataError, SourceError
from visdeploy.video.images import read_image


def read_tensor(path: Path, height: int, width: int, *, shrink: bool = False) -> Tensor:
    """Read an image file as upright RGB uint8 `[3, height, width]`, with the reader of the runtime.

    Args:
        path: The file.
        height: Rows in the annotations.
        width: Columns in the annotations.
        shrink: Scale a larger image down, with bilinear interpolation and without smoothing, as OpenCV does.

    Raises:
        DataError: The file cannot be decoded, or its size differs from that in the annotations.
    """
    try:
        pixels = torch.from_numpy(read_image(path)).permute(2, 0, 1)
    except SourceError as error:
        raise DataError(
            f"cannot read the image {path}",
            seen=(error.seen.splitlines() or ["no data"])[0][:100],
            hint="The file is missing, empty or damaged; extract the data set again.",
        ) from error
    size = (pixels.shape[1], pixels.shape[2])
    if shrink and size != (height, width) and size[0] >= height and size[1] >= width:
        scaled = F.interpolate(pixels[None].float(), (height, width), mode="bilinear", align_corners=False)
        return scaled[0].round().byte()
    if size != (height, width):
        hint = "Use images and annotations of the same release. The option sizes scales larger images down."
        if size == (width, height):
            hint = (
                "Images are turned upright by their EXIF orientation; annotations must be those of the upright image."
            )
        raise DataError(
            f"the image {path} has another size than its annotation",
            seen=f"{size[0]}x{size[1]}",
            expected=f"{height}x{width}",
            hint=hint,
        )
    return pixels.contiguous()


class ImageStore:
    """Reader of images that can keep decoded images in memory.

    Args:
        keep: Keep every image after it was first read; useful for small sets, as an image of 640x360 takes 0.7 MB.
    """

    def __init__(self, *, keep: bool = False) -> None:
        self.keep = keep
        self._kept: dict[Path, Tensor] = {}

    def __call__(self, path: Path, height: int, width: int, *, shrink: bool = False) -> Tensor:
        """See `read_tensor`; the caller must not write into the tensor."""
        image = self._kept.get(path)
        if image is None:
            image = read_tensor(path, height, width, shrink=shrink)
            if self.keep:
                self._kept[path] = image
        return image
