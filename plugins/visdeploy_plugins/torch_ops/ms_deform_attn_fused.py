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
    """Compute `ms_deform_attn` from offsets and logits; sampling locations and weights are computed inside, in float32.

    `weight = softmax(logits over l, p)`, and `location = reference + offset / (W_l, H_l)` for reference points, or
    `reference_xy + offset / P * reference_wh / 2` for reference boxes. Locations and weights are not stored in memory,
    which saves most of the memory traffic.

    Args:
        value: [N, S, M, D], floating point, `S = sum of H_l * W_l`: level-major, then row-major.
        spatial_shapes: [L, 2] int64 or int32, rows `(H_l, W_l)`, on the device of value.
        level_start_index: [L] of the same dtype, position of the first token of each level.
        reference_points: [N, Q, L, 2] as `(x, y)` or [N, Q, L, 4] as `(x, y, width, height)`; 0 and 1 are the outer
            edges of the map. The dtype is that of sampling_offsets, or float32 if these are half precision.
        sampling_offsets: [N, Q, M, L, P, 2], last axis `(x, y)`. The dtype is that of value, or float32 if value is
            half precision.
        attention_logits: [N, Q, M, L, P], same dtype as sampling_offsets.

    Returns:
        [N, Q, M * D].

    Raises:
        OpError: A tensor has a wrong dtype, does not match the others, or is not contiguous; for the index tensors on
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
    """Compute gradients with the plain op; locations and weights are recomputed, not kept from the forward pass."""
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
