"""Instruction sets of the processor, selection of the tests that need one, and restriction of the libraries to one.

`python -m tests.processors LEVEL [PYTEST_OPTIONS]` runs the tests marked `isa` with the libraries held to LEVEL: ours,
PyTorch with oneDNN and MKL, NumPy and OpenCV. ONNX Runtime has no such switch and takes what the processor has.
"""

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

NEEDS = {"baseline": set(), "avx2": {"avx2", "fma"}, "avx512": {"avx512f", "avx512vl", "avx512bw", "avx512dq"}}
HELD = {
    "avx2": {
        "VISDEPLOY_PLUGINS_ISA": "avx2",
        "ATEN_CPU_CAPABILITY": "avx2",
        "ONEDNN_MAX_CPU_ISA": "AVX2",
        "MKL_ENABLE_INSTRUCTIONS": "AVX2",
        "NPY_DISABLE_CPU_FEATURES": "X86_V4 AVX512_ICL AVX512_SPR",
        "OPENCV_CPU_DISABLE": "AVX512-SKX",
    },
    "baseline": {
        "VISDEPLOY_PLUGINS_ISA": "baseline",
        "ATEN_CPU_CAPABILITY": "default",
        "ONEDNN_MAX_CPU_ISA": "SSE41",
        "MKL_ENABLE_INSTRUCTIONS": "SSE4_2",
        "NPY_DISABLE_CPU_FEATURES": "X86_V3 X86_V4 AVX512_ICL AVX512_SPR",
        "OPENCV_CPU_DISABLE": "AVX512-SKX,AVX2,FP16,AVX",
    },
}


def cpu_info(field: str) -> str:
    """Return a line of the first processor in /proc/cpuinfo; empty if there is no such line."""
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    return next((line.partition(":")[2].strip() for line in lines if line.split("\t")[0] == field), "")


def instruction_sets() -> list[str]:
    """Return the instruction sets of this processor, the smallest first, with the names used by our kernels."""
    return [name for name, needed in NEEDS.items() if needed <= set(cpu_info("flags").split())]


def each_instruction_set() -> list[Any]:
    """Return the parameters of a test that runs once per instruction set, if the processor has it."""
    return [pytest.param(name, marks=pytest.mark.needs_isa(name)) for name in NEEDS]


class Capabilities:
    """Deselect the tests that this processor cannot run, and the campaign where it was not asked for; count both."""

    def __init__(self) -> None:
        self.left_out: Counter[str] = Counter()

    def pytest_collection_modifyitems(self, config: pytest.Config, items: list[pytest.Item]) -> None:
        here, kept, deselected = instruction_sets(), [], []
        for item in items:
            reasons = [
                f"this processor has no {mark.args[0]}"
                for mark in item.iter_markers("needs_isa")
                if mark.args[0] not in here
            ]
            if "campaign" not in config.option.markexpr and any(item.iter_markers("campaign")):
                reasons.append("left to `make campaign`")
            self.left_out.update(reasons[:1])
            (deselected if reasons else kept).append(item)
        if deselected:
            config.hook.pytest_deselected(items=deselected)
            items[:] = kept

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if hasattr(session.config, "workeroutput"):
            session.config.workeroutput["left_out"] = dict(self.left_out)

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        self.left_out |= Counter(getattr(node, "workeroutput", {}).get("left_out", {}))  # all workers collect the same

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        held = os.environ.get("VISDEPLOY_PLUGINS_ISA")
        held = f", libraries held to {held}" if held else ""
        terminalreporter.line(f"processor: {cpu_info('model name')}, {instruction_sets()[-1]}{held}")
        for reason, count in self.left_out.items():
            terminalreporter.line(f"{count} tests not run: {reason}", yellow=True)


def main(level: str, *options: str) -> int:
    """Run the tests marked `isa` with an instruction set; do nothing if the processor has no larger one."""
    if instruction_sets()[-1] == level:
        print(f"{level} is all that this processor has: the other tests have run on it")
        return 0
    print(f"tests held to {level} on a processor with {instruction_sets()[-1]}", flush=True)
    command = [sys.executable, "-m", "pytest", "-m", "isa and not needs_isa and not gpu", *options]
    return subprocess.call(command, env={**os.environ, **HELD[level]})


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
