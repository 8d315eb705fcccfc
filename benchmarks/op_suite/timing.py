"""Times of several ways to compute one thing, measured in turns so that a busy machine is busy for all of them."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

Call = Callable[[], Tensor]


@dataclass(frozen=True)
class Times:
    """The fastest of many single calls.

    Attributes:
        wall_ms: Milliseconds by the clock; on CUDA, between two events of the stream.
        cpu_ms: Milliseconds of processor time, all threads together.
        calls: How many calls the minima are of.
    """

    wall_ms: float
    cpu_ms: float
    calls: int

    def ms(self, clock: str) -> float:
        """One of the two: "wall" or "cpu"."""
        return self.cpu_ms if clock == "cpu" else self.wall_ms


@dataclass(frozen=True)
class Schedule:
    """How long to measure.

    Attributes:
        rounds: How often the sides take turns.
        seconds: In its turn, a side is called until this much time has passed, and at least once.
    """

    rounds: int
    seconds: float


Timer = Callable[[Call], tuple[float, float]]
"""Runs a call once and gives its seconds by the clock and of processor time."""


def time_on_cpu(call: Call) -> tuple[float, float]:
    """One call on the CPU."""
    cpu, wall = time.process_time(), time.perf_counter()
    call()
    return time.perf_counter() - wall, time.process_time() - cpu


def cuda_timer(flush_bytes: int = 256 << 20) -> Timer:
    """A timer with CUDA events that writes a buffer larger than the L2 cache before each call."""
    buffer = torch.empty(flush_bytes, dtype=torch.uint8, device="cuda")
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]

    def timer(call: Call) -> tuple[float, float]:
        buffer.zero_()
        torch.cuda.synchronize()
        cpu = time.process_time()
        start.record()
        call()
        end.record()
        torch.cuda.synchronize()
        return start.elapsed_time(end) / 1e3, time.process_time() - cpu

    return timer


def measure(sides: dict[str, Call], timer: Timer, schedule: Schedule) -> dict[str, Times]:
    """The fastest call of each side, the sides taking turns, after one round that does not count.

    Args:
        sides: What to call, by name.
        timer: Times one call.
        schedule: How long to measure.
    """
    fastest = {name: Times(float("inf"), float("inf"), 0) for name in sides}
    for call in sides.values():
        timer(call)
    for _ in range(schedule.rounds):
        for name, call in sides.items():
            begun = time.perf_counter()
            while True:
                wall, cpu = timer(call)
                so_far = fastest[name]
                fastest[name] = Times(min(so_far.wall_ms, 1e3 * wall), min(so_far.cpu_ms, 1e3 * cpu), so_far.calls + 1)
                if time.perf_counter() - begun >= schedule.seconds:
                    break
    return fastest
