"""Speed of the operators: ratios to named baselines in the same run, and shares of the machine's roofline.

    python benchmarks/ops.py                              # all ops in ONNX Runtime on the CPU, 1 thread and 1 -> 2
    python benchmarks/ops.py --op ms_deform_attn --targets
    python benchmarks/ops.py --device cuda                # PyTorch operators, float32 and float16, CUDA events

On the CPU, our side is ONNX Runtime with our library. Inputs and outputs are bound, so that a call consists only of the
computation. The baselines are the same file in a session without the library, which runs the function body of the op or
a kernel of ONNX Runtime, and PyTorch. Outputs are compared before the measurement.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import platform
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch
from op_suite import attention, convolution, fused_attention, roi_align
from op_suite.case import Case
from op_suite.report import print_roofs, print_rows, print_targets
from op_suite.roofline import Machine, measure_machine
from op_suite.run import Roof, Row, run_in_torch, run_on_cpu
from op_suite.timing import Schedule, cuda_timer, time_on_cpu
from rich.console import Console

import visdeploy_plugins

CASES: dict[str, Callable[..., Iterator[Case]]] = {
    "ms_deform_attn": attention.cases,
    "ms_deform_attn_fused": fused_attention.cases,
    "deform_conv": convolution.deform_conv_cases,
    "masked_conv": convolution.masked_conv_cases,
    "multi_level_roi_align": roi_align.cases,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print; return 0."""
    options = _parse(arguments)
    console = Console(soft_wrap=True, width=200)
    schedule = Schedule(rounds=1 if options.small else options.rounds, seconds=0.0 if options.small else 0.3)
    names = options.op or list(CASES)
    cases = [case for name in names for case in CASES[name](small=options.small)]
    measured = _on_cpu(cases, options, schedule) if options.device == "cpu" else _on_cuda(cases, options, schedule)
    rows, roofs, machines = measured
    where = platform.machine() if options.device == "cpu" else torch.cuda.get_device_name()
    print_rows(console, rows, f"{options.device} ({where})")
    print_roofs(console, roofs, machines)
    if importlib.util.find_spec("deformops") is None:
        console.print("deformops: not compared, because it is not installed (its kernels need CUDA and Python 3.12)")
    if options.targets:
        print_targets(console, rows, options.device)
    if options.json:
        found = {
            "device": options.device,
            "small": options.small,
            "machines": [vars(machine) for machine in machines],
            "rows": [row.as_json() for row in rows],
            "roofline": [roof.as_json() for roof in roofs],
        }
        options.json.write_text(json.dumps(found, indent=1))
    return 0


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--op", choices=tuple(CASES), action="append", help="measure only this op; repeat for several")
    parser.add_argument(
        "--threads", type=int, nargs="+", default=[1, 2], help="threads of both sides, then others for our side"
    )
    parser.add_argument("--rounds", type=int, default=5, help="turns of each side")
    parser.add_argument("--targets", action="store_true", help="print targets, and whether they are met")
    parser.add_argument("--small", action="store_true", help="tiny inputs, only to check that it runs")
    parser.add_argument("--json", type=Path, default=None, help="also write the measurements to this file")
    options = parser.parse_args(arguments)
    if min(options.threads) < 1 or options.rounds < 1:
        parser.error("--threads and --rounds must be at least 1")
    if options.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda: PyTorch finds no CUDA device")
    return options


def _on_cpu(
    cases: list[Case], options: argparse.Namespace, schedule: Schedule
) -> tuple[list[Row], list[Roof], list[Machine]]:
    library = visdeploy_plugins.onnxruntime_library()
    if library is None:
        raise SystemExit("the ONNX Runtime library was not built; see plugins/README.md")
    torch.set_num_threads(options.threads[0])
    machine = measure_machine(time_on_cpu, "cpu", torch.float32, options.threads[0], small=options.small)
    results = [run_on_cpu(case, options.threads, library, machine, schedule) for case in cases]
    return [row for rows, _ in results for row in rows], [roof for _, roof in results], [machine]


def _on_cuda(
    cases: list[Case], options: argparse.Namespace, schedule: Schedule
) -> tuple[list[Row], list[Roof], list[Machine]]:
    timer = cuda_timer()
    rows, roofs, machines = [], [], []
    for dtype in (torch.float32, torch.float16):
        machines.append(measure_machine(timer, "cuda", dtype, 0, small=options.small))
        for case in cases:
            more, roof = run_in_torch(case, "cuda", dtype, timer, machines[-1], schedule)
            rows += more
            roofs.append(roof)
    return rows, roofs, machines


if __name__ == "__main__":
    raise SystemExit(main())
