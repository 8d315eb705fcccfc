"""Trials that hang, crash and take memory: they test the runner itself, and belong to no campaign."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

from tests.campaigns.damage import Rng
from tests.campaigns.trials import Trial


class SelfTest:
    """Kind of trials whose outcomes are known."""

    name, count = "self_test", 4

    def prepare(self, folder: Path) -> None:
        """Prepare nothing."""

    def trial(self, number: int, rng: Rng, folder: Path) -> Trial:
        actions: tuple[Any, ...] = (
            lambda: time.sleep(120),
            lambda: os.kill(os.getpid(), signal.SIGSEGV),
            lambda: bytes(bytearray(b"x") * (3 << 29)),
            lambda: None,
        )
        return Trial(str(number), actions[number], lambda _: "")


KIND = SelfTest()
