"""What was built, and which kernel each op runs on in each engine."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path

from visdeploy_plugins import native

OPS = ("deform_conv", "masked_conv", "ms_deform_attn")


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
    """Finds the libraries and says which kernel each op runs on. Imports no engine."""
    library, reason = native.load()
    isa = library.vd_cpu_isa().decode() if library else ""
    cuda = tuple(library.vd_cuda_architectures().decode().split()) if library else ()
    return Capabilities(
        operators_library=native.library_path(native.OPERATORS),
        onnxruntime_library=native.library_path(native.ONNXRUNTIME),
        instruction_set=isa,
        cuda_architectures=cuda,
        ops=tuple(support for op in OPS for support in _support(op, isa, reason, bool(cuda))),
    )


def _support(op: str, isa: str, reason: str, cuda: bool) -> list[OpSupport]:
    body = "function body (standard operators)"
    reference = "reference (plain PyTorch)"
    kernel = "the compiled CUDA kernel is reached through the C interface only" if cuda else "built without nvcc"
    return [
        _onnxruntime_cpu(op, body),
        OpSupport(op, "ONNX Runtime CUDA", body, False, f"no binding to the CUDA provider; {kernel}"),
        OpSupport(op, "TensorRT", body, False, "no TensorRT plugin in this version"),
        _torch(OpSupport(op, "PyTorch CPU", f"kernel ({isa})" if isa else reference, bool(isa), reason)),
        _torch(OpSupport(op, "PyTorch CUDA", reference, False, f"no binding to PyTorch's CUDA device; {kernel}")),
    ]


def _onnxruntime_cpu(op: str, body: str) -> OpSupport:
    engine = "ONNX Runtime CPU"
    if importlib.util.find_spec("onnxruntime") is None:
        return OpSupport(op, engine, "", False, "onnxruntime is not installed")
    if native.library_path(native.ONNXRUNTIME) is None:
        return OpSupport(op, engine, body, False, f"{native.ONNXRUNTIME} was not built")
    return OpSupport(op, engine, "kernel", True)


def _torch(support: OpSupport) -> OpSupport:
    if importlib.util.find_spec("torch") is None:
        return OpSupport(support.op, support.engine, "", False, "torch is not installed")
    return support
