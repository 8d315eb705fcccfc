"""`torch.ops.visdeploy.masked_conv`: convolution where a mask is positive, with gradients."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from visdeploy_plugins.errors import OpError
from visdeploy_plugins.native import MaskedConvParams
from visdeploy_plugins.torch_ops.binding import call, has_kernel
from visdeploy_plugins.torch_ops.masked_conv_reference import (
    OP,
    masked_conv_reference,
    masked_conv_reference_backward,
)

# The schema is explicit, because a Python signature cannot express that one number may be passed for a pair.
_PARAMETERS = "int[2] stride=1, int[2] padding=0, int[2] dilation=1, int groups=1"


@torch.library.custom_op(
    "visdeploy::masked_conv",
    mutates_args=(),
    schema=f"(Tensor x, Tensor mask, Tensor weight, Tensor? bias=None, *, {_PARAMETERS}) -> Tensor",
)
def masked_conv(
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
    """Compute a convolution at positions where the mask is positive; the output is exactly 0 at all other positions.

    Neither the bias nor NaN reaches inactive positions. The mask has the resolution of the output, and only its sign
    matters: NaN, zeros and negative values are inactive, infinity is active. x is read in full, also where the mask is
    not positive. Sums are float32 for all dtypes except float64. The mask gets no gradient; the other gradients are
    those of the convolution, with the gradient of the output set to 0 at inactive positions.

    The operator is part of the gated blocks of Temporal Pyramid Routing (Li et al., TPAMI 2023).

    Args:
        x: [N, C, H, W], floating point.
        mask: [N, H_out, W_out], bool, float32 or of x's dtype.
        weight: [O, C / groups, kernel height, kernel width], of x's dtype.
        bias: [O], of x's dtype, or None.
        stride: Stride of the kernel, (vertical, horizontal) or one number for both; the same applies to the next two.
        padding: Zero padding of x, the same on opposite sides.
        dilation: Dilation of the kernel.
        groups: Number of groups of channels that are convolved separately.

    Returns:
        [N, O, H_out, W_out], with `H_out = (H + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1`.

    Raises:
        OpError: A tensor has a wrong dtype, does not match the others, or is not contiguous; or a parameter is out of
            range.
    """
    geometry = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    if not has_kernel(OP, x):
        return masked_conv_reference(x, mask, weight, bias, **geometry)  # type: ignore[arg-type]
    output: Tensor = _shape_of_output(x, mask, weight, bias, stride, padding, dilation, groups)
    call("vd_masked_conv_forward", (x, mask, weight, bias, output), _params(stride, padding, dilation, groups))
    return output


@torch.library.custom_op(
    "visdeploy::masked_conv_backward",
    mutates_args=(),
    schema=f"(Tensor x, Tensor mask, Tensor weight, Tensor grad_output, *, {_PARAMETERS}) -> (Tensor, Tensor, Tensor)",
)
def masked_conv_backward(
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
    """Compute the gradients of `masked_conv` for x, weight and bias."""
    geometry = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    if not has_kernel(OP, x):
        return masked_conv_reference_backward(x, mask, weight, grad_output, **geometry)  # type: ignore[arg-type]
    dtype = x.dtype
    if dtype in (torch.float16, torch.bfloat16):
        # The gradient of a weight is a sum over thousands of positions: half precision is too inaccurate.
        x, weight, grad_output = x.float(), weight.float(), grad_output.float()
        mask = mask if mask.dtype == torch.bool else mask.float()
    grads = torch.empty_like(x), torch.empty_like(weight), weight.new_empty(weight.shape[0])
    params = _params(stride, padding, dilation, groups)
    call("vd_masked_conv_backward", (x, mask, weight, grad_output, *grads), params)
    return grads[0].to(dtype), grads[1].to(dtype), grads[2].to(dtype)


def _params(stride: Sequence[int], padding: Sequence[int], dilation: Sequence[int], groups: int) -> MaskedConvParams:
    pairs = {"stride": stride, "padding": padding, "dilation": dilation}
    for name, pair in pairs.items():
        if len(pair) != 2:
            raise OpError(f"{OP}: parameter {name}", seen=str(list(pair)), expected="two numbers")
    return MaskedConvParams(*((ctypes.c_int64 * 2)(*pair) for pair in pairs.values()), groups)


@masked_conv.register_fake
def _shape_of_output(
    x: Tensor,
    mask: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Sequence[int] = (1, 1),
    padding: Sequence[int] = (0, 0),
    dilation: Sequence[int] = (1, 1),
    groups: int = 1,
) -> Tensor:
    # The size is that of the mask, which the kernel checks, so that no arithmetic on symbolic sizes is needed.
    size = mask.shape[1:] if mask.dim() == 3 else (0, 0)
    return x.new_empty((x.shape[0] if x.dim() else 0, weight.shape[0] if weight.dim() else 0, *size))


@masked_conv_backward.register_fake
def _shapes_of_gradients(
    x: Tensor,
    mask: Tensor,
    weight: Tensor,
    grad_output: Tensor,
    stride: Sequence[int] = (1, 1),
    padding: Sequence[int] = (0, 0),
    dilation: Sequence[int] = (1, 1),
    groups: int = 1,
) -> tuple[Tensor, Tensor, Tensor]:
    return torch.empty_like(x), torch.empty_like(weight), weight.new_empty(weight.shape[0])


def _save_inputs(ctx: Any, inputs: tuple[Tensor, ...], keyword_only_inputs: dict[str, Any], output: Tensor) -> None:
    x, mask, weight, bias = inputs
    ctx.save_for_backward(x, mask, weight)
    ctx.has_bias, ctx.geometry = bias is not None, keyword_only_inputs


def _backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
    # Autograd may pass a gradient that is not contiguous, for example one expanded from a scalar.
    grad_output = grad_output.contiguous()
    grads = torch.ops.visdeploy.masked_conv_backward(*ctx.saved_tensors, grad_output, **ctx.geometry)
    return grads[0], None, grads[1], grads[2] if ctx.has_bias else None


masked_conv.register_autograd(_backward, setup_context=_save_inputs)
