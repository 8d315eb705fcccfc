"""Measurement of cases: ratios to named baselines, and shares of the machine's roofline."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from op_suite.case import Case, OnnxRuntimeSide, torch_side
from op_suite.roofline import Machine, Work
from op_suite.timing import Call, Schedule, Timer, Times, measure, time_on_cpu

LARGEST_DIFFERENCE = {torch.float32: 1e-3, torch.float16: 5e-2}


@dataclass(frozen=True)
class Row:
    """Comparison of our side with one baseline, for one case.

    Attributes:
        op: Name of the op.
        setting: Description of the inputs.
        dtype: Value type.
        threads: Number of CPU threads of our side; 0 on CUDA.
        ours: Name of our implementation.
        baseline: Name of the baseline.
        ours_ms: Times of our implementation.
        baseline_ms: Times of the baseline.
        difference: Largest difference of the two outputs, relative to the largest element if that exceeds 1.
    """

    op: str
    setting: str
    dtype: str
    threads: int
    ours: str
    baseline: str
    ours_ms: Times
    baseline_ms: Times
    difference: float

    @property
    def wall_ratio(self) -> float:
        """Ratio of wall-clock times, baseline to ours."""
        return self.baseline_ms.wall_ms / self.ours_ms.wall_ms

    @property
    def cpu_ratio(self) -> float:
        """Ratio of processor times, baseline to ours."""
        return self.baseline_ms.cpu_ms / max(self.ours_ms.cpu_ms, 1e-6)

    def as_json(self) -> dict[str, Any]:
        """Return all fields and both ratios, with times in milliseconds."""
        return asdict(self) | {"wall_ratio": self.wall_ratio, "cpu_ratio": self.cpu_ratio}


@dataclass(frozen=True)
class Roof:
    """Performance of our side, relative to the machine's roofline, for one case."""

    op: str
    setting: str
    dtype: str
    work: Work
    ours_ms: float
    machine: Machine

    def as_json(self) -> dict[str, Any]:
        """Return bytes, operations, rates and the share of the roofline."""
        seconds = self.ours_ms / 1e3
        return {
            "op": self.op,
            "setting": self.setting,
            "dtype": self.dtype,
            "bytes": self.work.bytes,
            "flops": self.work.flops,
            "flops_per_byte": self.work.intensity,
            "gb_s": self.work.bytes / seconds / 1e9,
            "gflop_s": self.work.flops / seconds / 1e9,
            "bound": self.machine.bound(self.work),
            "share_of_roofline": self.machine.roof_ms(self.work) / self.ours_ms,
        }


def run_on_cpu(
    case: Case, threads: list[int], library: Path, machine: Machine, schedule: Schedule
) -> tuple[list[Row], Roof]:
    """Compare one case in ONNX Runtime with our library to all baselines.

    Baselines use the first number of threads. Our side is also run with the other numbers, and compared with the first.
    """
    inputs = case.inputs_on("cpu", torch.float32)
    model = case.onnx_model(case.nodes)
    first, *more = threads
    torch.set_num_threads(first)
    ours = f"ORT kernel, {first} thread{'s' if first > 1 else ''}"
    sides: dict[str, Call] = {ours: OnnxRuntimeSide(model, inputs, first, library)}
    sides[case.stock] = OnnxRuntimeSide(model, inputs, first, None)
    for name, nodes in case.baseline_nodes.items():
        sides[name] = OnnxRuntimeSide(case.onnx_model(nodes), inputs, first, library)
    for name, function in case.eager.items():
        sides[name] = torch_side(function, inputs)
    baselines = [name for name in sides if name != ours]
    scaled = {f"ORT kernel, {n} threads": n for n in more}
    for name, number in scaled.items():
        sides[name] = OnnxRuntimeSide(model, inputs, number, library)
    differences = _differences(sides, ours, case, torch.float32)
    times = measure(sides, time_on_cpu, schedule)
    pairs = [(ours, name, first) for name in baselines] + [(name, ours, number) for name, number in scaled.items()]
    rows = [
        Row(case.op, case.setting, "float32", number, side, other, times[side], times[other], differences[other])
        for side, other, number in pairs
    ]
    return rows, Roof(
        case.op, case.setting, "float32", case.work(sides[ours]()), times[ours].ms(machine.clock), machine
    )


def run_in_torch(
    case: Case, device: str, dtype: torch.dtype, timer: Timer, machine: Machine, schedule: Schedule
) -> tuple[list[Row], Roof]:
    """Compare our operator in PyTorch to the baselines in PyTorch, for one case on one device."""
    inputs = case.inputs_on(device, dtype)
    ours = "our PyTorch op"
    sides: dict[str, Call] = {ours: torch_side(case.ours, inputs)}
    sides |= {name: torch_side(function, inputs) for name, function in case.eager.items()}
    differences = _differences(sides, ours, case, dtype)
    times = measure(sides, timer, schedule)
    name = str(dtype).removeprefix("torch.")
    rows = [
        Row(case.op, case.setting, name, 0, ours, other, times[ours], times[other], differences[other])
        for other in case.eager
    ]
    work = case.work(sides[ours](), torch.empty(0, dtype=dtype).element_size())
    return rows, Roof(case.op, case.setting, name, work, times[ours].ms(machine.clock), machine)


def _differences(sides: dict[str, Call], ours: str, case: Case, dtype: torch.dtype) -> dict[str, float]:
    """Return the difference of each side's output from ours, and exit if a difference is too large."""
    output = sides[ours]().double().clone()
    found = {}
    for name, call in sides.items():
        other = call().double()
        scale = max(1.0, float(other.abs().max())) if other.numel() else 1.0
        found[name] = float((output - other).abs().max()) / scale if other.numel() else 0.0
        if not found[name] <= LARGEST_DIFFERENCE[dtype]:
            raise SystemExit(f"{case.op} ({case.setting}): {name} differs from {ours} by {found[name]:.2g}")
    return found
