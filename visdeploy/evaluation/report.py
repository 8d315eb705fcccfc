"""Result of an evaluation."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from visdeploy.arguments import check_flag
from visdeploy.brief import Plain, brief, shorten
from visdeploy.errors import ConfigError, UnknownNameError

Row = tuple[str, str, str]
_DETAILS = ("per_category", "per_class")


@dataclass(frozen=True)
class Report(Mapping[str, Any]):
    """Scores of one evaluation: a mapping from metric to its scores, which also knows the single scores by name.

    `list(report)`, `report.items()` and their like give the metrics. `report[name]`, `name in report` and
    `report.get(name)` take the name of a metric or of one of its summary scores.

    Attributes:
        metrics: Map from metric (`ytvis`, `jf`, `hota`, …) to its scores: summary scores on the first level, details
            per category, object and frame below it.
    """

    metrics: dict[str, dict[str, Any]]
    __hash__ = None  # type: ignore[assignment]

    def __post_init__(self) -> None:
        good = isinstance(self.metrics, Mapping) and all(
            isinstance(scores, Mapping) for scores in self.metrics.values()
        )
        if not good:
            raise ConfigError("scores of a report", seen=shorten(self.metrics), expected="a map from metric to scores")

    def __iter__(self) -> Iterator[str]:
        return iter(self.metrics)

    def __len__(self) -> int:
        return len(self.metrics)

    def __repr__(self) -> str:
        scores = {f"{family}.{name}": value for family, name, value in self.table()[:4]}
        return brief(self, metrics=Plain(", ".join(self.metrics)), **{k: Plain(v) for k, v in scores.items()})

    def __getitem__(self, name: str) -> Any:
        """Return all scores of a metric (`report["jf"]`) or one summary score of any metric (`report["AP"]`)."""
        known = isinstance(name, str)
        if known and name in self.metrics:
            return self.metrics[name]
        for numbers in self.metrics.values():
            if known and name in numbers:
                return numbers[name]
        raise UnknownNameError(
            f"the report has no score {shorten(name)}",
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
        rows, details = [], check_flag(details, "details")
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
