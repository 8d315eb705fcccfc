"""What every PyTorch operator of ours needs: tensors as C views, and the choice between kernel and reference."""

from __future__ import annotations

import ctypes
import functools
import warnings
from collections.abc import Sequence

import torch
from torch import Tensor

from visdeploy_plugins import native
from visdeploy_plugins.errors import OpError


def view(tensor: Tensor) -> native.TensorView:
    """A tensor as the C interface sees it."""
    return native.TensorView(
        tensor.data_ptr(), tuple(tensor.shape), tensor.stride(), str(tensor.dtype).removeprefix("torch.")
    )


def call(function: str, tensors: Sequence[Tensor | None], params: ctypes.Structure | None = None) -> None:
    """Calls a function of the C interface where its first tensor is.

    On the CPU with as many threads as PyTorch uses, on a CUDA device on PyTorch's current stream.
    """
    views = [None if tensor is None else view(tensor) for tensor in tensors]
    device = next(tensor.device for tensor in tensors if tensor is not None)
    if device.type == "cuda":
        with torch.cuda.device(device):
            native.call(function, views, params=params, stream=torch.cuda.current_stream(device).cuda_stream)
    else:
        native.call(function, views, params=params, threads=torch.get_num_threads())


def has_kernel(op: str, tensor: Tensor) -> bool:
    """Whether our kernel takes this call; warns once per op and device when it does not."""
    library, reason = native.load()
    if library is not None and (tensor.device.type == "cpu" or (tensor.device.type == "cuda" and _built_for_cuda())):
        return True
    if library is not None:
        reason = "built without nvcc" if tensor.device.type == "cuda" else "no kernel is bound to this device"
    _warn_once(op, tensor.device.type, reason)
    return False


def _built_for_cuda() -> bool:
    library, _ = native.load()
    return library is not None and bool(library.vd_cuda_architectures())


def check(op: str, name: str, tensor: Tensor, shape: Sequence[int], dtype: torch.dtype) -> None:
    """Checks one tensor for the reference, with the message that the kernel's own check would give.

    Raises:
        OpError: Shape, dtype or layout is wrong.
    """
    if tensor.dtype != dtype:
        seen, expected = (str(each).removeprefix("torch.") for each in (tensor.dtype, dtype))
        raise OpError(f"{op}: tensor {name} has the wrong dtype", seen=seen, expected=expected)
    if tuple(tensor.shape) != tuple(shape):
        raise OpError(
            f"{op}: tensor {name} has the wrong shape", seen=str(list(tensor.shape)), expected=str(list(shape))
        )
    if not tensor.is_contiguous():
        raise OpError(
            f"{op}: tensor {name} is not contiguous",
            seen=f"strides {list(tensor.stride())} for shape {list(tensor.shape)}",
            expected="a contiguous tensor",
        )


@functools.cache
def _warn_once(op: str, device: str, reason: str) -> None:
    warnings.warn(f"visdeploy::{op} runs its PyTorch reference on {device}: {reason}", RuntimeWarning, stacklevel=4)
