"""`torch.ops.visdeploy.deform_conv`: deformable convolution v1 and v2 with gradients."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from visdeploy_plugins import native
from visdeploy_plugins.torch_ops.binding import call, has_kernel
from visdeploy_plugins.torch_ops.deform_conv_reference import (
    OP,
    Geometry,
    deform_conv_reference,
    deform_conv_reference_backward,
    geometry,
    output_size,
)


@torch.library.custom_op("visdeploy::deform_conv", mutates_args=())
def deform_conv(
    input: Tensor,
    offset: Tensor,
    weight: Tensor,
    mask: Tensor | None = None,
    bias: Tensor | None = None,
    *,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
    offset_groups: int,
) -> Tensor:
    """Compute a deformable convolution: each kernel tap is moved by an offset, and multiplied by a mask.

    Tap (i, j) of output (y, x) samples the input with bilinear interpolation at
    `(y * stride - top + i * dilation + offset_y, ...)`; the input is zero outside the map. Coordinates and sums are
    float32 for all dtypes except float64.

    Args:
        input: [N, C, H, W], floating point.
        offset: [N, 2 * DG * kh * kw, OH, OW], in pixels: for each offset group and tap first y, then x. Points that are
            NaN, infinite or outside the map contribute nothing.
        weight: [O, C / groups, kh, kw].
        mask: [N, DG * kh * kw, OH, OW], used without an activation; None for version 1.
        bias: [O], or None.
        stride: (y, x).
        padding: (y, x), or (top, left, bottom, right).
        dilation: (y, x).
        groups: Number of groups of the convolution, a divisor of C and O.
        offset_groups: DG, a divisor of C: channel c uses the offsets and masks of group `c // (C / DG)`.

    Returns:
        [N, O, OH, OW].

    Raises:
        OpError: The dtype of a tensor differs from that of input, its shape does not match the other tensors or the
            parameters, or it is not contiguous.
    """
    params = geometry(stride, padding, dilation, groups, offset_groups)
    if not has_kernel(OP, input):
        return deform_conv_reference(input, offset, weight, mask, bias, **params._asdict())
    output = input.new_empty([max(size, 0) for size in _output_shape(input, weight, params)])
    call("vd_deform_conv_forward", (input, offset, weight, mask, bias, output), _to_c(params))
    return output


@torch.library.custom_op("visdeploy::deform_conv_backward", mutates_args=())
def deform_conv_backward(
    input: Tensor,
    offset: Tensor,
    weight: Tensor,
    mask: Tensor | None,
    grad_output: Tensor,
    *,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
    offset_groups: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Compute the gradients of `deform_conv` for input, offset, weight, mask (empty without a mask) and bias.

    The derivative at an integer coordinate is the right-sided one; for a point outside the map it is 0.
    """
    params = geometry(stride, padding, dilation, groups, offset_groups)
    dtype = input.dtype
    if not has_kernel(OP, input):
        grads = deform_conv_reference_backward(input, offset, weight, mask, grad_output, params)
        return grads[0], grads[1], grads[2], input.new_empty(0) if grads[3] is None else grads[3], grads[4]
    tensors = [input, offset, weight, mask, grad_output]
    if dtype in (torch.float16, torch.bfloat16):
        # The gradient of a weight is a sum over thousands of positions: half precision is too inaccurate.
        tensors = [None if each is None else each.float() for each in tensors]
    results = [None if each is None else torch.empty_like(each) for each in tensors[:4]]
    results.append(tensors[0].new_empty(weight.shape[:1]))  # type: ignore[union-attr]
    call("vd_deform_conv_backward", (*tensors, *results), _to_c(params))
    return tuple(input.new_empty(0) if each is None else each.to(dtype) for each in results)  # type: ignore[return-value]


@deform_conv.register_fake
def _shape_of_output(
    input: Tensor,
    offset: Tensor,
    weight: Tensor,
    mask: Tensor | None = None,
    bias: Tensor | None = None,
    *,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
    offset_groups: int,
) -> Tensor:
    params = geometry(stride, padding, dilation, groups, offset_groups)
    return input.new_empty(_output_shape(input, weight, params))


@deform_conv_backward.register_fake
def _shapes_of_gradients(
    input: Tensor,
    offset: Tensor,
    weight: Tensor,
    mask: Tensor | None,
    grad_output: Tensor,
    **_: Any,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    grad_mask = input.new_empty(0) if mask is None else torch.empty_like(mask)
    grads = (torch.empty_like(each) for each in (input, offset, weight))
    return (*grads, grad_mask, weight.new_empty(weight.shape[:1]))  # type: ignore[return-value]


def _output_shape(input: Tensor, weight: Tensor, params: Geometry) -> tuple[int, ...]:
    if input.dim() != 4 or weight.dim() != 4 or min(params.stride) < 1:
        return (0, 0, 0, 0)  # invalid arguments, for which the kernel raises the error
    size = output_size(input.shape[2], input.shape[3], weight.shape[2:], params)
    return (input.shape[0], weight.shape[0], *size)


def _to_c(params: Geometry) -> native.DeformConvParams:
    return native.DeformConvParams(*params)


def _save_inputs(ctx: Any, inputs: tuple[Tensor, ...], keyword_only_inputs: dict[str, Any], output: Tensor) -> None:
    ctx.save_for_backward(*inputs[:4])
    ctx.has_bias, ctx.params = inputs[4] is not None, keyword_only_inputs


def _backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
    # Autograd may pass a gradient that is not contiguous, for example one expanded from a scalar.
    grads = torch.ops.visdeploy.deform_conv_backward(*ctx.saved_tensors, grad_output.contiguous(), **ctx.params)
    has_mask = ctx.saved_tensors[3] is not None
    return (*grads[:3], grads[3] if has_mask else None, grads[4] if ctx.has_bias else None)


deform_conv.register_autograd(_backward, setup_context=_save_inputs)
