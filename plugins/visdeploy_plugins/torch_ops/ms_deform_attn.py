"""`torch.ops.visdeploy.ms_deform_attn`: multi-scale deformable attention with gradients."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from visdeploy_plugins.torch_ops.binding import call, has_kernel
from visdeploy_plugins.torch_ops.ms_deform_attn_reference import (
    OP,
    ms_deform_attn_reference,
    ms_deform_attn_reference_backward,
)


@torch.library.custom_op("visdeploy::ms_deform_attn", mutates_args=())
def ms_deform_attn(
    value: Tensor,
    spatial_shapes: Tensor,
    level_start_index: Tensor,
    sampling_locations: Tensor,
    attention_weights: Tensor,
) -> Tensor:
    """Compute the multi-scale deformable attention of Deformable DETR (Zhu et al., ICLR 2021, equation 3).

    `output[n, q, m*D + d] = sum over l, p of attention_weights[n, q, m, l, p] * bilinear(level l of value[n, :, m, d])`
    at pixel `(y * H_l - 0.5, x * W_l - 0.5)`, zero outside the map. Coordinates and sums are float32 for all dtypes
    except float64.

    Args:
        value: [N, S, M, D], floating point, `S = sum of H_l * W_l`: level-major, then row-major.
        spatial_shapes: [L, 2] int64 or int32, rows `(H_l, W_l)`, on the device of value.
        level_start_index: [L] of the same dtype, position of the first token of each level.
        sampling_locations: [N, Q, M, L, P, 2], last axis `(x, y)`; 0 and 1 are the outer edges of the map. Locations
            that are NaN, infinite or outside contribute nothing. The dtype is that of value, or float32 if value is
            half precision, because half-precision locations are too inaccurate.
        attention_weights: [N, Q, M, L, P], used without softmax; same dtype as sampling_locations.

    Returns:
        [N, Q, M * D].

    Raises:
        OpError: A tensor has a wrong dtype, does not match the others, or is not contiguous. On a CUDA device the
            contents of spatial_shapes and level_start_index are not checked, because this would wait for the device: a
            level that is not within the tokens of value contributes nothing.
    """
    inputs = (value, spatial_shapes, level_start_index, sampling_locations, attention_weights)
    if not has_kernel(OP, value):
        return ms_deform_attn_reference(*inputs)
    output: Tensor = _shape_of_output(*inputs)
    call("vd_ms_deform_attn_forward", (*inputs, output))
    return output


@torch.library.custom_op("visdeploy::ms_deform_attn_backward", mutates_args=())
def ms_deform_attn_backward(
    value: Tensor,
    spatial_shapes: Tensor,
    level_start_index: Tensor,
    sampling_locations: Tensor,
    attention_weights: Tensor,
    grad_output: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """Compute the gradients of `ms_deform_attn` for value, sampling_locations and attention_weights.

    The derivative at an integer coordinate is the right-sided one; for a point outside the map it is 0.
    """
    inputs = (value, spatial_shapes, level_start_index, sampling_locations, attention_weights, grad_output)
    if not has_kernel(OP, value):
        return ms_deform_attn_reference_backward(*inputs)
    dtypes = value.dtype, sampling_locations.dtype, attention_weights.dtype
    if value.dtype in (torch.float16, torch.bfloat16):
        # The gradient of a value is a sum over thousands of queries: half precision is too inaccurate.
        inputs = tuple(each.float() if each.is_floating_point() else each for each in inputs)  # type: ignore[assignment]
    grads = torch.empty_like(inputs[0]), torch.empty_like(inputs[3]), torch.empty_like(inputs[4])
    call("vd_ms_deform_attn_backward", (*inputs, *grads))
    return grads[0].to(dtypes[0]), grads[1].to(dtypes[1]), grads[2].to(dtypes[2])


@ms_deform_attn.register_fake
def _shape_of_output(
    value: Tensor,
    spatial_shapes: Tensor,
    level_start_index: Tensor,
    sampling_locations: Tensor,
    attention_weights: Tensor,
) -> Tensor:
    queries = sampling_locations.shape[1] if sampling_locations.dim() > 1 else 0
    heads_and_channels = value.shape[2] * value.shape[3] if value.dim() == 4 else 0
    return value.new_empty((value.shape[0] if value.dim() else 0, queries, heads_and_channels))


@ms_deform_attn_backward.register_fake
def _shapes_of_gradients(
    value: Tensor,
    spatial_shapes: Tensor,
    level_start_index: Tensor,
    sampling_locations: Tensor,
    attention_weights: Tensor,
    grad_output: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    return torch.empty_like(value), torch.empty_like(sampling_locations), torch.empty_like(attention_weights)


def _save_inputs(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
    # Autograd may pass a gradient that is not contiguous, for example one expanded from a scalar.
    grads = torch.ops.visdeploy.ms_deform_attn_backward(*ctx.saved_tensors, grad_output.contiguous())
    return grads[0], None, None, grads[1], grads[2]


ms_deform_attn.register_autograd(_backward, setup_context=_save_inputs)
