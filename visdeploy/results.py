"""Result types: instances of a frame and tracks of a video, with run-length encoded masks.

`VideoResult.save`, `VideoResult.render`, `FrameResult.to_supervision` and their like are a façade over
`visdeploy.formats` and `visdeploy.render`. Both packages import this module, so it imports them lazily, inside these
methods only. The façade is deliberate: it adds no dependency at import time, and users need only the result object.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from visdeploy.arguments import as_tuple, check_integer, check_names, check_number, check_type
from visdeploy.brief import Plain, brief, counted, printable, shorten
from visdeploy.errors import DataError, UnknownNameError
from visdeploy.masks import Mask

if TYPE_CHECKING:
    import pandas as pd
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
        classes: Class names, indexed by `label`; those of the `FrameResult` that the instance belongs to.
    """

    track_id: int
    label: int
    score: float
    mask: Mask
    classes: tuple[str, ...] = field(default=(), compare=False)

    def __post_init__(self) -> None:
        _check_identity(self, "an instance")
        check_type(self.mask, Mask, "mask of an instance", error=DataError)
        check_type(self.classes, tuple, "classes of an instance", expected="a tuple of str", error=DataError)

    @property
    def box(self) -> Box:
        """Tight box `(x1, y1, x2, y2)` of the mask in pixels, right and bottom edge exclusive."""
        return self.mask.box

    @property
    def class_name(self) -> str:
        """Name of the class, or `class N` if the names are not known."""
        return class_name(self.classes, self.label)

    def polygon(self, tolerance: float = 0.0) -> list[npt.NDArray[np.int32]]:
        """Return the outline of each part of the mask, int32 `[corners, 2]`, the largest part first; holes are ignored.

        Args:
            tolerance: Maximum distance in pixels by which an outline with fewer corners may differ; 0 for the exact
                one, which runs along the edges of pixels, as the box does.
        """
        return self.mask.polygons(tolerance)

    def crop(self, image: npt.NDArray[Any], *, margin: int = 0) -> npt.NDArray[Any]:
        """Return a copy of the part of an image that is inside the box.

        Args:
            image: The image of the frame, `[height, width, ...]`, with any number of channels.
            margin: Pixels to add on each side, as far as the image has them.

        Raises:
            DataError: The image does not have the size of the frame, or the mask has no pixel.
        """
        margin = check_integer(margin, "margin of a crop")
        check_image_size(image, self.mask.height, self.mask.width, f"track {self.track_id}")
        if not self.mask.area:
            raise DataError(f"cannot crop track {self.track_id}", seen="an empty mask", expected="at least one pixel")
        x1, y1, x2, y2 = (int(v) for v in self.box)
        return image[max(0, y1 - margin) : y2 + margin, max(0, x1 - margin) : x2 + margin].copy()

    def __repr__(self) -> str:
        return brief(
            self, track_id=self.track_id, class_name=self.class_name, score=round(float(self.score), 4), mask=self.mask
        )


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
        image: RGB pixels of the frame, uint8 `[height, width, 3]`, if the stream keeps images; otherwise None.
    """

    index: int
    timestamp: float
    height: int
    width: int
    instances: tuple[Instance, ...] = ()
    classes: tuple[str, ...] = ()
    image: npt.NDArray[np.uint8] | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        for name in ("index", "height", "width"):
            check_integer(getattr(self, name), f"{name} of a frame", error=DataError)
        check_number(self.timestamp, "timestamp of a frame", error=DataError)
        object.__setattr__(self, "classes", check_names(self.classes, "classes of a frame", error=DataError))
        object.__setattr__(self, "instances", self._owned(as_tuple(self.instances)))
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
        if self.image is not None:
            check_image_size(self.image, self.height, self.width, f"frame {self.index}")

    def _owned(self, instances: tuple[Any, ...] | None) -> tuple[Instance, ...]:
        """Return the instances with the class names of the frame."""
        if instances is None or not all(isinstance(each, Instance) for each in instances):
            raise DataError("instances of a frame", seen=shorten(self.instances), expected="a tuple of Instance")
        classes = self.classes
        return tuple(i if not classes or i.classes == classes else replace(i, classes=classes) for i in instances)

    def __len__(self) -> int:
        return len(self.instances)

    def __iter__(self) -> Iterator[Instance]:
        return iter(self.instances)

    def __repr__(self) -> str:
        count, size = counted(self.instances), Plain(f"{self.height}x{self.width}")
        return brief(self, index=self.index, timestamp=self.timestamp, size=size, instances=count)

    def plot(self, image: npt.NDArray[np.uint8] | None = None, **style: Any) -> npt.NDArray[np.uint8]:
        """Return an image with the instances drawn over it. See `visdeploy.render.draw`.

        Args:
            image: RGB pixels of the frame, uint8 `[height, width, 3]`; by default `image` of this result.
            **style: See `visdeploy.render.Style`; `min_score` is 0.25 by default.

        Raises:
            DataError: There is no image, or it does not have the size of the frame.
        """
        from visdeploy.render import draw

        image = self.image if image is None else image
        if image is None:
            raise DataError(
                f"no image to plot frame {self.index} on",
                hint="Pass the frame's image, or open the stream with keep_images=True.",
            )
        return draw(image, self, **style)

    def to_supervision(self) -> sv.Detections:
        """Return the frame as `supervision.Detections` (needs the package `supervision`)."""
        from visdeploy.formats.supervision import to_detections

        return to_detections(self)


@dataclass(slots=True)
class Track:
    """Object in a whole video. Tracks can be changed and are therefore not hashable.

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

    def __post_init__(self) -> None:
        _check_identity(self, "a track")
        masks = self.masks
        good = isinstance(masks, Mapping) and all(isinstance(m, Mask) for m in masks.values())
        if not good or not all(isinstance(k, int | np.integer) for k in masks):
            raise DataError("masks of a track", seen=shorten(masks), expected="a dict from frame index to Mask")
        self.scores = _numbers(self.scores, "scores of a track")

    @property
    def frames(self) -> list[int]:
        """Indices of the frames in which the object is present, ascending."""
        return sorted(self.masks)

    def __repr__(self) -> str:
        score = round(float(self.score), 4)
        return brief(self, track_id=self.track_id, label=self.label, score=score, masks=counted(self.masks))


@dataclass(slots=True)
class VideoResult:
    """Tracks of a video; iterating over it gives the tracks. It can be changed and is therefore not hashable.

    Attributes:
        name: Name of the source (file stem, folder name, or the name given by the caller).
        height: Rows of a frame, in pixels.
        width: Columns of a frame, in pixels.
        num_frames: Number of frames decoded and processed.
        classes: Class names, indexed by `Track.label`.
        tracks: All tracks, in ascending order of id.
        fps: Mean frame rate of the processed frames; 0 if unknown.
        expected_frames: Number of frames to be processed that the source announced; None if unknown.
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
        self._check_types()
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

    def _check_types(self) -> None:
        where = "of a video"
        check_type(self.name, str, f"name {where}", error=DataError)
        for name in ("height", "width", "num_frames"):
            check_integer(getattr(self, name), f"{name} {where}", error=DataError)
        if self.expected_frames is not None:
            check_integer(self.expected_frames, f"expected_frames {where}", error=DataError)
        check_number(self.fps, f"fps {where}", minimum=0, error=DataError)
        self.classes = check_names(self.classes, f"classes {where}", error=DataError)
        if not isinstance(self.tracks, list) or not all(isinstance(track, Track) for track in self.tracks):
            raise DataError(f"tracks {where}", seen=shorten(self.tracks), expected="a list of Track")
        self.timestamps = _numbers(self.timestamps, f"timestamps {where}")
        self.positions = _numbers(self.positions, f"positions {where}", whole=True)
        source: Any = self.source
        self.source = source = os.fspath(source) if isinstance(source, os.PathLike) else source
        if source is not None:
            check_type(source, str, f"source {where}", expected="a path or URL as str", error=DataError)
            self.source = printable(source)
            if self.source != source and self.address is None:
                self.address = source
        self.name = printable(self.name)

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

    def __iter__(self) -> Iterator[Track]:
        return iter(self.tracks)

    def __repr__(self) -> str:
        facts = {"name": self.name, "num_frames": self.num_frames, "size": Plain(f"{self.height}x{self.width}")}
        return brief(self, **facts, classes=counted(self.classes), tracks=counted(self.tracks))

    def track(self, track_id: int) -> Track:
        """Return the track with an id.

        Raises:
            UnknownNameError: There is no such track; it is a `ConfigError` and a `KeyError`.
        """
        track_id = check_integer(track_id, "track id", minimum=-(2**53))
        for track in self.tracks:
            if track.track_id == track_id:
                return track
        known = [track.track_id for track in self.tracks]
        raise UnknownNameError(f"video {self.name!r} has no track {track_id}", expected=f"one of {shorten(known)}")

    def frame(self, index: int) -> FrameResult:
        """Return the instances of a frame in descending order of score, with the final label and score of the track.

        Args:
            index: Position among the processed frames, from 0.

        Raises:
            ConfigError: The video has no such frame.
        """
        index = check_integer(index, f"frame of video {self.name!r}", maximum=self.num_frames - 1)
        found = [Instance(t.track_id, t.label, t.score, t.masks[index]) for t in self.tracks if index in t.masks]
        found.sort(key=lambda i: (-i.score, i.track_id))
        stamp = self.timestamps[index] if index < len(self.timestamps) else (index / self.fps if self.fps else 0.0)
        return FrameResult(index, stamp, self.height, self.width, tuple(found), self.classes)

    def frames(self) -> Iterator[FrameResult]:
        """Iterate over the results of all frames in order, see `frame`."""
        return (self.frame(i) for i in range(self.num_frames))

    def summary(self) -> str:
        """Return the size of the video, and for each class the number of tracks, their scores and frames, as text."""
        from visdeploy.summaries import summarize

        return summarize(self)

    def to_json(self, *, format: str = "ytvis", **options: Any) -> str:
        """Return the text that `save` would write to a JSON file.

        Args:
            format: `ytvis` (YouTube-VIS) or `coco` (COCO RLE).
            **options: Options of the format, see `save` in its module.
        """
        from visdeploy import formats

        return formats.to_json(self, format=format, **options)

    def to_dataframe(self) -> pd.DataFrame:
        """Return one row per instance and frame, with the columns of `visdeploy.formats.parquet` (needs pandas).

        Raises:
            DependencyError: The package pandas is not installed.
        """
        from visdeploy.formats.dataframe import to_dataframe

        return to_dataframe(self)

    def save(self, path: str | Path, *, format: str | None = None, **options: Any) -> Path:
        """Write the result in `format`, by default that of the path's ending. See `visdeploy.formats.save`."""
        from visdeploy import formats

        return formats.save(self, path, format=format, **options)

    def render(self, path: str | Path, *, source: Any = None, **options: Any) -> Path:
        """Draw the tracks over the source video and write an H.264 mp4. See `visdeploy.render.render_video`."""
        from visdeploy.render import render_video

        return render_video(self, path, source=source, **options)


def class_name(classes: Sequence[str], label: int) -> str:
    """Return the name of a class, or `class N` if the result has no class names."""
    return classes[label] if 0 <= label < len(classes) else f"class {label}"


def check_image_size(image: Any, height: int, width: int, what: str) -> None:
    """Raise a `DataError` unless an image is an array of this size, with any number of channels."""
    if not isinstance(image, np.ndarray) or image.ndim < 2 or image.shape[:2] != (height, width):
        raise DataError(
            f"the image does not match the result of {what}",
            seen=shorten(image),
            expected=f"an array of {height}x{width} pixels",
        )


def _check_identity(item: Instance | Track, what: str) -> None:
    """Check id, label and score of a new instance or track; `VideoResult.check` checks their values."""
    check_integer(item.track_id, f"track_id of {what}", minimum=-(2**53), error=DataError)
    check_integer(item.label, f"label of {what}", minimum=-(2**53), error=DataError)
    if isinstance(item.score, bool) or not isinstance(item.score, int | float | np.integer | np.floating):
        raise DataError(f"score of {what}", seen=shorten(item.score), expected="a number")


def _numbers(values: Any, what: str, *, whole: bool = False) -> tuple[Any, ...]:
    """Return numbers, which may be those of an array, as a tuple of Python numbers."""
    found = None if isinstance(values, str | bytes) else as_tuple(values)
    kinds = (int, np.integer) if whole else (int, float, np.integer, np.floating)
    if found is None or any(isinstance(v, bool) or not isinstance(v, kinds) for v in found):
        raise DataError(what, seen=shorten(values), expected="a sequence of numbers")
    return tuple(v.item() if isinstance(v, np.generic) else v for v in found)
