"""What every PyTorch operator of ours needs: tensors as C views, and the choice between kernel and reference."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Sequence

import torch
from torch import Tensor

from visdeploy_plugins import native
from visdeploy_plugins.errors import OpError


def view(tensor: Tensor) -> native.TensorView:
    """A CPU tensor as the C interface sees it."""
    return native.TensorView(
        tensor.data_ptr(), tuple(tensor.shape), tensor.stride(), str(tensor.dtype).removeprefix("torch.")
    )


def call(function: str, tensors: Sequence[Tensor]) -> None:
    """Calls a function of the C interface with as many threads as PyTorch uses."""
    native.call(function, [view(tensor) for tensor in tensors], threads=torch.get_num_threads())


def has_kernel(op: str, tensor: Tensor) -> bool:
    """Whether our kernel takes this call; warns once per op and device when it does not."""
    library, reason = native.load()
    if tensor.device.type == "cpu" and library is not None:
        return True
    _warn_once(op, tensor.device.type, reason if tensor.device.type == "cpu" else "no kernel is bound to this device")
    return False


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
