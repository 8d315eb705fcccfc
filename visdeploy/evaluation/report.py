"""Result of an evaluation."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from visdeploy.errors import ConfigError

Row = tuple[str, str, str]
_DETAILS = ("per_category", "per_class")


@dataclass(frozen=True)
class Report:
    """Scores of one evaluation.

    Attributes:
        metrics: Map from metric (`ytvis`, `jf`, `hota`, …) to its scores: summary scores on the first level, details
            per category, object and frame below it.
    """

    metrics: dict[str, dict[str, Any]]

    def __getitem__(self, name: str) -> Any:
        """Return all scores of a metric (`report["jf"]`) or one summary score of any metric (`report["AP"]`)."""
        if name in self.metrics:
            return self.metrics[name]
        for numbers in self.metrics.values():
            if name in numbers:
                return numbers[name]
        raise ConfigError(
            f"the report has no score {name!r}",
            expected=f"one of {[key for numbers in self.metrics.values() for key in numbers]}",
            hint=f"Only {list(self.metrics)} were evaluated; pass further metrics to `evaluate`.",
        )

    def to_dict(self) -> dict[str, Any]:
        """Return all scores as nested dictionaries that JSON can represent."""
        return copy.deepcopy(self.metrics)

    def table(self, *, details: bool = False) -> list[Row]:
        """Return the scores as rows `(metric, name, value)`, with four decimals, or a dash without ground truth.

        Args:
            details: Whether scores per category follow the summary scores.
        """
        rows = []
        for family, numbers in self.metrics.items():
            rows += list(_rows(family, numbers))
            for key in _DETAILS if details else ():
                for category, scores in numbers.get(key, {}).items():
                    rows += list(_rows(f"{family} · {category}", scores))
        return rows


def _rows(title: str, numbers: dict[str, Any]) -> Iterator[Row]:
    for name, value in numbers.items():
        if isinstance(value, int | float):
            missing = value == -1 and name.startswith(("AP", "AR"))
            yield title, name, "–" if missing else f"{value:.4f}"
