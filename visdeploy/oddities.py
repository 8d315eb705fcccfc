"""Odd entries of data sets and results: read or left out by the rule of the format's evaluator, and reported once."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field

from visdeploy.errors import DataError

logger = logging.getLogger(__name__)


@dataclass
class Oddities:
    """Odd entries of one file, such as objects without pixels.

    Attributes:
        source: Name of the file.
        strict: Raise an error for the first odd entry instead of counting it.
    """

    source: str
    strict: bool = False
    _first: dict[str, str] = field(default_factory=dict)
    _errors: dict[str, DataError] = field(default_factory=dict)
    _counts: dict[str, int] = field(default_factory=dict)

    def add(self, kind: str, where: str, error: DataError) -> None:
        """Count an odd entry.

        Args:
            kind: What is odd, and what was done about it, such as `objects without pixels, left out`.
            where: Location of the entry.
            error: Error to raise if odd entries are not accepted.

        Raises:
            DataError: The given error, if `strict`.
        """
        if self.strict:
            raise error
        self._first.setdefault(kind, where)
        self._errors.setdefault(kind, error)
        self._counts[kind] = self._counts.get(kind, 0) + 1

    def refuse_all(self, total: int, *kinds: str) -> None:
        """Raise the first error of some kinds if all of `total` entries are of these kinds: the file is wrong, not odd.

        Raises:
            DataError: The error given to `add` for the first entry of these kinds.
        """
        if total and sum(self._counts.get(kind, 0) for kind in kinds) == total:
            raise next(self._errors[kind] for kind in kinds if kind in self._errors)

    def report(self, of: int | None = None) -> None:
        """Log one warning with the number of entries of each kind, and the first one.

        Args:
            of: Number of all entries of the file, to state beside the count.
        """
        if not self._counts:
            return
        total = "" if of is None else f" of {of}"
        kinds = (f"{kind}: {count}{total} (first: {self._first[kind]})" for kind, count in self._counts.items())
        logger.warning("%s: odd entries, refused if strict: %s", self.source, "; ".join(kinds))
