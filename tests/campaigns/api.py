"""Calls of the public interface with arguments of wrong types and values."""

from __future__ import annotations

import tempfile
from pathlib import Path

from tests.campaigns.api_calls import api_calls
from tests.campaigns.damage import Rng
from tests.campaigns.trials import Trial


class Calls:
    """Kind `api`: an error of the family, or a value; hangs and crashes are found by the runner."""

    name, count = "api", 7000

    def prepare(self, folder: Path) -> None:
        self.calls = list(api_calls(Path(tempfile.mkdtemp(dir=folder))))

    def trial(self, number: int, rng: Rng, folder: Path) -> Trial:
        label, action = self.calls[number]
        return Trial(label, action, lambda _: "")


KIND = Calls()
