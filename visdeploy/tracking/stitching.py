"""Association of instances between overlapping clips.

Clip methods identify an instance by its slot, and the slots of different clips are unrelated. Instances of two clips
are therefore matched by the IoU of their masks over all frames that both clips contain, one to one, with the largest
sum of IoUs (Hungarian method).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from visdeploy.masks import Mask

Tube = Sequence[Mask | None]
"""Masks of one object in consecutive frames; None where it is absent."""


def tube_overlaps(first: Sequence[Tube], second: Sequence[Tube]) -> npt.NDArray[np.float64]:
    """Compute the IoU of every pair of tubes: sum of the intersections over all frames divided by sum of the unions.

    Args:
        first: Tubes of the first clip.
        second: Tubes of the second clip, over the same frames.

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
    """Match rows and columns one to one so that the sum of similarities is maximal, and drop pairs below the threshold.

    Args:
        similarity: float64 `[rows, columns]`.
        threshold: Minimum similarity of a pair.

    Returns:
        Pairs `(row, column)` in ascending order of row.
    """
    from scipy.optimize import linear_sum_assignment

    allowed = np.where(similarity >= threshold, similarity, 0.0)
    rows, columns = linear_sum_assignment(allowed, maximize=True)
    return [(int(r), int(c)) for r, c in zip(rows, columns, strict=True) if similarity[r, c] >= threshold]


def _nonempty(mask: Mask | None) -> Mask | None:
    return mask if mask is not None and mask.area else None
