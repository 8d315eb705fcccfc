"""Calls of the public interface with arguments of wrong types and values."""

from __future__ import annotations

from pathlib import Path

from tests.campaigns.api_calls import calls
from tests.campaigns.damage import Rng
from tests.campaigns.trials import Trial


class Calls:
    """Kind `api`: an error of the family, or a value; hangs and crashes are found by the runner."""

    name = "api"

    @property
    def count(self) -> int:
        """Number of calls in the table."""
        return len(list(calls()))

    def prepare(self, folder: Path) -> None:
        self.calls = list(calls())

    def trial(self, number: int, rng: Rng, folder: Path) -> Trial:
        label, action = self.calls[number]
        return Trial(label, action, lambda _: "")


KIND = Calls()
