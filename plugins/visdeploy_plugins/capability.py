"""Report of the libraries that were built, and of the kernel that each engine uses for each operator."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path

from visdeploy_plugins import native
from visdeploy_plugins.tensorrt import PLUGINS

# Map from the name of an operator to its name in ONNX files and TensorRT.
OPS = {
    "deform_conv": "DeformConv",
    "masked_conv": "MaskedConv",
    "ms_deform_attn": "MSDeformAttn",
    "ms_deform_attn_fused": "MSDeformAttnFused",
    "multi_level_roi_align": "MultiLevelRoiAlign",
}
BODY = "function body (standard operators)"
REFERENCE = "reference (plain PyTorch)"
TENSORRT_PACKAGES = ("tensorrt", "tensorrt_rtx", "tensorrt_lean", "tensorrt_lean_bindings")
CUDA_PROVIDER = "capi/libonnxruntime_providers_cuda.so"


@dataclass(frozen=True)
class OpSupport:
    """Support of an operator by an engine.

    Attributes:
        op: Name of the operator.
        engine: Name of the engine and its device.
        runs: Kernel that the engine uses; empty if the operator cannot run.
        own_kernel: Whether this is our compiled kernel.
        why_not: Reason why it is not our kernel; empty if it is.
    """

    op: str
    engine: str
    runs: str
    own_kernel: bool
    why_not: str = ""


@dataclass(frozen=True)
class Capabilities:
    """Libraries found, and their capabilities.

    Attributes:
        operators_library: Library with the C interface, used by PyTorch; None if it was not built.
        onnxruntime_library: Library of custom operators for ONNX Runtime; None if it was not built.
        tensorrt_library: Library of TensorRT plugins; None if it was not built.
        instruction_set: Instruction set of the CPU kernels on this machine; empty if no library is usable.
        cuda_architectures: Compute capabilities for which CUDA kernels were compiled.
        ops: One entry for each pair of operator and engine.
    """

    operators_library: Path | None
    onnxruntime_library: Path | None
    tensorrt_library: Path | None
    instruction_set: str
    cuda_architectures: tuple[str, ...]
    ops: tuple[OpSupport, ...]


def capabilities() -> Capabilities:
    """Find the libraries, and determine the kernel that each engine uses for each operator.

    No engine is imported. If CUDA kernels were built, the function checks whether they run on CUDA device 0.
    """
    library, reason = native.load()
    isa = library.vd_cpu_isa().decode() if library else ""
    cuda = tuple(library.vd_cuda_architectures().decode().split()) if library else ()
    why_no_cuda = native.why_no_cuda_kernels(0)
    return Capabilities(
        operators_library=native.library_path(native.OPERATORS),
        onnxruntime_library=native.library_path(native.ONNXRUNTIME),
        tensorrt_library=native.library_path(native.TENSORRT),
        instruction_set=isa,
        cuda_architectures=cuda,
        ops=tuple(support for op in OPS for support in _support(op, isa, reason, why_no_cuda)),
    )


def _support(op: str, isa: str, why_not: str, why_no_cuda: str) -> tuple[OpSupport, ...]:
    """Return the support of an operator by each engine."""
    return (
        _onnxruntime(op, "ONNX Runtime CPU", ""),
        _onnxruntime(op, "ONNX Runtime CUDA", why_no_cuda),
        _tensorrt(op, why_no_cuda),
        _torch(op, "PyTorch CPU", f"kernel ({isa})", why_not),
        _torch(op, "PyTorch CUDA", "kernel", why_no_cuda),
    )


def _onnxruntime(op: str, engine: str, why_not: str) -> OpSupport:
    spec = importlib.util.find_spec("onnxruntime")
    if spec is None:
        return OpSupport(op, engine, "", False, "onnxruntime is not installed")
    folders = [Path(each) for each in spec.submodule_search_locations or ()]
    if engine.endswith("CUDA") and not any((each / CUDA_PROVIDER).is_file() for each in folders):
        return OpSupport(op, engine, "", False, "this onnxruntime has no CUDA provider")
    if native.library_path(native.ONNXRUNTIME) is None:
        why_not = f"{native.ONNXRUNTIME} was not built"
    return OpSupport(op, engine, BODY, False, why_not) if why_not else OpSupport(op, engine, "kernel", True)


def _tensorrt(op: str, why_no_cuda: str) -> OpSupport:
    if not any(importlib.util.find_spec(name) for name in TENSORRT_PACKAGES):
        return OpSupport(op, "TensorRT", "", False, "no TensorRT is installed for Python")
    if native.library_path(native.TENSORRT) is None:
        return OpSupport(op, "TensorRT", BODY, False, f"{native.TENSORRT} was not built: it needs nvcc")
    if OPS[op] not in PLUGINS:
        return OpSupport(op, "TensorRT", BODY, False, f"{native.TENSORRT} has no plugin {OPS[op]}")
    runs = "plugin" if not why_no_cuda else "plugin: engines can be built here, and run where there is a GPU"
    return OpSupport(op, "TensorRT", runs, True)


def _torch(op: str, engine: str, kernel: str, why_not: str) -> OpSupport:
    if importlib.util.find_spec("torch") is None:
        return OpSupport(op, engine, "", False, "torch is not installed")
    return OpSupport(op, engine, REFERENCE, False, why_not) if why_not else OpSupport(op, engine, kernel, True)
