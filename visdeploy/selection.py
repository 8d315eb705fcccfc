"""Choice of the objects that a prediction returns: classes, and a minimum score for all or each of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from visdeploy.arguments import as_tuple, check_number
from visdeploy.brief import shorten
from visdeploy.errors import ConfigError, suggestion
from visdeploy.results import FrameResult, Track

Threshold = float | Mapping[str, float]
"""Minimum score; or a map from class name to its minimum score, with `*` for all classes that it does not name."""
REST = "*"


@dataclass(frozen=True, slots=True)
class Selection:
    """Choice of objects by class and score. It is applied to results, and does not change the tracking.

    Attributes:
        limits: Minimum score of each class in label order, None for a class that is left out. Empty to keep everything.
    """

    limits: tuple[float | None, ...] = ()

    @classmethod
    def of(
        cls, names: Sequence[str], threshold: Threshold | None = None, classes: Iterable[str] | None = None
    ) -> Selection:
        """Return a selection.

        Args:
            names: Class names of the model.
            threshold: Minimum score, for all classes or by class name (`*`: all others); None keeps every score.
            classes: Names of the classes to keep; None keeps all.

        Raises:
            ConfigError: A name is unknown, or a threshold is not a number in 0..1.
        """
        if threshold is None and classes is None:
            return cls()
        given = threshold if isinstance(threshold, Mapping) else {} if threshold is None else {REST: threshold}
        limits = {}
        for name, value in given.items():
            if name != REST:
                _check_name(name, names, "threshold")
            what = f"threshold of {shorten(name)}" if isinstance(threshold, Mapping) else "threshold"
            limits[name] = check_number(value, what, minimum=0, maximum=1)
        kept = set(names) if classes is None else _checked(classes, names)
        rest = limits.get(REST, 0.0)
        return cls(tuple(limits.get(name, rest) if name in kept else None for name in names))

    def keeps(self, label: int, score: float) -> bool:
        """Return whether an object of this class and score is kept."""
        if not self.limits:
            return True
        limit = self.limits[label]
        return limit is not None and score >= limit

    def frame(self, result: FrameResult) -> FrameResult:
        """Return the result of a frame with the instances that are kept, by their present class and score."""
        if not self.limits:
            return result
        return replace(result, instances=tuple(i for i in result if self.keeps(i.label, i.score)))

    def tracks(self, tracks: Iterable[Track]) -> list[Track]:
        """Return the tracks that are kept, by their class and score."""
        return [track for track in tracks if self.keeps(track.label, track.score)]


def _checked(classes: Any, names: Sequence[str]) -> set[str]:
    """Return the names of `classes`, which may be a single one."""
    found = (classes,) if isinstance(classes, str) else as_tuple(classes)
    if not found:
        raise ConfigError("classes to keep", seen=shorten(classes), expected="a list of class names, or None for all")
    for name in found:
        _check_name(name, names, "classes to keep")
    return set(found)


def _check_name(name: Any, names: Sequence[str], what: str) -> None:
    if not isinstance(name, str) or name not in names:
        shown = ", ".join(names[:10]) + (", ..." if len(names) > 10 else "")
        hint = suggestion(name, names) if isinstance(name, str) else ""
        raise ConfigError(f"{what}: unknown class {shorten(name)}", expected=f"one of {shown}", hint=hint)
