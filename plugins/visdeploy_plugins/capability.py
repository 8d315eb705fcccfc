"""What was built, and which kernel each op runs on in each engine."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path

from visdeploy_plugins import native
from visdeploy_plugins.tensorrt import PLUGINS

# One line per op, and its name in ONNX files and TensorRT.
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
    """One op on one engine.

    Attributes:
        op: Name of the op.
        engine: Name of the engine and its device.
        runs: The kernel that is taken there; empty when the op cannot run there.
        own_kernel: Whether that is our compiled kernel.
        why_not: Why it is not, when it is not.
    """

    op: str
    engine: str
    runs: str
    own_kernel: bool
    why_not: str = ""


@dataclass(frozen=True)
class Capabilities:
    """The libraries found and what they offer.

    Attributes:
        operators_library: Library with the C interface, used by PyTorch; None if absent.
        onnxruntime_library: Library of ONNX Runtime custom ops; None if absent.
        tensorrt_library: Library of TensorRT plugins; None if absent.
        instruction_set: What the CPU kernels use on this machine; empty without a usable library.
        cuda_architectures: Compute capabilities that CUDA kernels were compiled for.
        ops: One entry per op and engine.
    """

    operators_library: Path | None
    onnxruntime_library: Path | None
    tensorrt_library: Path | None
    instruction_set: str
    cuda_architectures: tuple[str, ...]
    ops: tuple[OpSupport, ...]


def capabilities() -> Capabilities:
    """Finds the libraries and says which kernel each op runs on.

    Imports no engine. Where CUDA kernels were built, CUDA device 0 is asked whether they run there.
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
    """One op on each engine."""
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
