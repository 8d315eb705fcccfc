"""Label and score of the tracks of TPR, from all their detections."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from visdeploy.errors import StreamError
from visdeploy.methods.base import Arrays, TrackSummary


@dataclass
class Votes:
    """Detections of one track.

    Attributes:
        counts: int64 `[classes]`, number of detections of each class.
        total: Sum of their scores.
        presence: Number of frames with at least one of them.
    """

    counts: npt.NDArray[np.int64]
    total: float = 0.0
    presence: int = 0

    @property
    def label(self) -> int:
        """The most frequent class; after a tie, the lowest."""
        return int(self.counts.argmax())

    @property
    def score(self) -> float:
        """Mean score of the detections."""
        return self.total / int(self.counts.sum())

    def summary(self, track_id: int) -> TrackSummary:
        """Return the summary of the track. The score of a class is the track's score times its share of detections."""
        shares = self.counts / self.counts.sum()
        return TrackSummary(track_id, self.label, self.score, tuple((shares * self.score).tolist()), self.presence)


@dataclass
class VoteTable:
    """Detections of all tracks of a stream.

    Attributes:
        classes: Number of classes.
        tracks: Votes by track id.
    """

    classes: int
    tracks: dict[int, Votes] = field(default_factory=dict)

    def add(self, track_ids: npt.NDArray[np.int64], labels: npt.NDArray[np.int64], scores: npt.NDArray[Any]) -> None:
        """Add the detections of a frame.

        Args:
            track_ids: int64 `[n]`, of which several may be equal.
            labels: int64 `[n]`.
            scores: Floating point `[n]`.
        """
        for track_id, label, score in zip(track_ids.tolist(), labels.tolist(), scores.tolist(), strict=True):
            votes = self.tracks.setdefault(track_id, Votes(np.zeros(self.classes, dtype=np.int64)))
            votes.counts[label] += 1
            votes.total += score
        for track_id in set(track_ids.tolist()):
            self.tracks[track_id].presence += 1

    def forget(self, track_ids: npt.NDArray[np.int64]) -> None:
        """Delete the tracks with these ids, as far as they exist."""
        for track_id in track_ids.tolist():
            self.tracks.pop(track_id, None)

    def summaries(self) -> list[TrackSummary]:
        """Return the summaries of all tracks in ascending order of id."""
        return [votes.summary(track_id) for track_id, votes in sorted(self.tracks.items())]

    def state(self) -> dict[str, npt.NDArray[Any]]:
        """Return the table as arrays, to be restored by `from_arrays`."""
        rows = sorted(self.tracks.items())
        return {
            "track_ids": np.array([track_id for track_id, _ in rows], dtype=np.int64),
            "counts": np.array([v.counts for _, v in rows], dtype=np.int64).reshape(len(rows), self.classes),
            "total": np.array([v.total for _, v in rows], dtype=np.float64),
            "presence": np.array([v.presence for _, v in rows], dtype=np.int64),
        }

    @classmethod
    def from_arrays(cls, arrays: Arrays, *, classes: int, num_tracks: int) -> VoteTable:
        """Return the table of a saved state.

        Args:
            arrays: The arrays returned by `state`.
            classes: Number of classes.
            num_tracks: Number of ids used so far.

        Raises:
            StreamError: The arrays are incomplete, contradict each other, or do not fit the classes or the ids.
        """
        names = ("track_ids", "counts", "presence")
        try:
            ids, counts, presence = (np.array(arrays[name], dtype=np.int64) for name in names)
            total = np.array(arrays["total"], dtype=np.float64)
        except (KeyError, TypeError, ValueError) as error:
            raise StreamError("the saved class decisions cannot be read", seen=repr(error)) from error
        n = ids.size
        if (ids.shape, counts.shape, presence.shape, total.shape) != ((n,), (n, classes), (n,), (n,)):
            raise StreamError(
                "the saved class decisions do not fit the bundle",
                seen=f"{counts.shape} counts of {n} tracks",
                expected=f"{classes} classes",
            )
        valid = (counts >= 0).all() and (presence >= 1).all() and (counts.sum(axis=1) >= presence).all()
        if not valid or (np.diff(ids, prepend=-1, append=num_tracks) <= 0).any():
            raise StreamError(
                "the saved class decisions contradict the saved tracks",
                seen=f"decisions about {n} of {num_tracks} tracks",
                expected="one of each track, with at least one detection in each frame of presence",
            )
        rows = zip(ids.tolist(), counts, total.tolist(), presence.tolist(), strict=True)
        return cls(classes, {i: Votes(c, t, p) for i, c, t, p in rows})
