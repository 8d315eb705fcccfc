"""Where the time of a frame goes: seconds per stage, collected only when asked for."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")

_NOTHING: AbstractContextManager[None] = nullcontext()


@dataclass
class Stage:
    """Time of one stage.

    Attributes:
        seconds: Sum over all calls.
        calls: How often the stage ran.
    """

    seconds: float = 0.0
    calls: int = 0

    @property
    def milliseconds(self) -> float:
        """Mean per call, in milliseconds."""
        return 1e3 * self.seconds / self.calls if self.calls else 0.0


class Profiler:
    """Adds up wall time per stage.

    The runtime names its stages `decode`, `preprocess`, `graph`, `decode of outputs`, `tracking` and `writing`.
    Stages do not nest in each other, so their sum is the time accounted for.

    Attributes:
        stages: Stage name → time, in the order in which the stages first ran.

    Example:
        >>> profiler = Profiler()
        >>> with profiler.stage("graph"):
        ...     pass
        >>> profiler.stages["graph"].calls
        1
    """

    def __init__(self) -> None:
        self.stages: dict[str, Stage] = {}

    @contextmanager
    def _timed(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            stage = self.stages.setdefault(name, Stage())
            stage.seconds += time.perf_counter() - start
            stage.calls += 1

    @property
    def seconds(self) -> dict[str, float]:
        """Stage name → seconds over all calls."""
        return {name: stage.seconds for name, stage in self.stages.items()}

    @property
    def total(self) -> float:
        """Seconds of all stages together."""
        return sum(stage.seconds for stage in self.stages.values())

    def stage(self, name: str) -> AbstractContextManager[None]:
        """Time the body of a `with` statement as one call of the stage."""
        return self._timed(name)

    def iterate(self, name: str, items: Iterable[T]) -> Iterator[T]:
        """Pass the items on, timing how long each one takes to arrive."""
        iterator = iter(items)
        while True:
            start = time.perf_counter()
            try:
                item = next(iterator)
            except StopIteration:
                return
            stage = self.stages.setdefault(name, Stage())
            stage.seconds += time.perf_counter() - start
            stage.calls += 1
            yield item


class _Off(Profiler):
    """The profiler that measures nothing, so that the hot path needs no condition."""

    def stage(self, name: str) -> AbstractContextManager[None]:
        return _NOTHING

    def iterate(self, name: str, items: Iterable[T]) -> Iterator[T]:
        return iter(items)


OFF: Profiler = _Off()
