"""Foreground pixels of a window, with their embeddings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Points:
    """Foreground pixels of a window, frame by frame in row-major order.

    Attributes:
        maps: Embeddings of all pixels, float32 `[T, E, h, w]`.
        seediness_maps: float32 `[T, h, w]`.
        bandwidths: float32 `[T, B, h, w]`, predicted bandwidths of all pixels; only those of seeds are read.
        places: Positions of the foreground pixels of each frame in the frame, int64 `[P_t]`.
    """

    maps: FloatArray
    seediness_maps: FloatArray
    bandwidths: FloatArray
    places: tuple[IntArray, ...]

    @classmethod
    def of(
        cls, embeddings: FloatArray, bandwidths: FloatArray, seediness: FloatArray, foreground: Sequence[BoolArray]
    ) -> Points:
        """Select the foreground pixels of a window.

        Args:
            embeddings: float32 `[T, E, h, w]`.
            bandwidths: float32 `[T, B, h, w]`.
            seediness: float32 `[T, h, w]`.
            foreground: Mask of each frame, bool `[h, w]`.
        """
        places = tuple(np.flatnonzero(mask) for mask in foreground)
        return cls(np.ascontiguousarray(embeddings), np.ascontiguousarray(seediness), bandwidths, places)

    @cached_property
    def ends(self) -> IntArray:
        """Number of points up to the end of each frame, int64 `[T]`."""
        return np.cumsum(self.counts)

    @property
    def counts(self) -> IntArray:
        """Number of points of each frame, int64 `[T]`."""
        return np.array([len(place) for place in self.places], np.int64)

    @cached_property
    def embeddings(self) -> FloatArray:
        """Embeddings of the points, float32 `[E, P]`."""
        flat = self.maps.reshape(*self.maps.shape[:2], -1)
        return np.concatenate([rows.take(place, axis=1) for rows, place in zip(flat, self.places, strict=True)], axis=1)

    @cached_property
    def seediness(self) -> FloatArray:
        """Seediness of the points, float32 `[P]`."""
        flat = self.seediness_maps.reshape(len(self.seediness_maps), -1)
        return np.concatenate([row.take(place) for row, place in zip(flat, self.places, strict=True)])

    def embedding_of(self, point: int) -> FloatArray:
        """Return the embedding of a point, float32 `[E]`."""
        return self._at(self.maps, point)

    def bandwidths_of(self, point: int) -> FloatArray:
        """Return the predicted bandwidths of a point, float32 `[B]`."""
        return self._at(self.bandwidths, point)

    def _at(self, maps: FloatArray, point: int) -> FloatArray:
        frame, place = self.pixel_of(point)
        row, column = np.unravel_index(place, maps.shape[2:])
        return maps[frame, :, row, column]

    def pixel_of(self, point: int) -> tuple[int, int]:
        """Return the frame of a point, and its position in the frame."""
        frame = int(np.searchsorted(self.ends, point, side="right"))
        return frame, int(self.places[frame][point - (self.ends[frame] - len(self.places[frame]))])

    def point_at(self, frame: int, place: int) -> int | None:
        """Return the point at a position in a frame; None if that pixel is not in the foreground."""
        places = self.places[frame]
        found = int(np.searchsorted(places, place))
        if found == len(places) or places[found] != place:
            return None
        return int(self.ends[frame]) - len(places) + found

    def __len__(self) -> int:
        return int(self.ends[-1]) if len(self.places) else 0
