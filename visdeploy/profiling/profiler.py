"""Profiler: seconds per stage of the runtime, measured only if a profiler is passed."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import TypeVar

from visdeploy.arguments import check_number, check_type
from visdeploy.brief import brief, counted, shorten
from visdeploy.errors import ConfigError
from visdeploy.profiling.stages import Stage

T = TypeVar("T")

_NOTHING: AbstractContextManager[None] = nullcontext()


@dataclass
class StageTime:
    """Time of one stage.

    Attributes:
        seconds: Sum over all calls.
        calls: Number of calls.
    """

    seconds: float = 0.0
    calls: int = 0

    @property
    def milliseconds(self) -> float:
        """Mean per call, in milliseconds."""
        return 1e3 * self.seconds / self.calls if self.calls else 0.0


class Profiler:
    """Wall time per stage, summed over all threads that share the profiler.

    Stages are not nested, so for a single thread their sum is the time measured.

    Attributes:
        stages: Map from stage to time, in the order in which the stages first ran.

    Example:
        >>> profiler = Profiler()
        >>> with profiler.stage(Stage.GRAPH):
        ...     pass
        >>> profiler.stages[Stage.GRAPH].calls
        1
    """

    def __init__(self) -> None:
        self.stages: dict[Stage, StageTime] = {}
        self._lock = threading.Lock()

    def add(self, stage: Stage, seconds: float) -> None:
        """Count one call of a stage."""
        stage, seconds = _check_stage(stage), check_number(seconds, "seconds of a stage", minimum=0)
        with self._lock:
            time_ = self.stages.setdefault(stage, StageTime())
            time_.seconds += seconds
            time_.calls += 1

    @contextmanager
    def _timed(self, stage: Stage) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            self.add(stage, time.perf_counter() - start)

    @property
    def seconds(self) -> dict[Stage, float]:
        """Map from stage to its seconds over all calls."""
        with self._lock:
            return {stage: each.seconds for stage, each in self.stages.items()}

    @property
    def total(self) -> float:
        """Sum of the seconds of all stages."""
        return sum(self.seconds.values())

    def stage(self, stage: Stage) -> AbstractContextManager[None]:
        """Time the body of a `with` statement as one call of the stage."""
        return self._timed(_check_stage(stage))

    def iterate(self, stage: Stage, items: Iterable[T]) -> Iterator[T]:
        """Yield the items of an iterable, and count the time to get each one as a call of the stage."""
        try:
            iterator = iter(items)
        except TypeError:
            raise ConfigError("items of a stage", seen=shorten(items), expected="an iterable") from None
        return self._iterate(_check_stage(stage), iterator)

    def _iterate(self, stage: Stage, iterator: Iterator[T]) -> Iterator[T]:
        while True:
            start = time.perf_counter()
            try:
                item = next(iterator)
            except StopIteration:
                return
            self.add(stage, time.perf_counter() - start)
            yield item

    def __repr__(self) -> str:
        return brief(self, total=self.total, stages=counted(self.stages))


def _check_stage(stage: Stage) -> Stage:
    return check_type(stage, Stage, "stage of a profiler", expected="a visdeploy.profiling.Stage")


class _Off(Profiler):
    """Profiler that measures nothing, so that the code of a step needs no condition."""

    def stage(self, stage: Stage) -> AbstractContextManager[None]:
        return _NOTHING

    def iterate(self, stage: Stage, items: Iterable[T]) -> Iterator[T]:
        return iter(items)


OFF: Profiler = _Off()
