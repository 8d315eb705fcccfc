"""Which instruction sets this processor has, which tests need one, and how the libraries are held to a smaller one.

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


def instruction_sets() -> list[str]:
    """Those that this processor has, the smallest first; called as our kernels call them."""
    text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    flags = next((line.split(":")[1].split() for line in text.splitlines() if line.startswith("flags")), [])
    return [name for name, needed in NEEDS.items() if needed <= set(flags)]


def each_instruction_set() -> list[Any]:
    """Parameters of a test that runs once per instruction set, where the processor has it."""
    return [pytest.param(name, marks=pytest.mark.needs_isa(name)) for name in NEEDS]


class Capabilities:
    """Deselect the tests that this processor cannot run, and state how many they are."""

    def __init__(self) -> None:
        self.missing: Counter[str] = Counter()

    def pytest_collection_modifyitems(self, config: pytest.Config, items: list[pytest.Item]) -> None:
        here, left = instruction_sets(), []
        for item in items:
            needed = [mark.args[0] for mark in item.iter_markers("needs_isa") if mark.args[0] not in here]
            self.missing.update(needed[:1])
            if needed:
                left.append(item)
        if left:
            config.hook.pytest_deselected(items=left)
            items[:] = [item for item in items if item not in left]

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if hasattr(session.config, "workeroutput"):
            session.config.workeroutput["missing"] = dict(self.missing)

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        self.missing |= Counter(getattr(node, "workeroutput", {}).get("missing", {}))  # all workers collect the same

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        for name, count in self.missing.items():
            terminalreporter.line(f"{count} tests not run: this processor has no {name}", yellow=True)


def main(level: str, *options: str) -> int:
    """Run the tests marked `isa`, held to a level; nothing where the processor has no more than that."""
    if instruction_sets()[-1] == level:
        print(f"{level} is all that this processor has: the other tests have run on it")
        return 0
    print(f"tests held to {level} on a processor with {instruction_sets()[-1]}", flush=True)
    command = [sys.executable, "-m", "pytest", "-m", "isa and not needs_isa and not gpu", *options]
    return subprocess.call(command, env={**os.environ, **HELD[level]})


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
