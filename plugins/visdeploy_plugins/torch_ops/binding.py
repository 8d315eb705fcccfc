"""Functions shared by all PyTorch operators: tensors as C views, and the choice between kernel and reference."""

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
    """Return the description of a tensor for the C interface."""
    return native.TensorView(
        tensor.data_ptr(), tuple(tensor.shape), tensor.stride(), str(tensor.dtype).removeprefix("torch.")
    )


def call(function: str, tensors: Sequence[Tensor | None], params: ctypes.Structure | None = None) -> None:
    """Call a function of the C interface on the device of its tensors.

    On the CPU it uses as many threads as PyTorch. On a CUDA device it uses the current stream of PyTorch; it neither
    waits for the device nor allocates memory, so that the call can be captured in a CUDA graph.

    Raises:
        OpError: The tensors do not match the op, or are on different devices.
    """
    views = [None if tensor is None else view(tensor) for tensor in tensors]
    device = _common_device(function, tensors)
    if device.type != "cuda":
        return native.call(function, views, params=params, threads=torch.get_num_threads())
    with torch.cuda.device(device):
        if reason := native.set_cuda_device(device.index):
            raise OpError(f"{function}: {reason}")
        return native.call(function, views, params=params, stream=torch.cuda.current_stream(device).cuda_stream)


def _common_device(function: str, tensors: Sequence[Tensor | None]) -> torch.device:
    present = [tensor for tensor in tensors if tensor is not None]
    device = present[0].device
    for position, tensor in enumerate(tensors):
        if tensor is not None and tensor.device != device:
            raise OpError(f"{function}: tensor {position} is elsewhere", seen=str(tensor.device), expected=str(device))
    return device


def has_kernel(op: str, tensor: Tensor) -> bool:
    """Return whether the kernel runs on the device of a tensor; if not, warn once per op and device."""
    reason = why_no_kernel(tensor.device)
    if reason:
        _warn_once(op, str(tensor.device), reason)
    return not reason


def why_no_kernel(device: torch.device) -> str:
    """Return the reason why the kernels do not run on a device, such as a missing architecture; empty if they do."""
    if device.type == "cuda":
        return _why_no_cuda_kernel(torch.cuda.current_device() if device.index is None else device.index)
    library, reason = native.load()
    return reason if library is None or device.type == "cpu" else "no kernel is bound to this device"


@functools.cache
def _why_no_cuda_kernel(index: int) -> str:
    with torch.cuda.device(index):
        return native.set_cuda_device(index)


def check(op: str, name: str, tensor: Tensor, shape: Sequence[int], dtype: torch.dtype) -> None:
    """Check one tensor for the reference, with the same message as the check in the kernel.

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
