"""`torch.ops.visdeploy.multi_level_roi_align`: RoI align of boxes in a feature pyramid, with gradients."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from visdeploy_plugins import native
from visdeploy_plugins.torch_ops.binding import call, has_kernel
from visdeploy_plugins.torch_ops.multi_level_roi_align_reference import (
    MOST_LEVELS,
    OP,
    check_parameters,
    multi_level_roi_align_reference,
    multi_level_roi_align_reference_backward,
)


@torch.library.custom_op("visdeploy::multi_level_roi_align", mutates_args=())
def multi_level_roi_align(
    features: Sequence[Tensor],
    rois: Tensor,
    batch_indices: Tensor,
    *,
    output_size: Sequence[int],
    spatial_scales: Sequence[float],
    sampling_ratio: int = 2,
    finest_scale: float = 56.0,
) -> Tensor:
    """Compute RoI align of each box in the pyramid level for its size.

    The level is `clamp(floor(log2(sqrt(w * h) / finest_scale + 1e-6)), 0, L - 1)`. The result is that of
    `torchvision.ops.roi_align(aligned=True)`: bins may be outside the map, boxes may have any size, samples within one
    cell outside the map have the value of its border, and samples farther outside are zero. Coordinates and sums are
    float32 for all dtypes of the features except float64.

    Args:
        features: 1 to 8 maps [N, C, H_l, W_l], floating point, finest first.
        rois: [R, 4], `(x1, y1, x2, y2)` in image pixels; float64 for float64 features, otherwise float32. The result is
            zero for a box with a coordinate that is NaN, infinite or beyond 1e12. Boxes get no gradient.
        batch_indices: [R] int64, index of the image of each box.
        output_size: Number of bins as (height, width).
        spatial_scales: Cells per image pixel of each map; used in float32.
        sampling_ratio: Number of samples along each axis of a bin; 0 for one sample per cell, rounded up.
        finest_scale: Side, in image pixels, of the smallest boxes of level 0 without clamping; used in float32.

    Returns:
        [R, C, *output_size].

    Raises:
        OpError: A tensor or parameter does not match the others, or a tensor is not contiguous. An image index out of
            range raises this error only on the CPU; on CUDA the result for its box is zero.
    """
    if not has_kernel(OP, rois):
        return multi_level_roi_align_reference(
            features,
            rois,
            batch_indices,
            output_size=output_size,
            spatial_scales=spatial_scales,
            sampling_ratio=sampling_ratio,
            finest_scale=finest_scale,
        )
    params = _params(len(features), output_size, spatial_scales, sampling_ratio, finest_scale)
    channels = features[0].shape[1] if features[0].dim() > 1 else 0
    output = features[0].new_empty((len(rois), channels, *output_size))
    call("vd_multi_level_roi_align_forward", (rois, batch_indices, *_eight(features), output), params)
    return output


@torch.library.custom_op("visdeploy::multi_level_roi_align_backward", mutates_args=())
def multi_level_roi_align_backward(
    features: Sequence[Tensor],
    rois: Tensor,
    batch_indices: Tensor,
    grad_output: Tensor,
    *,
    output_size: Sequence[int],
    spatial_scales: Sequence[float],
    sampling_ratio: int,
    finest_scale: float,
) -> list[Tensor]:
    """Compute the gradients of `multi_level_roi_align` for the features, of which only shapes and dtype are used."""
    if not has_kernel(OP, rois):
        return multi_level_roi_align_reference_backward(
            features,
            rois,
            batch_indices,
            grad_output,
            output_size=output_size,
            spatial_scales=spatial_scales,
            sampling_ratio=sampling_ratio,
            finest_scale=finest_scale,
        )
    params = _params(len(features), output_size, spatial_scales, sampling_ratio, finest_scale)
    # The gradient of a cell is a sum over many boxes: half precision is too inaccurate.
    wide = rois.dtype
    grads = [torch.empty_like(each, dtype=wide, memory_format=torch.contiguous_format) for each in features]
    call("vd_multi_level_roi_align_backward", (rois, batch_indices, *_eight(grads), grad_output.to(wide)), params)
    return [each.to(features[0].dtype) for each in grads]


def _params(
    levels: int, output_size: Sequence[int], spatial_scales: Sequence[float], sampling_ratio: int, finest_scale: float
) -> native.RoiAlignParams:
    check_parameters(levels, output_size, spatial_scales, sampling_ratio, finest_scale)
    scales = (*spatial_scales, *[0.0] * (MOST_LEVELS - levels))
    return native.RoiAlignParams(*output_size, sampling_ratio, levels, finest_scale, scales)


def _eight(tensors: Sequence[Tensor]) -> tuple[Tensor | None, ...]:
    return (*tensors, *[None] * (MOST_LEVELS - len(tensors)))


@multi_level_roi_align.register_fake
def _shape_of_output(
    features: Sequence[Tensor],
    rois: Tensor,
    batch_indices: Tensor,
    *,
    output_size: Sequence[int],
    spatial_scales: Sequence[float],
    sampling_ratio: int = 2,
    finest_scale: float = 56.0,
) -> Tensor:
    check_parameters(len(features), output_size, spatial_scales, sampling_ratio, finest_scale)
    return features[0].new_empty((rois.shape[0], features[0].shape[1], *output_size))


@multi_level_roi_align_backward.register_fake
def _shapes_of_gradients(
    features: Sequence[Tensor], rois: Tensor, batch_indices: Tensor, grad_output: Tensor, **_: Any
) -> list[Tensor]:
    return [torch.empty_like(each, memory_format=torch.contiguous_format) for each in features]


def _save_inputs(ctx: Any, inputs: tuple[Any, ...], keyword_only_inputs: dict[str, Any], output: Tensor) -> None:
    features, rois, batch_indices = inputs
    ctx.save_for_backward(rois, batch_indices, *features)
    ctx.parameters = keyword_only_inputs


def _backward(ctx: Any, grad_output: Tensor) -> tuple[list[Tensor], None, None]:
    rois, batch_indices, *features = ctx.saved_tensors
    # Autograd may pass a gradient that is not contiguous, for example one expanded from a scalar.
    grads = torch.ops.visdeploy.multi_level_roi_align_backward(
        features, rois, batch_indices, grad_output.contiguous(), **ctx.parameters
    )
    return grads, None, None


multi_level_roi_align.register_autograd(_backward, setup_context=_save_inputs)
