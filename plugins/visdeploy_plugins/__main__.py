"""Command `python -m visdeploy_plugins`: report the libraries found, their capabilities, and where each op runs."""

from __future__ import annotations

import sys

from visdeploy_plugins.capability import Capabilities, capabilities


def report(found: Capabilities) -> str:
    """Format the report as text, one item per line."""
    lines = [
        f"operators library    {found.operators_library or 'not built'}",
        f"ONNX Runtime library {found.onnxruntime_library or 'not built'}",
        f"TensorRT library     {found.tensorrt_library or 'not built: it needs nvcc'}",
        f"CPU instruction set  {found.instruction_set or 'none: no usable library'}",
        f"CUDA architectures   {' '.join(found.cuda_architectures) or 'none: built without nvcc'}",
        "",
    ]
    for op in found.ops:
        why = f"; not our kernel: {op.why_not}" if op.why_not else ""
        lines.append(f"{op.op} on {op.engine}: {op.runs or 'cannot run'}{why}")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.stdout.write(report(capabilities()))
