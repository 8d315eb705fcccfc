"""Run of every operator on each of its memory access paths, to be checked by compute-sanitizer.

    compute-sanitizer --tool memcheck python -m tests.visdeploy_plugins.gpu.driver memcheck

The tool is many times slower than the device, so that racecheck gets float32 alone. What comes out is also compared
with the CPU kernels: a run that computed nothing would find nothing.
"""

import sys
import warnings

import torch

from tests.visdeploy_plugins import device_checks
from tests.visdeploy_plugins.device_cases import DTYPES, OPS


def main(tool: str) -> int:
    """Run all operators; return 0 if all outcomes are correct."""
    warnings.simplefilter("error", RuntimeWarning)  # as would be given where a reference stands in for a kernel
    device = torch.device("cuda", 0)
    for name, op in OPS.items():
        for dtype in DTYPES if tool == "memcheck" else (torch.float32,):
            for sizes in op.shapes.values():
                device_checks.check_against_cpu(op, device_checks.random_case(op, 101, **sizes), dtype, device)
            if tool == "memcheck":
                device_checks.check_unaligned(op, dtype, device)
                for hostile in device_checks.HOSTILE:
                    device_checks.check_hostile_points(op, hostile, dtype, device)
            torch.cuda.synchronize(device)
            sys.stdout.write(f"{name} {dtype}: right\n")
            sys.stdout.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
