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
    """Convolves the input with each tap moved by its own offset, and weighted by its own mask.

    Tap (i, j) of output (y, x) reads the input bilinearly at `(y * stride - top + i * dilation + offset_y, ...)`, zero
    outside the map. Coordinates and sums are float32 whatever the dtype, float64 for float64.

    Args:
        input: [N, C, H, W], floating point.
        offset: [N, 2 * DG * kh * kw, OH, OW], in pixels: for each offset group and tap first y, then x. NaN, infinite
            and outside points contribute nothing.
        weight: [O, C / groups, kh, kw].
        mask: [N, DG * kh * kw, OH, OW], used as given; None for v1.
        bias: [O]; None for none.
        stride: (y, x).
        padding: (y, x), or (top, left, bottom, right).
        dilation: (y, x).
        groups: Divides C and O.
        offset_groups: DG, divides C: channel c takes the offsets and masks of group `c // (C / DG)`.

    Returns:
        [N, O, OH, OW].

    Raises:
        OpError: A tensor has another dtype than input, does not fit the others or the parameters, or is not contiguous.
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
    """Gradients of `deform_conv` for input, offset, weight, mask (empty without one) and bias.

    The derivative at an integer coordinate is the right-sided one; a point outside the map has none.
    """
    params = geometry(stride, padding, dilation, groups, offset_groups)
    dtype = input.dtype
    if not has_kernel(OP, input):
        grads = deform_conv_reference_backward(input, offset, weight, mask, grad_output, params)
        return grads[0], grads[1], grads[2], input.new_empty(0) if grads[3] is None else grads[3], grads[4]
    tensors = [input, offset, weight, mask, grad_output]
    if dtype in (torch.float16, torch.bfloat16):
        # Thousands of positions add to one weight: sums in half precision would lose most of them.
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
        return (0, 0, 0, 0)  # the kernel's checks say what is wrong
    size = output_size(input.shape[2], input.shape[3], weight.shape[2:], params)
    return (input.shape[0], weight.shape[0], *size)


def _to_c(params: Geometry) -> native.DeformConvParams:
    return native.DeformConvParams(*params)


def _save_inputs(ctx: Any, inputs: tuple[Tensor, ...], keyword_only_inputs: dict[str, Any], output: Tensor) -> None:
    ctx.save_for_backward(*inputs[:4])
    ctx.has_bias, ctx.params = inputs[4] is not None, keyword_only_inputs


def _backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
    # The gradient comes from whatever the user computed, often expanded from a scalar: not theirs to make contiguous.
    grads = torch.ops.visdeploy.deform_conv_backward(*ctx.saved_tensors, grad_output.contiguous(), **ctx.params)
    has_mask = ctx.saved_tensors[3] is not None
    return (*grads[:3], grads[3] if has_mask else None, grads[4] if ctx.has_bias else None)


deform_conv.register_autograd(_backward, setup_context=_save_inputs)
