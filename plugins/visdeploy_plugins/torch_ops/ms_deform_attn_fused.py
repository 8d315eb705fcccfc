"""`torch.ops.visdeploy.ms_deform_attn_fused`: deformable attention from offsets and logits, with gradients."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from visdeploy_plugins.torch_ops.binding import call, has_kernel
from visdeploy_plugins.torch_ops.ms_deform_attn_fused_reference import (
    OP,
    attention_weights,
    ms_deform_attn_fused_reference,
    offset_steps,
    sampling_locations,
)


@torch.library.custom_op("visdeploy::ms_deform_attn_fused", mutates_args=())
def ms_deform_attn_fused(
    value: Tensor,
    spatial_shapes: Tensor,
    level_start_index: Tensor,
    reference_points: Tensor,
    sampling_offsets: Tensor,
    attention_logits: Tensor,
) -> Tensor:
    """`ms_deform_attn` that finds sampling locations and attention weights itself, in float32.

    `weight = softmax(logits over l, p)`, and `location = reference + offset / (W_l, H_l)` for reference points, or
    `reference_xy + offset / P * reference_wh / 2` for reference boxes. Neither the locations nor the weights are ever
    stored, which saves most of the memory traffic.

    Args:
        value: [N, S, M, D], floating point, `S = sum of H_l * W_l`: level-major, then row-major.
        spatial_shapes: [L, 2] int64 or int32, rows `(H_l, W_l)`, on value's device.
        level_start_index: [L] of the same dtype, position of each level's first token.
        reference_points: [N, Q, L, 2] as `(x, y)` or [N, Q, L, 4] as `(x, y, width, height)`, 0 and 1 being the map's
            outer edges. Of the dtype of sampling_offsets, or float32 where that is a half-precision one.
        sampling_offsets: [N, Q, M, L, P, 2], last axis `(x, y)`. Of value's dtype, or float32 beside half-precision
            values.
        attention_logits: [N, Q, M, L, P], of the dtype of sampling_offsets.

    Returns:
        [N, Q, M * D].

    Raises:
        OpError: A tensor has the wrong dtype, does not fit the others, or is not contiguous; for the index tensors on
            a CUDA device see `ms_deform_attn`.
    """
    inputs = (value, spatial_shapes, level_start_index, reference_points, sampling_offsets, attention_logits)
    if not has_kernel(OP, value):
        return ms_deform_attn_fused_reference(*inputs)
    output: Tensor = _shape_of_output(*inputs)
    call("vd_ms_deform_attn_fused_forward", (*inputs, output))
    return output


@ms_deform_attn_fused.register_fake
def _shape_of_output(
    value: Tensor,
    spatial_shapes: Tensor,
    level_start_index: Tensor,
    reference_points: Tensor,
    sampling_offsets: Tensor,
    attention_logits: Tensor,
) -> Tensor:
    queries = sampling_offsets.shape[1] if sampling_offsets.dim() > 1 else 0
    heads_and_channels = value.shape[2] * value.shape[3] if value.dim() == 4 else 0
    return value.new_empty((value.shape[0] if value.dim() else 0, queries, heads_and_channels))


def _save_inputs(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
    """Through the plain op's gradients: locations and weights are computed again, not kept from the forward pass."""
    value, shapes, starts, references, offsets, logits = ctx.saved_tensors
    locations, weights = sampling_locations(shapes, references, offsets), attention_weights(logits)
    grad_value, grad_locations, grad_weights = torch.ops.visdeploy.ms_deform_attn_backward(
        value, shapes, starts, locations.contiguous(), weights, grad_output.contiguous()
    )
    wide_references = references.to(locations.dtype)[:, :, None, :, None]
    grad_offsets = grad_locations * offset_steps(shapes, wide_references, offsets)
    grad_references = grad_locations.sum((2, 4))
    if references.shape[-1] == 4:
        reach = offsets.to(locations.dtype) * (0.5 / offsets.shape[4])
        grad_references = torch.cat([grad_references, (grad_locations * reach).sum((2, 4))], -1)
    mean = (weights * grad_weights).sum((3, 4), keepdim=True)
    grad_logits = weights * (grad_weights - mean)
    results = grad_references.to(references.dtype), grad_offsets.to(offsets.dtype), grad_logits.to(logits.dtype)
    return grad_value, None, None, *results


ms_deform_attn_fused.register_autograd(_backward, setup_context=_save_inputs)
