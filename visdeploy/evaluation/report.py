"""The outcome of an evaluation."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from typing import Any

from visdeploy.errors import ConfigError


@dataclass(frozen=True)
class Report:
    """Numbers of one evaluation.

    Attributes:
        metrics: Family (`ytvis`, `jf`, `hota`, …) → its numbers; headline numbers on the first level, details per
            category, object and frame below.
    """

    metrics: dict[str, dict[str, Any]] = field(default_factory=dict)

    def __getitem__(self, name: str) -> Any:
        """A family (`report["jf"]`) or a headline number of any family (`report["AP"]`)."""
        if name in self.metrics:
            return self.metrics[name]
        for numbers in self.metrics.values():
            if name in numbers:
                return numbers[name]
        raise ConfigError(
            f"the report has no number {name!r}",
            expected=f"one of {[key for numbers in self.metrics.values() for key in numbers]}",
            hint=f"Only the metrics {list(self.metrics)} were asked for.",
        )

    def to_dict(self) -> dict[str, Any]:
        """All numbers as plain nested dictionaries, ready for JSON."""
        return copy.deepcopy(self.metrics)

    def table(self) -> list[tuple[str, ...]]:
        """Headline numbers as rows `(family, name, value)`, the first row being the headings.

        Values are percentages-free fractions with four decimals; a dash stands where there is no ground truth.
        """
        rows: list[tuple[str, ...]] = [("metric", "name", "value")]
        for family, numbers in self.metrics.items():
            for name, value in numbers.items():
                if isinstance(value, int | float):
                    rows.append(
                        (family, name, "–" if value == -1 and family in ("ytvis", "trackmap") else _text(value))
                    )
        return rows


def _text(value: float) -> str:
    return f"{value:d}" if isinstance(value, int) else f"{value:.4f}"
