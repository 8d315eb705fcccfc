"""Description of the processor; measurements on different machines are not comparable."""

from __future__ import annotations

import os
from pathlib import Path

_SETS = (("avx512f", "AVX-512"), ("avx2", "AVX2"), ("sse4_2", "SSE4.2"))


def machine_line() -> str:
    """Return the processor, its widest vector instructions, and the number of cores that this process may use."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    facts = {name.strip(): value.strip() for name, colon, value in (line.partition(":") for line in lines) if colon}
    flags = set(facts.get("flags", "").split())
    name = facts.get("model name", "unknown processor")
    isa = next((title for flag, title in _SETS if flag in flags), "no known vector instructions")
    return f"{name}, {isa}, {len(os.sched_getaffinity(0))} cores"


if __name__ == "__main__":
    print(machine_line())
