"""Objects of a stream that are remembered between frames, and the overlap of their boxes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from visdeploy.errors import StreamError

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]

ROW_FIELDS = {
    "object_ids": np.int64,
    "embeddings": np.float32,
    "boxes": np.float32,
    "labels": np.int64,
    "matched": np.int64,
}
"""The arrays of `Objects` and their dtypes."""


@dataclass(frozen=True)
class Objects:
    """Remembered objects, one per row, in ascending order of id.

    Attributes:
        object_ids: int64 `[m]`.
        embeddings: float32 `[m, d]`, of the detection that was assigned last.
        boxes: float32 `[m, 4]`, of the detection that was assigned last: left, top, right, bottom.
        labels: int64 `[m]`, class of the first detection; later ones do not change it.
        matched: int64 `[m]`, the last frame with an assigned detection; only frames with detections are counted.
    """

    object_ids: IntArray
    embeddings: FloatArray
    boxes: FloatArray
    labels: IntArray
    matched: IntArray

    @classmethod
    def empty(cls) -> Objects:
        """Return no objects; the size of the embeddings is not yet known."""
        none = np.zeros(0, dtype=np.int64)
        return cls(none, np.zeros((0, 0), dtype=np.float32), np.zeros((0, 4), dtype=np.float32), none, none)

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, npt.NDArray[Any]]) -> Objects:
        """Return the objects of a saved state.

        Raises:
            StreamError: An array is missing or has a wrong shape, or the ids are not ascending.
        """
        try:
            objects = cls(*(np.array(arrays[name], dtype=dtype) for name, dtype in ROW_FIELDS.items()))
        except (KeyError, TypeError, ValueError) as error:
            raise StreamError("the saved objects cannot be read", seen=repr(error)) from error
        n, size = objects.labels.size, objects.embeddings.shape[-1:]
        shapes = {name: getattr(objects, name).shape for name in ROW_FIELDS}
        if shapes != dict.fromkeys(ROW_FIELDS, (n,)) | {"embeddings": (n, *size), "boxes": (n, 4)}:
            raise StreamError("the saved objects have inconsistent shapes", seen=str(shapes))
        ids = objects.object_ids
        if (np.diff(ids, prepend=-1) <= 0).any():
            raise StreamError("the saved objects have inconsistent ids", seen=str(ids.tolist()), expected="ascending")
        return objects

    def __len__(self) -> int:
        return len(self.object_ids)

    def take(self, rows: IntArray) -> Objects:
        """Return copies of the rows with these indices."""
        return Objects(*(getattr(self, name)[rows] for name in ROW_FIELDS))

    def then(self, other: Objects) -> Objects:
        """Return copies of these rows followed by copies of those of `other`."""
        if not len(self):
            return other.take(np.arange(len(other)))
        return Objects(*(np.concatenate([getattr(self, name), getattr(other, name)]) for name in ROW_FIELDS))


def box_overlaps(first: FloatArray, second: FloatArray) -> FloatArray:
    """Compute the IoU of every pair of boxes, in continuous coordinates.

    Args:
        first: float32 `[n, 4]`, left, top, right, bottom.
        second: float32 `[m, 4]`.

    Returns:
        float32 `[n, m]` in 0..1; 0 where the boxes do not overlap, or are not finite.
    """
    sides = [
        np.minimum(first[:, None, k + 2], second[:, k + 2]) - np.maximum(first[:, None, k], second[:, k])
        for k in (0, 1)
    ]
    common = np.maximum(sides[0], 0) * np.maximum(sides[1], 0)
    areas = [(boxes[:, 2:] - boxes[:, :2]).prod(axis=1) for boxes in (first, second)]
    union = areas[0][:, None] + areas[1] - common
    found: FloatArray = np.divide(common, union, out=np.zeros_like(common), where=(common > 0) & np.isfinite(union))
    return found
