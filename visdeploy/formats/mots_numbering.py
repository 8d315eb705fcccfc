"""Numbers of frames and classes in MOTS text, in which KITTI MOTS and MOTSChallenge differ."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from visdeploy.errors import ConfigError, DataError
from visdeploy.masks.combining import union
from visdeploy.results import Track, VideoResult

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Numbering:
    """Numbering of the frames and classes of a file.

    Attributes:
        first_frame: Number of the first frame.
        classes: Map from the names of classes to their numbers; None numbers the classes of a result from 1 on.
    """

    first_frame: int = 0
    classes: dict[str, int] | None = None


CHALLENGE_CLASSES = ("car", "pedestrian")
IGNORE_CLASS, IGNORE = 10, "ignore"
"""Number and name of the class of regions that do not count."""
DEFAULT = "kitti"
NUMBERINGS = {
    "kitti": Numbering(),
    "motschallenge": Numbering(1, {"car": 1, "pedestrian": 2, "person": 2, IGNORE: IGNORE_CLASS}),
}
"""Numberings by the names in the option `numbering`."""


def numbering_of(name: Any) -> Numbering:
    """Return the numbering called `name`.

    Raises:
        ConfigError: There is none.
    """
    if not isinstance(name, str) or name not in NUMBERINGS:
        raise ConfigError("unknown numbering of MOTS", seen=repr(name)[:100], expected=" or ".join(NUMBERINGS))
    return NUMBERINGS[name]


def renumbered(result: VideoResult, numbering: Numbering) -> VideoResult:
    """Return a result whose label of each track is the number of its class, less one.

    Tracks of other classes are left out, with a warning. All regions that do not count become one track.

    Raises:
        DataError: The model has none of the classes.
    """
    if numbering.classes is None:
        return result
    numbers = {label: numbering.classes.get(name.lower()) for label, name in enumerate(result.classes)}
    if result.tracks and not any(numbers.values()):
        raise DataError(
            f"video {result.name!r} has no class of MOTSChallenge",
            seen=", ".join(result.classes)[:200],
            expected=", ".join(numbering.classes),
            hint="Save it with the other numbering, or rename a class of the result.",
        )
    left = [track for track in result.tracks if numbers.get(track.label) is None]
    if left:
        others = sorted({result.classes[track.label] for track in left})
        logger.warning(
            "%s: %d tracks of classes that MOTSChallenge does not have are left out: %s",
            *(result.name, len(left), ", ".join(others)),
        )
    tracks = [
        replace(track, label=number - 1, scores=())
        for track in result.tracks
        if (number := numbers.get(track.label)) is not None
    ]
    regions = [track for track in tracks if track.label == IGNORE_CLASS - 1]
    tracks = [track for track in tracks if track.label != IGNORE_CLASS - 1]
    names: tuple[str, ...] = CHALLENGE_CLASSES
    if regions:
        tracks.append(_together(regions))
        names = (*names, *(f"class {number}" for number in range(len(names) + 1, IGNORE_CLASS)), IGNORE)
    return replace(result, classes=names, tracks=tracks)


def _together(regions: Sequence[Track]) -> Track:
    frames = sorted({frame for track in regions for frame in track.masks})
    masks = {frame: mask for frame in frames if (mask := union(t.masks.get(frame) for t in regions)) is not None}
    return replace(regions[0], masks=masks)


def announce_start(source: str, starts: Sequence[int]) -> None:
    """Log a warning if files of other tools seem to number their frames from 1, but are read from 0.

    Args:
        source: Name of the file or folder.
        starts: Smallest number of a frame in each file.
    """
    if starts and min(starts) == 1:
        logger.warning(
            "%s: no mask is in frame 0, so frames may be numbered from 1, as by MOTSChallenge; they are read from 0 "
            "(pass numbering='motschallenge', or 'kitti' if that is correct)",
            source,
        )
