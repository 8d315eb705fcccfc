"""Classes of a bundle and categories of a data set, matched by name."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from visdeploy.brief import shorten
from visdeploy.errors import ConfigError, suggestion
from visdeploy.results import Track, VideoResult

logger = logging.getLogger(__name__)


def match_classes(
    classes: Sequence[str], categories: Sequence[str], class_map: Mapping[str, str], source: object
) -> dict[int, int]:
    """Return a map from label to position of its category, for the labels that have one.

    A class is that of the same name, or of the only name that differs in case, spaces, hyphens and underscores alone.
    A warning counts the classes without a category.

    Args:
        classes: Classes of the bundle.
        categories: Names of the categories.
        class_map: Map from class to category; takes precedence.
        source: Name of the data set, for error messages.

    Raises:
        ConfigError: The map names an unknown class or category, or no class has a category.
    """
    _check(class_map, classes, "class", "the bundle")
    _check(class_map.values(), categories, "category", source)
    exact = {name: number for number, name in enumerate(categories)}
    loose: dict[str, list[int]] = {}
    for name, number in exact.items():
        loose.setdefault(_folded(name), []).append(number)
    found: dict[int, int] = {}
    for label, name in enumerate(classes):
        similar = loose.get(_folded(name), [])
        if (wanted := class_map.get(name, name)) in exact:
            found[label] = exact[wanted]
        elif len(similar) == 1:
            found[label] = similar[0]
    if not found:
        raise ConfigError(
            f"the bundle and {source} have no class in common",
            seen=_some(classes),
            expected=_some(categories),
            hint="Name the categories of the classes: --class-map person=pedestrian.",
        )
    left = [name for label, name in enumerate(classes) if label not in found]
    if left:
        logger.warning("%d of %d classes are no categories of %s and are left out: %s",
                       len(left), len(classes), source, _some(left))  # fmt: skip
    return found


def check_class_map(value: Any) -> dict[str, str]:
    """Return a map from class to category, both as str."""
    good = isinstance(value, Mapping) and all(isinstance(each, str) for pair in value.items() for each in pair)
    if not good:
        raise ConfigError("class map of a benchmark", seen=shorten(value), expected="a map from class to category")
    return dict(value)


def with_categories(result: VideoResult, labels: Mapping[int, int], categories: Sequence[str]) -> VideoResult:
    """Return a result with the categories as classes, without the tracks of other classes."""
    tracks: list[Track] = [
        replace(track, label=labels[track.label], scores=()) for track in result.tracks if track.label in labels
    ]
    return replace(result, classes=tuple(categories), tracks=tracks)


def best_tracks(result: VideoResult, most: int | None) -> VideoResult:
    """Return a result with the tracks of the highest scores, at most `most`, in their order."""
    if most is None or len(result.tracks) <= most:
        return result
    ranked = sorted(range(len(result.tracks)), key=lambda i: (-result.tracks[i].score, i))[:most]
    return replace(result, tracks=[result.tracks[i] for i in sorted(ranked)])


def _check(names: object, known: Sequence[str], what: str, source: object) -> None:
    unknown = [name for name in names if name not in known]  # type: ignore[attr-defined]
    if unknown:
        raise ConfigError(f"unknown {what} in the class map", seen=repr(unknown[0]),
                          expected=f"one of {source}: {_some(known)}", hint=suggestion(unknown[0], known))  # fmt: skip


def _folded(name: str) -> str:
    return name.casefold().replace("_", " ").replace("-", " ").strip()


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:8]) + (", ..." if len(names) > 8 else "")
