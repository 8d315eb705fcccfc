"""What a prediction is: instances of one frame, tracks of one video. No frames, no dense masks."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from visdeploy.errors import DataError
from visdeploy.masks import Mask

if TYPE_CHECKING:
    import supervision as sv

Box = tuple[float, float, float, float]


@dataclass(frozen=True, slots=True)
class Instance:
    """One object in one frame.

    Attributes:
        track_id: Identity within the video, from 0.
        label: Index into the classes of the bundle.
        score: Confidence in 0..1, over the frames of the track seen so far.
        mask: Run-length encoded mask at the frame's own size.
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
    """Everything found in one frame.

    Attributes:
        index: Position in the source, from 0.
        timestamp: Seconds from the start of the source.
        height: Rows of the frame, in pixels.
        width: Columns of the frame, in pixels.
        instances: Found objects, best first; no track id appears twice.
        classes: Names of the classes that `Instance.label` points into.
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
            raise DataError(f"frame {self.index} holds one track twice", seen=f"track ids {ids}", expected="unique ids")
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
        """The frame as `supervision.Detections` (needs the `supervision` package)."""
        from visdeploy.formats.supervision import to_detections

        return to_detections(self)


@dataclass(slots=True)
class Track:
    """One object through a whole video.

    Attributes:
        track_id: Identity within the video.
        label: Index into the classes of the video, decided over all frames of the track.
        score: Confidence in 0..1, decided over all frames of the track.
        masks: Frame index → mask; frames where the object is absent have no entry.
        scores: Class scores of the track, one per class, where the method gives them.
    """

    track_id: int
    label: int
    score: float
    masks: dict[int, Mask] = field(default_factory=dict)
    scores: tuple[float, ...] = ()

    @property
    def frames(self) -> list[int]:
        """Frame indices in which the object is present, rising."""
        return sorted(self.masks)


@dataclass(slots=True)
class VideoResult:
    """The tracks of one video.

    Attributes:
        name: Name of the source (file stem, folder name, or what the caller gave).
        height: Rows of a frame, in pixels.
        width: Columns of a frame, in pixels.
        num_frames: Frames that were decoded and processed.
        classes: Class names that `Track.label` points into.
        tracks: All tracks, by rising id.
        fps: Mean frame rate of the source; 0 where it has none.
        expected_frames: Frames the source claimed to hold, where it did.
        timestamps: Seconds of every processed frame.
        source: Path or URL the frames came from, where there is one; what `render` reads again.
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

    def __post_init__(self) -> None:
        ids = [t.track_id for t in self.tracks]
        if len(set(ids)) != len(ids):
            raise DataError(f"video {self.name!r} holds one track id twice", seen=f"track ids {sorted(ids)}")
        for track in self.tracks:
            if track.masks and not 0 <= min(track.masks) <= max(track.masks) < self.num_frames:
                raise DataError(
                    f"video {self.name!r}, track {track.track_id}: frame index outside the video",
                    seen=f"frames {min(track.masks)}..{max(track.masks)}",
                    expected=f"0..{self.num_frames - 1}",
                )

    def check(self) -> None:
        """Check what may have been changed since the tracks were made, before they are written or scored.

        Raises:
            DataError: A label is outside the classes, a score is not finite, or a mask has another size than the video.
        """
        for track in self.tracks:
            where = f"video {self.name!r}, track {track.track_id}"
            if track.label < 0 or (self.classes and track.label >= len(self.classes)):
                raise DataError(
                    f"{where}: label outside the classes", seen=str(track.label), expected=f"0..{len(self.classes) - 1}"
                )
            if not all(math.isfinite(s) for s in (track.score, *track.scores)):
                raise DataError(
                    f"{where}: score is no number", seen=f"NaN or infinity: {track.score}", expected="finite scores"
                )
            for frame, mask in track.masks.items():
                if (mask.height, mask.width) != (self.height, self.width):
                    raise DataError(
                        f"{where}, frame {frame}: wrong mask size",
                        seen=f"{mask.height}x{mask.width}",
                        expected=f"{self.height}x{self.width}",
                    )

    def __len__(self) -> int:
        return len(self.tracks)

    def frame(self, index: int) -> FrameResult:
        """The instances of one frame, with the final label and score of their tracks, best first."""
        found = [Instance(t.track_id, t.label, t.score, t.masks[index]) for t in self.tracks if index in t.masks]
        found.sort(key=lambda i: (-i.score, i.track_id))
        stamp = self.timestamps[index] if index < len(self.timestamps) else (index / self.fps if self.fps else 0.0)
        return FrameResult(index, stamp, self.height, self.width, tuple(found), self.classes)

    def frames(self) -> Iterator[FrameResult]:
        """Every frame in order, as `frame` gives it."""
        return (self.frame(i) for i in range(self.num_frames))

    def save(self, path: str | Path, *, format: str | None = None, **options: Any) -> Path:
        """Write the result; the format follows from the path unless it is named. See `visdeploy.formats.save`."""
        from visdeploy import formats

        return formats.save(self, path, format=format, **options)

    def render(self, path: str | Path, *, source: Any = None, **options: Any) -> Path:
        """Draw the tracks over the source video and write an H.264 mp4. See `visdeploy.render.render_video`."""
        from visdeploy.render import render_video

        return render_video(self, path, source=source, **options)
