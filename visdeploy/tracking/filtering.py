"""Removal of masks and tracks that are probably wrong, as for the results of STEm-Seg on KITTI MOTS.

Athar et al., "STEm-Seg: Spatio-temporal embeddings for instance segmentation in videos", ECCV 2020.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, replace

from visdeploy.errors import DataError
from visdeploy.masks import Mask
from visdeploy.results import Track, VideoResult


@dataclass(frozen=True)
class FilterRule:
    """Limits of one class.

    Attributes:
        min_area: Masks with fewer pixels are removed.
        min_fill: Masks that fill no more than this share of their box are removed.
        max_gaps: Tracks with more gaps, relative to the number of their masks, are removed. A gap is a place where
            consecutive masks are not in consecutive frames.
        min_length: Tracks with fewer masks are removed.
    """

    min_area: int
    min_fill: float
    max_gaps: float
    min_length: int


KITTI_RULES = {
    "car": FilterRule(150, 0.35, 0.3, 3),
    "pedestrian": FilterRule(250, 0.2, 0.5, 10),
}


def filtered(result: VideoResult, rules: Mapping[str, FilterRule] = KITTI_RULES) -> VideoResult:
    """Return the result without the masks and tracks that violate a rule; rules apply in the order of their fields.

    Args:
        result: Result of one video.
        rules: Limits of each class, by name.

    Raises:
        DataError: There is no rule for the class of a track.
    """
    tracks = []
    for track in result.tracks:
        name = result.classes[track.label] if track.label < len(result.classes) else f"class {track.label}"
        if name not in rules:
            raise DataError(
                f"video {result.name!r}, track {track.track_id}: no rule to filter its class",
                seen=repr(name),
                expected=f"one of {sorted(rules)}",
            )
        if (kept := _filtered_track(track, rules[name])) is not None:
            tracks.append(kept)
    return replace(result, tracks=tracks)


def _filtered_track(track: Track, rule: FilterRule) -> Track | None:
    masks = {t: m for t, m in sorted(track.masks.items()) if m.area >= rule.min_area and _fill(m) > rule.min_fill}
    frames = list(masks)
    gaps = sum(after - before > 1 for before, after in itertools.pairwise(frames))
    if not frames or gaps / len(frames) > rule.max_gaps or len(frames) < rule.min_length:
        return None
    return replace(track, masks=masks)


def _fill(mask: Mask) -> float:
    left, top, right, bottom = mask.box
    return mask.area / max((right - left) * (bottom - top), 1.0)
