"""Boxes and masks of TPR at the size of the original frame."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from visdeploy.masks import Mask
from visdeploy.masks.resampling import paste_region

FloatArray = npt.NDArray[np.float32]

# The network returns a probability of exactly one half where a box leaves its maps, and the interpolation between equal
# values is exact only up to rounding. The margin, far below all other differences, puts such pixels inside the mask.
_TIE = 1e-6


def scaled_boxes(boxes: FloatArray, network: tuple[int, int], original: tuple[int, int]) -> FloatArray:
    """Scale boxes from the network's input to the original frame, and clip them to it.

    Args:
        boxes: float32 `[n, 4]`, left, top, right, bottom.
        network: Height and width of the frame in the network's input, without padding.
        original: Height and width of the original frame.

    Returns:
        float32 `[n, 4]`.
    """
    (h, w), (height, width) = network, original
    scale = np.array([width / w, height / h] * 2, dtype=np.float32)
    limits = np.array([width, height] * 2, dtype=np.float32)
    return np.asarray(np.clip(boxes * scale, 0, limits), dtype=np.float32)


def pasted_mask(probabilities: FloatArray, box: FloatArray, *, threshold: float, height: int, width: int) -> Mask:
    """Paste a mask into the clipped box, although it was predicted for the whole box, as in the publication.

    Args:
        probabilities: float32 `[h, w]`.
        box: float32 `[4]`, left, top, right, bottom in pixels of the original frame.
        threshold: Minimum probability of a pixel inside the mask.
        height: Rows of the original frame.
        width: Columns of the original frame.
    """
    region, top, left = paste_region(probabilities, box, height, width)
    return Mask.encode_region(region >= np.float32(threshold - _TIE), top=top, left=left, height=height, width=width)
