"""Custom operators in C++/CUDA and their bindings.

Importing this package loads no library and imports neither torch nor onnx. The parts:

- `onnxruntime_library()`: the file to register with ONNX Runtime's session options;
- `tensorrt_library()` and `visdeploy_plugins.tensorrt`: the plugins for TensorRT's registry;
- `visdeploy_plugins.torch_ops`: the operators in PyTorch, under `torch.ops.visdeploy`;
- `visdeploy_plugins.onnx_functions`: the operators in ONNX files, each with a body of standard operators;
- `why_no_cuda_kernels(device)`: whether the kernels run on a GPU;
- `capabilities()` and `python -m visdeploy_plugins`: what was found and what runs where.
"""

from __future__ import annotations

from pathlib import Path

from visdeploy_plugins import native
from visdeploy_plugins.capability import Capabilities, OpSupport, capabilities
from visdeploy_plugins.errors import OpError
from visdeploy_plugins.native import why_no_cuda_kernels

__all__ = [
    "Capabilities",
    "OpError",
    "OpSupport",
    "capabilities",
    "onnxruntime_library",
    "operators_library",
    "tensorrt_library",
    "why_no_cuda_kernels",
]


def onnxruntime_library() -> Path | None:
    """Return the path of the library for `onnxruntime.SessionOptions.register_custom_ops_library`; None if not built.

    Without it, ONNX files that contain function bodies also run, but more slowly.
    """
    return native.library_path(native.ONNXRUNTIME)


def operators_library() -> Path | None:
    """Return the path of the library for PyTorch, with the C interface of `visdeploy/c_api.h`; None if not built."""
    return native.library_path(native.OPERATORS)


def tensorrt_library() -> Path | None:
    """Return the path of the plugins for TensorRT 10, 11 and TensorRT for RTX; None if not built (without nvcc).

    `visdeploy_plugins.tensorrt.load` loads it into a registry; for `trtexec` pass it as `--staticPlugins`.
    """
    return native.library_path(native.TENSORRT)
