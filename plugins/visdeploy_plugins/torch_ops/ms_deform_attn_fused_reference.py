"""Fused multi-scale deformable attention in plain PyTorch: locations and weights, followed by the plain op."""

from __future__ import annotations

from torch import Tensor

from visdeploy_plugins.errors import OpError
from visdeploy_plugins.torch_ops.binding import check
from visdeploy_plugins.torch_ops.ms_deform_attn_reference import check_pyramid, ms_deform_attn_reference, wide_dtype

OP = "ms_deform_attn_fused"


def ms_deform_attn_fused_reference(
    value: Tensor,
    spatial_shapes: Tensor,
    level_start_index: Tensor,
    reference_points: Tensor,
    sampling_offsets: Tensor,
    attention_logits: Tensor,
) -> Tensor:
    """Compute `ms_deform_attn_fused`, with the same arguments and result, in differentiable operators of PyTorch."""
    check_pyramid(OP, value, spatial_shapes, level_start_index, sampling_offsets, "sampling_offsets")
    check(OP, "attention_logits", attention_logits, sampling_offsets.shape[:-1], sampling_offsets.dtype)
    _check_references(reference_points, sampling_offsets)
    locations = sampling_locations(spatial_shapes, reference_points, sampling_offsets)
    return ms_deform_attn_reference(
        value, spatial_shapes, level_start_index, locations.contiguous(), attention_weights(attention_logits)
    )


def sampling_locations(spatial_shapes: Tensor, reference_points: Tensor, sampling_offsets: Tensor) -> Tensor:
    """Compute the locations [N, Q, M, L, P, 2] in float32 or float64, without waiting for the device."""
    wide = wide_dtype(sampling_offsets.dtype)
    references = reference_points.to(wide)[:, :, None, :, None]
    return references[..., :2] + sampling_offsets.to(wide) * offset_steps(spatial_shapes, references, sampling_offsets)


def offset_steps(spatial_shapes: Tensor, references: Tensor, sampling_offsets: Tensor) -> Tensor:
    """Compute the change of a location per unit of its offset; references is [N, Q, 1, L, 1, 2 or 4]."""
    if references.shape[-1] == 4:
        return references[..., 2:] * (0.5 / sampling_offsets.shape[4])
    return 1 / spatial_shapes.flip(1)[:, None].to(references.dtype)


def attention_weights(attention_logits: Tensor) -> Tensor:
    """Compute the weights [N, Q, M, L, P] in float32 or float64: a softmax over levels and points together."""
    logits = attention_logits.to(wide_dtype(attention_logits.dtype))
    return logits.flatten(3).softmax(-1).view(logits.shape)


def _check_references(references: Tensor, offsets: Tensor) -> None:
    if references.dim() != 4:
        seen = f"{references.dim()} in {list(references.shape)}"
        raise OpError(f"{OP}: tensor reference_points has the wrong number of dimensions", seen=seen, expected="4")
    shape = (*offsets.shape[:2], offsets.shape[3], 4 if references.shape[3] == 4 else 2)
    wide = wide_dtype(offsets.dtype)
    check(OP, "reference_points", references, shape, wide if references.dtype == wide else offsets.dtype)
