"""What was built, and which kernel each op runs on in each engine."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass, replace
from pathlib import Path

from visdeploy_plugins import native

OPS = ("deform_conv", "masked_conv", "ms_deform_attn", "ms_deform_attn_fused", "multi_level_roi_align")
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
        instruction_set: What the CPU kernels use on this machine; empty without a usable library.
        cuda_architectures: Compute capabilities that CUDA kernels were compiled for.
        ops: One entry per op and engine.
    """

    operators_library: Path | None
    onnxruntime_library: Path | None
    instruction_set: str
    cuda_architectures: tuple[str, ...]
    ops: tuple[OpSupport, ...]


def capabilities() -> Capabilities:
    """Finds the libraries and says which kernel each op runs on.

    Imports no engine. Where CUDA kernels were built it makes CUDA device 0 ready, to ask whether they run there.
    """
    library, reason = native.load()
    isa = library.vd_cpu_isa().decode() if library else ""
    cuda = tuple(library.vd_cuda_architectures().decode().split()) if library else ()
    why_no_cuda = native.set_cuda_device(0)
    return Capabilities(
        operators_library=native.library_path(native.OPERATORS),
        onnxruntime_library=native.library_path(native.ONNXRUNTIME),
        instruction_set=isa,
        cuda_architectures=cuda,
        ops=tuple(support for op in OPS for support in _support(op, isa, reason, why_no_cuda)),
    )


def _support(op: str, isa: str, reason: str, why_no_cuda: str) -> list[OpSupport]:
    body = "function body (standard operators)"
    reference = "reference (plain PyTorch)"
    return [
        _onnxruntime(OpSupport(op, "ONNX Runtime CPU", "kernel", True), body),
        _onnxruntime(OpSupport(op, "ONNX Runtime CUDA", "kernel", not why_no_cuda, why_no_cuda), body),
        OpSupport(op, "TensorRT", body, False, "no TensorRT plugin in this version"),
        _torch(OpSupport(op, "PyTorch CPU", f"kernel ({isa})" if isa else reference, bool(isa), reason)),
        _torch(OpSupport(op, "PyTorch CUDA", reference if why_no_cuda else "kernel", not why_no_cuda, why_no_cuda)),
    ]


def _onnxruntime(support: OpSupport, body: str) -> OpSupport:
    spec = importlib.util.find_spec("onnxruntime")
    if spec is None:
        return replace(support, runs="", own_kernel=False, why_not="onnxruntime is not installed")
    folders = [Path(each) for each in spec.submodule_search_locations or ()]
    if support.engine.endswith("CUDA") and not any((each / CUDA_PROVIDER).is_file() for each in folders):
        return replace(support, runs="", own_kernel=False, why_not="this onnxruntime has no CUDA provider")
    if native.library_path(native.ONNXRUNTIME) is None:
        return replace(support, runs=body, own_kernel=False, why_not=f"{native.ONNXRUNTIME} was not built")
    return support if support.own_kernel else replace(support, runs=body)


def _torch(support: OpSupport) -> OpSupport:
    if importlib.util.find_spec("torch") is None:
        return OpSupport(support.op, support.engine, "", False, "torch is not installed")
    return support
