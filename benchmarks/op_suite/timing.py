"""Times of several implementations, measured in turns so that other load on the machine affects all of them."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

Call = Callable[[], Tensor]


@dataclass(frozen=True)
class Times:
    """Minimum times of many single calls.

    Attributes:
        wall_ms: Wall-clock time in milliseconds; on CUDA, between two events of the stream.
        cpu_ms: Processor time in milliseconds, summed over all threads.
        calls: Number of calls.
    """

    wall_ms: float
    cpu_ms: float
    calls: int

    def ms(self, clock: str) -> float:
        """Return one of the two times: "wall" or "cpu"."""
        return self.cpu_ms if clock == "cpu" else self.wall_ms


@dataclass(frozen=True)
class Schedule:
    """Duration of a measurement.

    Attributes:
        rounds: Number of turns of each side.
        seconds: Minimum duration of a turn; a side is called at least once.
    """

    rounds: int
    seconds: float


Timer = Callable[[Call], tuple[float, float]]
"""Runs a call once, and returns its wall-clock time and processor time in seconds."""


def time_on_cpu(call: Call) -> tuple[float, float]:
    """Time one call on the CPU."""
    cpu, wall = time.process_time(), time.perf_counter()
    call()
    return time.perf_counter() - wall, time.process_time() - cpu


def cuda_timer(flush_bytes: int = 256 << 20) -> Timer:
    """Create a timer with CUDA events that writes a buffer larger than the L2 cache before each call."""
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
    """Measure the fastest call of each side, with the sides in turns, after one untimed round.

    Args:
        sides: Calls by name.
        timer: Function that times one call.
        schedule: Duration of the measurement.
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
