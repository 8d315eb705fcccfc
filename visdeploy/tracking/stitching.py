"""Identity across overlapping clips: instances of a clip continue the tracks whose masks they share frames with.

Clip methods name an instance by its slot, which means nothing to the next clip. What both have seen are the frames of
the overlap; instances are matched there by the IoU of their masks through all of them, one to one, with the largest
sum (Hungarian method).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from visdeploy.masks import Mask

Tube = Sequence[Mask | None]
"""Masks of one object through consecutive frames; None where it is absent."""


def tube_overlaps(first: Sequence[Tube], second: Sequence[Tube]) -> npt.NDArray[np.float64]:
    """IoU of every pair of tubes, over all frames together.

    Args:
        first: Tubes of one kind.
        second: Tubes of the other kind, all through the same frames.

    Returns:
        float64 `[len(first), len(second)]` in 0..1; 0 where both are empty.
    """
    from pycocotools import mask as coco

    common = np.zeros((len(first), len(second)))
    total = np.zeros_like(common)
    for frame in range(len(first[0]) if first and second else 0):
        masks = [[_nonempty(tube[frame]) for tube in tubes] for tubes in (first, second)]
        areas = [np.array([m.area if m else 0 for m in side], np.float64) for side in masks]
        total += areas[0][:, None] + areas[1][None, :]
        rows, columns = (np.flatnonzero(side) for side in areas)
        if len(rows) and len(columns):
            pair = [[{"size": [m.height, m.width], "counts": m.counts} for m in side if m] for side in masks]
            iou = np.asarray(coco.iou(pair[0], pair[1], [0] * len(columns)), np.float64)
            sums = areas[0][rows][:, None] + areas[1][columns][None, :]
            common[np.ix_(rows, columns)] += iou * sums / (1 + iou)
    union = total - common
    return np.divide(common, union, out=np.zeros_like(common), where=union > 0)


def match(similarity: npt.NDArray[np.float64], threshold: float) -> list[tuple[int, int]]:
    """One-to-one pairs of rows and columns with the largest sum; none below the threshold.

    Args:
        similarity: float64 `[rows, columns]`.
        threshold: Smallest similarity of a pair.

    Returns:
        `(row, column)` by rising row.
    """
    from scipy.optimize import linear_sum_assignment

    allowed = np.where(similarity >= threshold, similarity, 0.0)
    rows, columns = linear_sum_assignment(allowed, maximize=True)
    return [(int(r), int(c)) for r, c in zip(rows, columns, strict=True) if similarity[r, c] >= threshold]


def _nonempty(mask: Mask | None) -> Mask | None:
    return mask if mask is not None and mask.area else None
