"""Masked convolution in plain PyTorch: the reference for tests of the kernels, and the fallback."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from visdeploy_plugins.errors import OpError
from visdeploy_plugins.torch_ops.binding import check

OP = "masked_conv"
_LARGEST = 2**31 - 1


def masked_conv_reference(
    x: Tensor,
    mask: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    stride: Sequence[int] = (1, 1),
    padding: Sequence[int] = (0, 0),
    dilation: Sequence[int] = (1, 1),
    groups: int = 1,
) -> Tensor:
    """Compute `masked_conv`, with the same arguments and result, in differentiable operators of PyTorch."""
    _check(x, mask, weight, bias, stride, padding, dilation, groups)
    wide = _wide(x.dtype)
    dense = torch.nn.functional.conv2d(
        x.to(wide),
        weight.to(wide),
        None if bias is None else bias.to(wide),
        list(stride),
        list(padding),
        list(dilation),
        groups,
    )
    return torch.where((mask > 0)[:, None], dense, 0.0).to(x.dtype)


def masked_conv_reference_backward(
    x: Tensor,
    mask: Tensor,
    weight: Tensor,
    grad_output: Tensor,
    *,
    stride: Sequence[int] = (1, 1),
    padding: Sequence[int] = (0, 0),
    dilation: Sequence[int] = (1, 1),
    groups: int = 1,
) -> tuple[Tensor, Tensor, Tensor]:
    """Compute the gradients for x, weight and bias without autograd."""
    _check(x, mask, weight, None, stride, padding, dilation, groups)
    wide = _wide(x.dtype)
    grads = torch.ops.aten.convolution_backward(
        torch.where((mask > 0)[:, None], grad_output.to(wide), 0.0),
        x.to(wide),
        weight.to(wide),
        [weight.shape[0]],
        list(stride),
        list(padding),
        list(dilation),
        False,
        [0, 0],
        groups,
        [True, True, True],
    )
    return tuple(each.to(x.dtype).contiguous() for each in grads)


def _wide(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype == torch.float64 else torch.float32


def _check(
    x: Tensor,
    mask: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
) -> None:
    for name, tensor, rank in (("x", x, 4), ("weight", weight, 4), ("mask", mask, 3)):
        if tensor.dim() != rank:
            seen = f"{tensor.dim()} in {list(tensor.shape)}"
            raise OpError(f"{OP}: tensor {name} has the wrong number of dimensions", seen=seen, expected=str(rank))
    if not x.is_floating_point():
        raise OpError(f"{OP}: tensor x has the wrong dtype", seen=str(x.dtype), expected="a floating-point one")
    for name, pair, least in (("stride", stride, 1), ("padding", padding, 0), ("dilation", dilation, 1)):
        if len(pair) != 2 or not all(least <= each <= _LARGEST for each in pair):
            expected = f"two numbers from {least} to {_LARGEST}"
            raise OpError(f"{OP}: parameter {name}", seen=str(list(pair)), expected=expected)
    check(OP, "x", x, x.shape, x.dtype)
    check(OP, "weight", weight, weight.shape, x.dtype)
    for name, tensor in (("x", x), ("weight", weight)):
        if min(tensor.shape[1:]) < 1 or weight.shape[0] < 1:
            expected = "at least 1 along each dimension; a batch may be empty"
            raise OpError(
                f"{OP}: tensor {name} has an impossible size", seen=str(list(tensor.shape)), expected=expected
            )
    if groups < 1 or x.shape[1] % groups or weight.shape[0] % groups:
        expected = f"a divisor of the {x.shape[1]} input and {weight.shape[0]} output channels"
        raise OpError(f"{OP}: parameter groups", seen=str(groups), expected=expected)
    check(OP, "weight", weight, (weight.shape[0], x.shape[1] // groups, *weight.shape[2:]), x.dtype)
    size = []
    for axis in (0, 1):
        padded = x.shape[axis + 2] + 2 * padding[axis]
        reach = dilation[axis] * (weight.shape[axis + 2] - 1) + 1
        if padded < reach:
            what = f"{OP}: tensor weight is larger than the padded input"
            raise OpError(what, seen=f"{reach} along axis {axis + 2}", expected=f"at most {padded}")
        size.append((padded - reach) // stride[axis] + 1)
    allowed = dict.fromkeys((x.dtype, torch.float32, torch.bool))
    if mask.dtype not in allowed:
        expected = " or ".join(str(each).removeprefix("torch.") for each in allowed)
        seen = str(mask.dtype).removeprefix("torch.")
        raise OpError(f"{OP}: tensor mask has the wrong dtype", seen=seen, expected=expected)
    check(OP, "mask", mask, (x.shape[0], *size), mask.dtype)
    if bias is not None:
        check(OP, "bias", bias, (weight.shape[0],), x.dtype)
