"""Tracks of VIShv: pixels, lifetime and class of each, and the tracks that a data set keeps."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

Output = Literal["ytvis", "davis", "kittimots"]
Votes = npt.NDArray[np.float64]


@dataclass(frozen=True)
class TrackSums:
    """Sums over the pixels of a track at the resolution of the clustering.

    Attributes:
        pixels: Number of pixels.
        first: First frame with a pixel.
        last: Last frame with a pixel.
        votes: float64 `[classes]`: `ytvis` sums the mean logits of the classes, `kittimots` counts the pixels whose
            largest logit is that of the class; zeros for `davis`.
    """

    pixels: int
    first: int
    last: int
    votes: Votes

    @property
    def lifetime(self) -> int:
        """Last frame minus first frame."""
        return self.last - self.first

    def judge(self, output: Output) -> tuple[int, tuple[float, ...]]:
        """Return the label and the score of each class. The label is the first of equal ones."""
        if output == "ytvis":
            means = self.votes / self.pixels
            shares = np.exp(means - means.max())
            shares /= shares.sum()
        elif output == "kittimots":
            shares = self.votes / self.pixels
        else:
            shares = np.zeros_like(self.votes)
            shares[0] = 1.0
        return int(shares.argmax()), tuple(shares.tolist())


def pixel_votes(
    labels: npt.NDArray[np.int32], logits: npt.NDArray[np.float32], output: Output, classes: int
) -> Iterable[tuple[int, int, Votes]]:
    """Yield label, number of pixels and votes of each track of a frame, in ascending order of label.

    Args:
        labels: int32 `[P]`, track of each foreground pixel; negative for none.
        logits: float32 `[classes + 1, P]`, mean logits, the first row is the background; `[0, P]` for `davis`.
        output: Rule of the votes.
        classes: Number of classes.
    """
    found, place, counts = np.unique(labels, return_inverse=True, return_counts=True)
    votes = np.zeros((len(found), classes))
    if output == "kittimots":
        best = logits.argmax(axis=0)
        np.add.at(votes, (place[best > 0], best[best > 0] - 1), 1)
    elif output == "ytvis":
        members = np.arange(len(found))[:, None] == place
        votes[:] = members.astype(np.float32) @ logits[1:].T
    for label, count, each in zip(found.tolist(), counts.tolist(), votes, strict=True):
        if label >= 0:
            yield label, count, each


@dataclass(frozen=True)
class TrackTable:
    """Tracks of one stream in order of their first appearance. It is immutable.

    Attributes:
        output: Rules of a data set.
        tracks: Sums of each track.
        most: Largest number of pixels of any track so far.
    """

    output: Output
    tracks: Mapping[int, TrackSums] = field(default_factory=dict)
    most: int = 0

    def add(self, frame: int, votes: Iterable[tuple[int, int, Votes]]) -> TrackTable:
        """Return the table with the pixels of one more frame, see `pixel_votes`."""
        tracks, most = dict(self.tracks), self.most
        for label, pixels, each in votes:
            known = tracks.get(label, TrackSums(0, frame, frame, np.zeros_like(each)))
            tracks[label] = TrackSums(known.pixels + pixels, known.first, frame, known.votes + each)
            most = max(most, known.pixels + pixels)
        return TrackTable(self.output, tracks, most)

    def only(self, labels: Iterable[int]) -> TrackTable:
        """Return the table without all other tracks."""
        wanted = set(labels)
        return TrackTable(self.output, {k: t for k, t in self.tracks.items() if k in wanted}, self.most)

    def kept(self, number: int) -> list[int]:
        """Return at most `number` tracks, in the order in which the data set's results list them.

        For `ytvis` and `davis`, these are the tracks with the longest lifetimes, in descending order. For `kittimots`,
        they are those with most pixels, in ascending order of lifetime. Ties are in order of first appearance.
        """
        if self.output == "kittimots":
            largest = sorted(self.tracks, key=lambda k: -self.tracks[k].pixels)[:number]
            return sorted(largest, key=lambda k: self.tracks[k].lifetime)
        return sorted(self.tracks, key=lambda k: -self.tracks[k].lifetime)[:number]

    def priority(self, labels: Iterable[int]) -> list[int]:
        """Return labels in the order in which they claim pixels: a later track does not take those of earlier ones.

        In `davis`, later tracks of the result overwrite earlier ones; in `kittimots`, the largest label wins.
        """
        if self.output == "davis":
            return sorted(labels, key=lambda k: (self.tracks[k].lifetime, -self.tracks[k].first, -k))
        return sorted(labels, reverse=self.output == "kittimots")

    def state(self) -> dict[str, npt.NDArray[Any]]:
        """Return the table as arrays, to be restored by `load`."""
        rows = [(k, t.pixels, t.first, t.last) for k, t in self.tracks.items()]
        votes = [t.votes for t in self.tracks.values()]
        return {
            "tracks.rows": np.array(rows, np.int64).reshape(-1, 4),
            "tracks.votes": np.stack(votes) if votes else np.zeros((0, 0)),
            "tracks.most": np.array(self.most, np.int64),
        }

    @classmethod
    def load(cls, arrays: Mapping[str, npt.NDArray[Any]], output: Output, classes: int) -> TrackTable:
        """Restore a table.

        Raises:
            KeyError: An array is missing.
            ValueError: The arrays are inconsistent.
        """
        rows, votes = arrays["tracks.rows"], np.asarray(arrays["tracks.votes"], np.float64)
        if rows.ndim != 2 or rows.shape[1] != 4 or (len(rows) and votes.shape != (len(rows), classes)):
            raise ValueError(f"tracks {rows.shape} with votes {votes.shape}")
        if (rows < 0).any() or (rows[:, 1] < 1).any() or (rows[:, 2] > rows[:, 3]).any():
            raise ValueError("a track with a negative label, without pixels, or that ends before it starts")
        tracks = {
            int(label): TrackSums(int(pixels), int(first), int(last), np.array(each))
            for (label, pixels, first, last), each in zip(rows.tolist(), votes, strict=True)
        }
        if len(tracks) != len(rows):
            raise ValueError("a track is listed twice")
        return cls(output, tracks, int(arrays["tracks.most"]))
