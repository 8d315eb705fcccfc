"""Greedy association by affinity, with a list of lost tracks, as in the published implementation of VISOLO.

Every detection has a *query* vector, used when it is the earlier one of a pair, and a *reference* vector, used when it
is the later one. The affinity of an earlier detection a and a current detection b is `sigmoid(query_a . reference_b)`,
as in the memory matching module of VISOLO (Han et al., CVPR 2022). Each frame has four steps:

* A: detections, in descending order of score, continue the tracks of the previous frame;
* B: the remaining ones continue lost tracks, the most recently lost first;
* C: the remaining ones start new tracks;
* D: tracks of the previous frame that were not continued are added to the list of lost tracks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from visdeploy.errors import ConfigError, StreamError

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]

_ROW_FIELDS = ("frames", "cells", "track_ids", "query")


def sigmoid(logits: npt.NDArray[np.floating[Any]]) -> FloatArray:
    """Compute the logistic function in float32, without overflow warnings."""
    x = np.asarray(logits, dtype=np.float32)
    small = np.exp(-np.abs(x))
    return np.where(x >= 0, 1 / (1 + small), small / (1 + small)).astype(np.float32)


@dataclass(frozen=True)
class Rows:
    """Earlier detections that a later one can continue, one per row, in the order in which they are compared.

    Attributes:
        frames: int64 `[k]`, frame of the detection.
        cells: int64 `[k]`, grid cell of the detection (for inspection; association does not use it).
        track_ids: int64 `[k]`, id of its track.
        query: float32 `[k, d]`, its query vector.
    """

    frames: IntArray
    cells: IntArray
    track_ids: IntArray
    query: FloatArray

    @classmethod
    def empty(cls) -> Rows:
        """Return no rows; the size of the vectors is not yet known."""
        none = np.zeros(0, dtype=np.int64)
        return cls(none, none, none, np.zeros((0, 0), dtype=np.float32))

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, npt.NDArray[Any]], group: str) -> Rows:
        """Return the rows stored in a saved state under `group`."""
        frames, cells, track_ids = (np.array(arrays[f"{group}.{name}"], dtype=np.int64) for name in _ROW_FIELDS[:3])
        return cls(frames, cells, track_ids, np.array(arrays[f"{group}.query"], dtype=np.float32))

    def __len__(self) -> int:
        return len(self.track_ids)

    def take(self, where: BoolArray | slice) -> Rows:
        """Return the rows selected by a mask or a slice, in order."""
        return Rows(*(getattr(self, name)[where] for name in _ROW_FIELDS))

    def then(self, other: Rows) -> Rows:
        """Return these rows followed by those of `other`."""
        if not len(self) or not len(other):
            return other if not len(self) else self
        return Rows(*(np.concatenate([getattr(self, name), getattr(other, name)]) for name in _ROW_FIELDS))


@dataclass(frozen=True)
class Association:
    """Result of the association of one frame.

    Attributes:
        track_ids: int64 `[n]`, track id of each detection, in the order given.
        previous_matched: bool `[p]`, which detections of the previous frame were continued in step A.
        lost: int64 `[k, 3]`, rows (frame, cell, track id) of the list of lost tracks between steps C and D.
        forgotten: int64 `[m]`, tracks removed from the list of lost tracks because it was full; they cannot continue.
        num_tracks: Number of tracks started so far, including removed ones.
    """

    track_ids: IntArray
    previous_matched: BoolArray
    lost: IntArray
    forgotten: IntArray
    num_tracks: int


@dataclass(frozen=True)
class _State:
    frame: int
    num_tracks: int
    previous: Rows
    lost: Rows


class AffinityTracker:
    """Tracker of one stream.

    The published implementation keeps lost tracks without limit. Here the list holds at most `max_lost` rows and drops
    the oldest, so that memory is bounded on an endless stream. Results are identical until the list is full.

    Args:
        threshold: Minimum affinity to continue a track.
        max_lost: Maximum number of lost tracks kept.

    Raises:
        ConfigError: A parameter is out of range.
    """

    def __init__(self, *, threshold: float = 0.1, max_lost: int = 1024) -> None:
        if not 0.0 <= threshold <= 1.0:
            raise ConfigError("wrong affinity threshold", seen=str(threshold), expected="a number in 0..1")
        if max_lost < 0:
            raise ConfigError("wrong length of the lost list", seen=str(max_lost), expected="max_lost of 0 or more")
        self.threshold, self.max_lost = threshold, max_lost
        self._state = _State(0, 0, Rows.empty(), Rows.empty())

    @property
    def num_tracks(self) -> int:
        """Number of tracks started so far."""
        return self._state.num_tracks

    @property
    def live(self) -> IntArray:
        """Ids of the tracks that can be continued: those of the last frame and the lost ones."""
        return np.concatenate([self._state.previous.track_ids, self._state.lost.track_ids])

    def update(self, cells: IntArray, query: FloatArray, reference: FloatArray) -> Association:
        """Associate the detections of the next frame.

        The state of the tracker does not change if an error is raised.

        Args:
            cells: int64 `[n]`, grid cell of each detection, in descending order of score.
            query: float32 `[n, d]`, query vectors.
            reference: float32 `[n, d]`, reference vectors.

        Raises:
            StreamError: The shapes do not match each other or the previous frames.
        """
        state = self._state
        self._check(cells, query, reference)
        track_ids = np.full(len(cells), -1, dtype=np.int64)
        matched = self._continue_previous(state.previous, reference, track_ids)
        lost = self._find_lost(state.lost, reference, track_ids)
        born = np.flatnonzero(track_ids < 0)
        track_ids[born] = state.num_tracks + np.arange(len(born))
        num_tracks = state.num_tracks + len(born)
        kept = lost.then(state.previous.take(~matched))
        excess = max(0, len(kept) - self.max_lost)
        association = Association(
            track_ids=track_ids,
            previous_matched=matched,
            lost=np.stack([lost.frames, lost.cells, lost.track_ids], axis=1),
            forgotten=kept.track_ids[:excess],
            num_tracks=num_tracks,
        )
        frames = np.full(len(cells), state.frame, dtype=np.int64)
        previous = Rows(frames, np.array(cells, dtype=np.int64), track_ids, np.array(query, dtype=np.float32))
        self._state = _State(state.frame + 1, num_tracks, previous, kept.take(slice(excess, None)))
        return association

    def _continue_previous(self, previous: Rows, reference: FloatArray, track_ids: IntArray) -> BoolArray:
        """Fill `track_ids` from the previous frame (step A); return a flag for each row that was matched."""
        used = np.zeros(len(previous), dtype=bool)
        if len(previous) and len(track_ids):
            affinity = sigmoid(previous.query @ reference.T)
            self._greedy(affinity, previous.track_ids, range(len(track_ids)), used, track_ids)
        return used

    def _find_lost(self, lost: Rows, reference: FloatArray, track_ids: IntArray) -> Rows:
        """Fill `track_ids` from the lost tracks, latest frame first (step B); return the rows that stay lost."""
        waiting = np.flatnonzero(track_ids < 0)
        if not len(lost) or not len(waiting):
            return lost
        used = np.zeros(len(lost), dtype=bool)
        affinity = sigmoid(lost.query @ reference.T)
        starts = np.flatnonzero(np.diff(lost.frames, prepend=-1))  # rows are grouped by frame, oldest first
        stops = np.append(starts[1:], len(lost))
        best = np.maximum.reduceat(affinity[:, waiting].max(axis=1), starts)
        for index in np.flatnonzero(best >= self.threshold)[::-1]:
            record = slice(starts[index], stops[index])
            self._greedy(affinity[record], lost.track_ids[record], waiting, used[record], track_ids)
            waiting = np.flatnonzero(track_ids < 0)
            if not len(waiting):
                break
        return lost.take(~used)

    def _greedy(
        self, affinity: FloatArray, candidates: IntArray, detections: Any, used: BoolArray, track_ids: IntArray
    ) -> None:
        """Assign the best unused candidate row to each detection in turn; fill `used` and `track_ids` in place."""
        order = np.argsort(-affinity, axis=0, kind="stable")
        for detection in detections:
            for row in order[:, detection]:
                if not affinity[row, detection] >= self.threshold:  # also true for NaN
                    break
                if not used[row]:
                    used[row] = True
                    track_ids[detection] = candidates[row]
                    break

    def _check(self, cells: IntArray, query: FloatArray, reference: FloatArray) -> None:
        shapes_fit = cells.ndim == 1 and query.ndim == 2 and query.shape == reference.shape
        if not shapes_fit or len(cells) != len(query):
            raise StreamError(
                "cannot associate detections",
                seen=f"cells {cells.shape}, query {query.shape}, reference {reference.shape}",
                expected="cells [n], query [n, d], reference [n, d]",
            )
        for rows in (self._state.previous, self._state.lost):
            if len(rows) and len(cells) and rows.query.shape[1] != query.shape[1]:
                raise StreamError(
                    "cannot associate detections",
                    seen=f"vectors of {query.shape[1]} numbers",
                    expected=f"{rows.query.shape[1]}, as in the previous frames",
                )

    def state(self) -> dict[str, npt.NDArray[Any]]:
        """Return the state of the tracker as arrays, to be restored by `load_state`."""
        arrays: dict[str, npt.NDArray[Any]] = {
            "counters": np.array([self._state.frame, self._state.num_tracks], dtype=np.int64)
        }
        for group in ("previous", "lost"):
            rows = getattr(self._state, group)
            arrays.update({f"{group}.{name}": getattr(rows, name).copy() for name in _ROW_FIELDS})
        return arrays

    def load_state(self, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
        """Restore the state returned by `state`.

        Raises:
            StreamError: An array is missing, or the arrays are inconsistent.
        """
        try:
            frame, num_tracks = (int(v) for v in arrays["counters"])
            groups = [Rows.from_arrays(arrays, group) for group in ("previous", "lost")]
        except (KeyError, TypeError, ValueError) as error:
            raise StreamError("the saved tracks cannot be read", seen=repr(error)) from error
        ids = np.concatenate([rows.track_ids.ravel() for rows in groups])
        for rows in groups:
            if {a.shape for a in (rows.frames, rows.cells, rows.track_ids)} != {(len(rows.query),)}:
                raise StreamError(
                    "the saved tracks have inconsistent shapes", seen=str([r.query.shape for r in groups])
                )
        if frame < 0 or len(np.unique(ids)) != len(ids) or (len(ids) and not 0 <= ids.min() <= ids.max() < num_tracks):
            raise StreamError("the saved tracks have inconsistent ids", seen=f"{num_tracks} tracks, ids {ids.tolist()}")
        self._state = replace(self._state, frame=frame, num_tracks=num_tracks, previous=groups[0], lost=groups[1])
