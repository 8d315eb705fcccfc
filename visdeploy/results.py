"""Result types: instances of a frame and tracks of a video, with run-length encoded masks and without images.

`VideoResult.save`, `VideoResult.render` and `FrameResult.to_supervision` are a façade over `visdeploy.formats` and
`visdeploy.render`. Both packages import this module, so it imports them lazily, inside these methods only. The façade
is deliberate: it adds no dependency at import time, and users need only the result object.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from visdeploy.errors import DataError
from visdeploy.masks import Mask

if TYPE_CHECKING:
    import supervision as sv

    from visdeploy.video.verdict import Verdict

Box = tuple[float, float, float, float]


@dataclass(frozen=True, slots=True)
class Instance:
    """Object in one frame.

    Attributes:
        track_id: Id of its track within the video, from 0.
        label: Index into the classes of the bundle.
        score: Confidence in 0..1, over the frames of the track processed so far.
        mask: Run-length encoded mask in the size of the frame.
    """

    track_id: int
    label: int
    score: float
    mask: Mask

    @property
    def box(self) -> Box:
        """Tight box `(x1, y1, x2, y2)` of the mask in pixels, right and bottom edge exclusive."""
        return self.mask.box


@dataclass(frozen=True, slots=True)
class FrameResult:
    """Instances detected in one frame.

    Attributes:
        index: Position among the processed frames, from 0.
        timestamp: Seconds since the start of the source.
        height: Rows of the frame, in pixels.
        width: Columns of the frame, in pixels.
        instances: Detected objects in descending order of score, with unique track ids.
        classes: Class names, indexed by `Instance.label`.
    """

    index: int
    timestamp: float
    height: int
    width: int
    instances: tuple[Instance, ...] = ()
    classes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        ids = [i.track_id for i in self.instances]
        if len(set(ids)) != len(ids):
            raise DataError(f"frame {self.index} has a repeated track", seen=f"track ids {ids}", expected="unique ids")
        for instance in self.instances:
            if (instance.mask.height, instance.mask.width) != (self.height, self.width):
                raise DataError(
                    f"frame {self.index}, track {instance.track_id}: mask size differs from the frame",
                    seen=f"{instance.mask.height}x{instance.mask.width}",
                    expected=f"{self.height}x{self.width}",
                )

    def __len__(self) -> int:
        return len(self.instances)

    def __iter__(self) -> Iterator[Instance]:
        return iter(self.instances)

    def to_supervision(self) -> sv.Detections:
        """Return the frame as `supervision.Detections` (needs the package `supervision`)."""
        from visdeploy.formats.supervision import to_detections

        return to_detections(self)


@dataclass(slots=True)
class Track:
    """Object in a whole video.

    Attributes:
        track_id: Id of the track within the video.
        label: Index into the classes of the video, determined from all frames of the track.
        score: Confidence in 0..1, determined from all frames of the track.
        masks: Map from frame index to mask; frames in which the object is absent have no entry.
        scores: Class scores of the track, one per class, if the method provides them.
    """

    track_id: int
    label: int
    score: float
    masks: dict[int, Mask] = field(default_factory=dict)
    scores: tuple[float, ...] = ()

    @property
    def frames(self) -> list[int]:
        """Indices of the frames in which the object is present, ascending."""
        return sorted(self.masks)


@dataclass(slots=True)
class VideoResult:
    """Tracks of a video.

    Attributes:
        name: Name of the source (file stem, folder name, or the name given by the caller).
        height: Rows of a frame, in pixels.
        width: Columns of a frame, in pixels.
        num_frames: Number of frames decoded and processed.
        classes: Class names, indexed by `Track.label`.
        tracks: All tracks, in ascending order of id.
        fps: Mean frame rate of the source; 0 if unknown.
        expected_frames: Number of frames that the source announced; None if unknown.
        timestamps: Time of every processed frame, in seconds since the start of the source.
        source: Path or URL of the frames, from which `render` reads them again; None if there is none.
        positions: Position of every processed frame in its source, from 0; empty if they are 0, 1, 2, ...
        verdict: Whether the source was `complete`, `damaged` or `unknown`, see `visdeploy.video.Source`.
        address: `source` with user, password and query, for `render`; not written to files.
    """

    name: str
    height: int
    width: int
    num_frames: int
    classes: tuple[str, ...]
    tracks: list[Track] = field(default_factory=list)
    fps: float = 0.0
    expected_frames: int | None = None
    timestamps: Sequence[float] = ()
    source: str | None = None
    positions: Sequence[int] = ()
    verdict: Verdict = "unknown"
    address: str | None = field(default=None, repr=False, compare=False)

    def __post_init__(self) -> None:
        ids = [t.track_id for t in self.tracks]
        if len(set(ids)) != len(ids):
            raise DataError(f"video {self.name!r} has a repeated track id", seen=f"track ids {sorted(ids)}")
        for track in self.tracks:
            if track.masks and not 0 <= min(track.masks) <= max(track.masks) < self.num_frames:
                raise DataError(
                    f"video {self.name!r}, track {track.track_id}: frame index outside the video",
                    seen=f"frames {min(track.masks)}..{max(track.masks)}",
                    expected=f"0..{self.num_frames - 1}",
                )

    def check(self) -> None:
        """Check the tracks before they are written or evaluated, because callers may have changed them.

        Raises:
            DataError: A label is outside the classes, a score is not finite, a mask differs in size from the video, or
                the positions are not those of all frames.
        """
        self.check_positions()
        for track in self.tracks:
            where = f"video {self.name!r}, track {track.track_id}"
            if track.label < 0 or (self.classes and track.label >= len(self.classes)):
                raise DataError(
                    f"{where}: label outside the classes", seen=str(track.label), expected=f"0..{len(self.classes) - 1}"
                )
            if not all(math.isfinite(s) for s in (track.score, *track.scores)):
                raise DataError(
                    f"{where}: invalid score", seen=f"NaN or infinity: {track.score}", expected="finite scores"
                )
            for frame, mask in track.masks.items():
                if (mask.height, mask.width) != (self.height, self.width):
                    raise DataError(
                        f"{where}, frame {frame}: wrong mask size",
                        seen=f"{mask.height}x{mask.width}",
                        expected=f"{self.height}x{self.width}",
                    )

    def check_positions(self) -> None:
        """Check that the positions are ascending, one for each frame.

        Raises:
            DataError: They are not.
        """
        ascending = all(a < b for a, b in pairwise((-1, *self.positions)))
        if self.positions and (len(self.positions) != self.num_frames or not ascending):
            raise DataError(
                f"video {self.name!r}: wrong positions of the frames",
                seen=f"{len(self.positions)} numbers, {'' if ascending else 'not '}ascending",
                expected=f"{self.num_frames} ascending numbers from 0 on, or none",
            )

    def __len__(self) -> int:
        return len(self.tracks)

    def frame(self, index: int) -> FrameResult:
        """Return the instances of a frame in descending order of score, with the final label and score of the track."""
        found = [Instance(t.track_id, t.label, t.score, t.masks[index]) for t in self.tracks if index in t.masks]
        found.sort(key=lambda i: (-i.score, i.track_id))
        stamp = self.timestamps[index] if index < len(self.timestamps) else (index / self.fps if self.fps else 0.0)
        return FrameResult(index, stamp, self.height, self.width, tuple(found), self.classes)

    def frames(self) -> Iterator[FrameResult]:
        """Iterate over the results of all frames in order, see `frame`."""
        return (self.frame(i) for i in range(self.num_frames))

    def save(self, path: str | Path, *, format: str | None = None, **options: Any) -> Path:
        """Write the result in `format`, by default that of the path's ending. See `visdeploy.formats.save`."""
        from visdeploy import formats

        return formats.save(self, path, format=format, **options)

    def render(self, path: str | Path, *, source: Any = None, **options: Any) -> Path:
        """Draw the tracks over the source video and write an H.264 mp4. See `visdeploy.render.render_video`."""
        from visdeploy.render import render_video

        return render_video(self, path, source=source, **options)
