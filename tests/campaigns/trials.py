"""Trials of a campaign: one input, one call, and the judgement of what came of it."""

from __future__ import annotations

import enum
import hashlib
import traceback
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from visdeploy.errors import VisdeployError

LONGEST_MESSAGE = 2000


class Outcome(enum.StrEnum):
    """What came of a trial; everything but the first two is a defect."""

    RIGHT = "right"  # accepted, with the right value
    REFUSED = "refused"  # an error of the family
    WRONG = "wrong"  # accepted, with another value than the right one
    GOOD_REFUSED = "good refused"  # an error for an input that is good
    RAW = "raw"  # any other exception, or an error whose message nobody could read
    CHANGED = "changed"  # an input is not as it was
    MEMORY = "memory"
    HANG = "hang"
    CRASH = "crash"

    @property
    def good(self) -> bool:
        """True unless it is a defect."""
        return self in (Outcome.RIGHT, Outcome.REFUSED)


@dataclass(frozen=True)
class Trial:
    """One call with one input.

    Attributes:
        label: What was done to the input.
        action: The call.
        right: Returns what is wrong with the value of `action`, empty if nothing is.
        inputs: Files that must not change.
        good: The input is good: an error is a defect.
    """

    label: str
    action: Callable[[], Any]
    right: Callable[[Any], str]
    inputs: tuple[Path, ...] = ()
    good: bool = False


@dataclass(frozen=True)
class Finding:
    """Outcome of a trial, with what is needed to repeat it."""

    outcome: Outcome
    label: str
    detail: str = ""


class Kind(Protocol):
    """Kind of inputs.

    Attributes:
        name: Name in tables.
        count: Trials of a whole campaign.
    """

    name: str
    count: int

    def prepare(self, folder: Path) -> None:
        """Make what all trials share; called once in every process, with a folder that is shared by all of them."""

    def trial(self, number: int, rng: np.random.Generator, folder: Path) -> Trial:
        """Make the input of a trial in a folder of its own."""


def generator(kind: Kind, number: int) -> np.random.Generator:
    """Return the random numbers of a trial, the same in every run."""
    return np.random.default_rng([int.from_bytes(kind.name.encode()[:4]), number])


def judge(trial: Trial) -> Finding:
    """Run a trial in this process."""
    before = _digests(trial.inputs)
    outcome, detail = _run(trial)
    if _digests(trial.inputs) != before:
        outcome, detail = Outcome.CHANGED, ", ".join(path.name for path in trial.inputs)
    return Finding(outcome, trial.label, detail)


def _run(trial: Trial) -> tuple[Outcome, str]:
    try:
        wrong = trial.right(trial.action())
    except VisdeployError as error:
        text = str(error)
        if "\n" in text or len(text) > LONGEST_MESSAGE or not error.what:
            return Outcome.RAW, f"a message of {len(text)} characters: {text[:300]!r}"
        return (Outcome.GOOD_REFUSED if trial.good else Outcome.REFUSED), f"{type(error).__name__}: {text}"
    except Exception as error:
        where = traceback.extract_tb(error.__traceback__)[-1]
        return Outcome.RAW, f"{type(error).__name__}: {str(error)[:200]} ({Path(where.filename).name}:{where.lineno})"
    return (Outcome.WRONG, wrong) if wrong else (Outcome.RIGHT, "")


def _digests(paths: Iterable[Path]) -> list[str]:
    files = [f for path in paths for f in (sorted(path.rglob("*")) if path.is_dir() else [path]) if f.is_file()]
    return [f"{file} {hashlib.sha256(file.read_bytes()).hexdigest()}" for file in files]
