"""Loading of the compiled operator library, and calls of its C interface (`include/visdeploy/c_api.h`)."""

from __future__ import annotations

import ctypes
import functools
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from visdeploy_plugins.errors import OpError

ABI_VERSION = 3
OPERATORS = "libvisdeploy_ops.so"
ONNXRUNTIME = "libvisdeploy_onnxruntime.so"
TENSORRT = "libvisdeploy_tensorrt.so"
DTYPES = {"float32": 1, "float64": 2, "float16": 3, "bfloat16": 4, "int64": 5, "int32": 6, "bool": 7}
# Built for tests only: the CUDA kernels compiled for the host, with the C interface and as ONNX Runtime operators.
EMULATION = "libvisdeploy_emulation.so"
ONNXRUNTIME_EMULATION = "libvisdeploy_onnxruntime_emulation.so"


@dataclass(frozen=True)
class Signature:
    """Parameters of a function of the C interface, before the number of threads or the CUDA stream.

    Attributes:
        tensors: Number of tensors, including optional ones.
        params: Structure that follows the tensors, if any.
        cuda: Whether there is a second function named `..._cuda`, for tensors in device memory, with a CUDA stream.
    """

    tensors: int
    params: type[ctypes.Structure] | None = None
    cuda: bool = True


class DeformConvParams(ctypes.Structure):
    """`vd_deform_conv_params` of the C interface."""

    _fields_ = (
        ("stride", ctypes.c_int64 * 2),
        ("padding", ctypes.c_int64 * 4),
        ("dilation", ctypes.c_int64 * 2),
        ("groups", ctypes.c_int64),
        ("offset_groups", ctypes.c_int64),
    )


class MaskedConvParams(ctypes.Structure):
    """`vd_masked_conv_params` of the C interface; pairs are (vertical, horizontal)."""

    _fields_ = (
        ("stride", ctypes.c_int64 * 2),
        ("padding", ctypes.c_int64 * 2),
        ("dilation", ctypes.c_int64 * 2),
        ("groups", ctypes.c_int64),
    )


class RoiAlignParams(ctypes.Structure):
    """`vd_roi_align_params` of the C interface."""

    _fields_ = (
        ("output_height", ctypes.c_int64),
        ("output_width", ctypes.c_int64),
        ("sampling_ratio", ctypes.c_int64),
        ("levels", ctypes.c_int64),
        ("finest_scale", ctypes.c_float),
        ("spatial_scales", ctypes.c_float * 8),
    )


class EmbeddingClustersParams(ctypes.Structure):
    """`vd_embedding_clusters_params` of the C interface."""

    _fields_ = (
        ("min_seediness", ctypes.c_float),
        ("primary_distance", ctypes.c_float),
        ("secondary_distance", ctypes.c_float),
        ("max_clusters", ctypes.c_int32),
    )


FUNCTIONS = {
    "vd_deform_conv_forward": Signature(6, DeformConvParams),
    "vd_deform_conv_backward": Signature(10, DeformConvParams),
    "vd_ms_deform_attn_forward": Signature(6),
    "vd_ms_deform_attn_backward": Signature(9),
    "vd_ms_deform_attn_fused_forward": Signature(7),
    "vd_masked_conv_forward": Signature(5, MaskedConvParams),
    "vd_masked_conv_backward": Signature(7, MaskedConvParams),
    "vd_multi_level_roi_align_forward": Signature(11, RoiAlignParams),
    "vd_multi_level_roi_align_backward": Signature(11, RoiAlignParams),
    "vd_embedding_clusters": Signature(8, EmbeddingClustersParams, cuda=False),
}


class _Tensor(ctypes.Structure):
    """`vd_tensor` of the C interface."""

    _fields_ = (
        ("data", ctypes.c_void_p),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("rank", ctypes.c_int32),
        ("dtype", ctypes.c_int32),
    )


@dataclass(frozen=True)
class TensorView:
    """Description of a tensor of the caller, whose memory must stay valid during the call.

    Attributes:
        data: Address of the first element, in host or device memory; 0 for an empty tensor.
        shape: Dimensions.
        strides: Distance between neighbours along each dimension, in elements.
        dtype: Name of the element type, for example "float32".
    """

    data: int
    shape: Sequence[int]
    strides: Sequence[int]
    dtype: str

    def to_c(self) -> _Tensor:
        """Return the C structure, which keeps references to the arrays that it points to."""
        dims = ctypes.c_int64 * len(self.shape)
        shape, strides = dims(*self.shape), dims(*self.strides)
        return _Tensor(self.data or None, shape, strides, len(self.shape), DTYPES.get(self.dtype, 0))


def library_path(name: str) -> Path | None:
    """Return the path of the library with this file name in the folder of this module; None if it was not built."""
    path = Path(__file__).with_name(name)
    return path if path.is_file() else None


@functools.cache
def load() -> tuple[ctypes.CDLL | None, str]:
    """Return the operator library, or None and the reason why it is not available."""
    path = library_path(OPERATORS)
    if path is None:
        return None, f"{OPERATORS} was not built: install from source with a C++17 compiler, cmake and ninja"
    return open_library(path)


def open_library(path: Path) -> tuple[ctypes.CDLL | None, str]:
    """Load a library with the C interface. Return it, or None and the reason why it cannot be used."""
    try:
        library = ctypes.CDLL(str(path))
    except OSError as error:
        return None, f"{path.name} does not load: {error}"
    if (version := library.vd_abi_version()) != ABI_VERSION:
        return None, f"{path.name} has interface version {version}, expected {ABI_VERSION}: reinstall the package"
    try:
        _declare(library)
    except AttributeError as error:
        return None, f"{path.name} is of another version than this package ({error}): build it again, or reinstall"
    if library.vd_cpu_isa() is None:
        return None, library.vd_last_error().decode()
    return library, ""


def _declare(library: ctypes.CDLL) -> None:
    """Declare the types of the functions for ctypes.

    Raises:
        AttributeError: The library lacks a function.
    """
    for name in ("vd_last_error", "vd_cpu_isa", "vd_cuda_architectures"):
        getattr(library, name).restype = ctypes.c_char_p
    library.vd_cuda_set_device.argtypes = [ctypes.c_int]
    for name, signature in FUNCTIONS.items():
        arguments: list[object] = [ctypes.POINTER(_Tensor)] * signature.tensors
        arguments += [ctypes.POINTER(signature.params)] if signature.params else []
        getattr(library, name).argtypes = [*arguments, ctypes.c_int]
        if signature.cuda:
            getattr(library, f"{name}_cuda").argtypes = [*arguments, ctypes.c_void_p]


def set_cuda_device(device: int) -> str:
    """Set the CUDA device that `call` uses in this thread.

    Returns:
        Reason why our kernels cannot run on the device; empty if they can.
    """
    library, reason = load()
    if library is None:
        return reason
    if not library.vd_cuda_architectures():
        return "built without nvcc"
    return library.vd_last_error().decode() if library.vd_cuda_set_device(device) else ""


def why_no_cuda_kernels(device: int = 0) -> str:
    """Return the reason why our kernels cannot run on a CUDA device; empty if they can.

    The check runs in a separate thread, because it changes the current CUDA device of its thread.

    Args:
        device: Number of the device among those that are visible to CUDA.
    """
    answers: list[str] = []
    asking = threading.Thread(target=lambda: answers.append(set_cuda_device(device)))
    asking.start()
    asking.join()
    return answers[0]


def call(
    function: str,
    tensors: Sequence[TensorView | None],
    *,
    params: ctypes.Structure | None = None,
    threads: int = 1,
    stream: int | None = None,
    library: ctypes.CDLL | None = None,
) -> None:
    """Call a function of the C interface; the outputs among `tensors` are written in place.

    Args:
        function: Name of the function, one of `FUNCTIONS`.
        tensors: Tensors of the function, in order; None for an optional tensor that is not given.
        params: Parameters of the function, of the structure in its signature.
        threads: Maximum number of threads on the CPU.
        stream: CUDA stream. If given, the CUDA version of the function runs, on tensors in device memory, and the call
            returns without waiting for it.
        library: Library to use instead of the installed one, with the same interface.

    Raises:
        OpError: The library is not available, or the tensors do not match the operator or each other.
    """
    reason = ""
    if library is None:
        library, reason = load()
    if library is None:
        raise OpError(f"{function}: {reason}")
    structures = [None if tensor is None else tensor.to_c() for tensor in tensors]
    arguments: list[object] = [None if each is None else ctypes.byref(each) for each in structures]
    arguments += [] if params is None else [ctypes.byref(params)]
    name, last = (function, threads) if stream is None else (f"{function}_cuda", stream)
    if getattr(library, name)(*arguments, last):
        raise OpError(library.vd_last_error().decode())
