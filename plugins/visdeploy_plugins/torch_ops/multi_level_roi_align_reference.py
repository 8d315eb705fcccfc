"""Multi-level RoI align in plain PyTorch: the reference for tests of the kernels, and the fallback.

Bilinear weights are products of a weight for the row and a weight for the column. The weights of the rows and of the
columns form two matrices, so that the result for a box is two matrix products with its map.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from visdeploy_plugins.errors import OpError
from visdeploy_plugins.torch_ops.binding import check

OP = "multi_level_roi_align"
MOST_LEVELS, MOST_BINS, MOST_SAMPLES, FARTHEST = 8, 1024, 1024, 1e12


def multi_level_roi_align_reference(
    features: Sequence[Tensor],
    rois: Tensor,
    batch_indices: Tensor,
    *,
    output_size: Sequence[int],
    spatial_scales: Sequence[float],
    sampling_ratio: int = 2,
    finest_scale: float = 56.0,
) -> Tensor:
    """Compute `multi_level_roi_align`, with the same arguments and result, in differentiable operators of PyTorch."""
    check_arguments(features, rois, batch_indices, output_size, spatial_scales, sampling_ratio, finest_scale)
    outputs = []
    for level, image, rows, columns in _boxes(
        features, rois, batch_indices, output_size, spatial_scales, sampling_ratio, finest_scale
    ):
        outputs.append(rows @ features[level][image].to(rois.dtype) @ columns.T)
    shape = (0, features[0].shape[1], *output_size)
    output = torch.stack(outputs) if outputs else sum(each.sum() for each in features) * rois.new_zeros(shape)
    return output.to(features[0].dtype)


def multi_level_roi_align_reference_backward(
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
    """Compute the gradients for the features without autograd."""
    grads = [torch.zeros_like(each, dtype=rois.dtype, memory_format=torch.contiguous_format) for each in features]
    boxes = _boxes(features, rois, batch_indices, output_size, spatial_scales, sampling_ratio, finest_scale)
    for grad, (level, image, rows, columns) in zip(grad_output, boxes, strict=True):
        grads[level][image] += rows.T @ grad.to(rois.dtype) @ columns
    return [each.to(features[0].dtype) for each in grads]


def _boxes(
    features: Sequence[Tensor],
    rois: Tensor,
    batch_indices: Tensor,
    output_size: Sequence[int],
    spatial_scales: Sequence[float],
    sampling_ratio: int,
    finest_scale: float,
) -> Iterator[tuple[int, int, Tensor, Tensor]]:
    """Yield level and image of each box, and the weights of rows [height, H] and columns [width, W] in its bins."""
    usable = (rois.abs() <= FARTHEST).all(1)
    levels = torch.where(usable, roi_levels(rois, len(features), finest_scale), -1).tolist()
    for roi, level, image in zip(rois, levels, batch_indices.tolist(), strict=True):
        height, width = features[max(level, 0)].shape[2:]
        if level < 0:
            yield 0, image, roi.new_zeros((output_size[0], height)), roi.new_zeros((output_size[1], width))
            continue
        scale = torch.tensor(spatial_scales[level], dtype=torch.float32, device=roi.device)
        x1, y1, x2, y2 = roi * scale.to(roi.dtype) - 0.5
        rows = _weights(y1, y2, output_size[0], sampling_ratio, height)
        yield level, image, rows, _weights(x1, x2, output_size[1], sampling_ratio, width)


def roi_levels(rois: Tensor, levels: int, finest_scale: float) -> Tensor:
    """Compute the pyramid level of each box, [R] int64.

    It is `clamp(floor(log2(sqrt(w * h) / finest_scale + 1e-6)), 0, levels - 1)`, computed by comparison with powers of
    two in float32 for all dtypes; for NaN it is 0.
    """
    x1, y1, x2, y2 = rois.float().unbind(1)
    size = ((x2 - x1) * (y2 - y1)).sqrt() / torch.tensor(finest_scale, dtype=torch.float32, device=rois.device) + 1e-6
    thresholds = torch.tensor([2.0**level for level in range(1, levels)], device=rois.device)
    return (size[:, None] >= thresholds).sum(1)


def _weights(start: Tensor, end: Tensor, bins: int, sampling_ratio: int, size: int) -> Tensor:
    """Compute the weight of each of `size` cells in each bin along one axis, [bins, size]."""
    step = (end - start) / bins
    samples = sampling_ratio or int(step.clamp(0, MOST_SAMPLES).ceil())
    weights = start.new_zeros((bins, size))
    if samples == 0:
        return weights
    index = torch.arange(bins, device=start.device, dtype=start.dtype)[:, None]
    sample = torch.arange(samples, device=start.device, dtype=start.dtype) + 0.5
    position = start + index * step + sample * step / samples
    inside = (position >= -1) & (position <= size)
    position = position.clamp(0, size - 1)
    low = position.floor()
    high = (low + 1).clamp(max=size - 1)
    share = position - low
    one = inside.to(start.dtype) / samples
    weights.scatter_add_(1, low.long(), (1 - share) * one)
    return weights.scatter_add_(1, high.long(), share * one)


def check_arguments(
    features: Sequence[Tensor],
    rois: Tensor,
    batch_indices: Tensor,
    output_size: Sequence[int],
    spatial_scales: Sequence[float],
    sampling_ratio: int,
    finest_scale: float,
) -> None:
    """Raise an OpError that names the invalid tensor or parameter, with the same messages as the kernel."""
    check_parameters(len(features), output_size, spatial_scales, sampling_ratio, finest_scale)
    if rois.dim() != 2:
        seen = f"{rois.dim()} in {list(rois.shape)}"
        raise OpError(f"{OP}: tensor rois has the wrong number of dimensions", seen=seen, expected="2")
    for number, feature in enumerate(features):
        name, first = f"features[{number}]", features[0]
        if feature.dim() != 4:
            seen = f"{feature.dim()} in {list(feature.shape)}"
            raise OpError(f"{OP}: tensor {name} has the wrong number of dimensions", seen=seen, expected="4")
        if not feature.is_floating_point():
            raise OpError(f"{OP}: tensor {name} has the wrong dtype", seen=str(feature.dtype), expected="a float one")
        check(OP, name, feature, (*first.shape[:2], *feature.shape[2:]), first.dtype)
        if min(feature.shape[1:]) < 1:
            expected = "at least one channel, row and column"
            raise OpError(f"{OP}: tensor {name}", seen=str(list(feature.shape)), expected=expected)
    dtype = torch.float64 if features[0].dtype == torch.float64 else torch.float32
    check(OP, "rois", rois, (rois.shape[0], 4), dtype)
    check(OP, "batch_indices", batch_indices, (rois.shape[0],), torch.int64)
    images = features[0].shape[0]
    for roi, index in enumerate(batch_indices.tolist()):
        if not 0 <= index < images:
            expected = f"0 to {images - 1}" if images else "no rois, because there are no images"
            raise OpError(f"{OP}: tensor batch_indices, roi {roi}", seen=str(index), expected=expected)


def check_parameters(
    levels: int, output_size: Sequence[int], spatial_scales: Sequence[float], sampling_ratio: int, finest_scale: float
) -> None:
    """Raise an OpError that names the invalid parameter."""
    if len(output_size) != 2:
        raise OpError(f"{OP}: parameter output_size", seen=str(list(output_size)), expected="(height, width)")
    ranges = [
        ("output_height", output_size[0], 1, MOST_BINS),
        ("output_width", output_size[1], 1, MOST_BINS),
        ("sampling_ratio", sampling_ratio, 0, MOST_SAMPLES),
        ("number of features", levels, 1, MOST_LEVELS),
    ]
    for name, value, least, most in ranges:
        if not least <= value <= most:
            raise OpError(f"{OP}: parameter {name}", seen=str(value), expected=f"{least} to {most}")
    if len(spatial_scales) != levels:
        seen, expected = f"{len(spatial_scales)} scales", f"{levels}, one per feature"
        raise OpError(f"{OP}: parameter spatial_scales", seen=seen, expected=expected)
    named = [("finest_scale", finest_scale), *((f"spatial_scales[{i}]", each) for i, each in enumerate(spatial_scales))]
    for name, scale in named:
        if not 0 < scale <= 1e6:
            raise OpError(f"{OP}: parameter {name}", seen=f"{scale:f}", expected="above 0 and at most 1e6")
