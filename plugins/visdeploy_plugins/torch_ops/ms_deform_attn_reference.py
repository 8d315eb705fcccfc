"""Multi-scale deformable attention in plain PyTorch: the reference for tests of the kernels, and the fallback.

It uses one `grid_sample` per level. Its gradients differ from those of the kernels in one case: at a coordinate of
exactly -1, which is outside by definition, the location gradient of `grid_sample` may be non-zero, and that of the
kernels is zero.
"""

from __future__ import annotations

import torch
from torch import Tensor

from visdeploy_plugins.errors import OpError
from visdeploy_plugins.torch_ops.binding import check

OP = "ms_deform_attn"
_BILINEAR, _ZEROS = 0, 0  # numbers of the modes in grid_sampler_2d


def ms_deform_attn_reference(
    value: Tensor,
    spatial_shapes: Tensor,
    level_start_index: Tensor,
    sampling_locations: Tensor,
    attention_weights: Tensor,
) -> Tensor:
    """Compute `ms_deform_attn`, with the same arguments and result, in differentiable operators of PyTorch."""
    levels = _levels(value, spatial_shapes, level_start_index, sampling_locations, attention_weights)
    batch, _, heads, channels = value.shape
    queries = sampling_locations.shape[1]
    total = torch.stack([(_sample(maps, grid) * weights).sum(-1) for maps, grid, weights in levels]).sum(0)
    return total.view(batch, heads * channels, queries).transpose(1, 2).to(value.dtype).contiguous()


def ms_deform_attn_reference_backward(
    value: Tensor,
    spatial_shapes: Tensor,
    level_start_index: Tensor,
    sampling_locations: Tensor,
    attention_weights: Tensor,
    grad_output: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """Compute the gradients for value, sampling_locations and attention_weights without autograd."""
    levels = _levels(value, spatial_shapes, level_start_index, sampling_locations, attention_weights)
    batch, tokens, heads, channels = value.shape
    queries, points = sampling_locations.shape[1], sampling_locations.shape[4]
    grad = grad_output.view(batch, queries, heads, channels).permute(0, 2, 3, 1)
    grad = grad.reshape(batch * heads, channels, queries, 1).to(wide_dtype(value.dtype))
    grad_maps, grad_locations, grad_weights = [], [], []
    by_head = (batch, heads, queries, points)
    for maps, grid, weights in levels:
        grad_weights.append((grad * _sample(maps, grid)).sum(1).view(by_head).transpose(1, 2))
        if grid.numel() == 0:
            grad_map, grad_grid = torch.zeros_like(maps), torch.zeros_like(grid)
        else:
            grad_map, grad_grid = torch.ops.aten.grid_sampler_2d_backward(
                grad * weights, maps, grid, _BILINEAR, _ZEROS, False, [True, True]
            )
        grad_maps.append(grad_map.flatten(2))
        grad_locations.append(2 * grad_grid.view(*by_head, 2).transpose(1, 2))
    grad_value = torch.cat(grad_maps, 2).view(batch, heads, channels, tokens).permute(0, 3, 1, 2)
    return (
        grad_value.to(value.dtype).contiguous(),
        torch.stack(grad_locations, 3).to(sampling_locations.dtype).contiguous(),
        torch.stack(grad_weights, 3).to(attention_weights.dtype).contiguous(),
    )


def _levels(
    value: Tensor, spatial_shapes: Tensor, level_start_index: Tensor, locations: Tensor, weights: Tensor
) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Return map [NM, D, H, W], grid [NM, Q, P, 2] and weights [NM, 1, Q, P] of each level, in float32 or float64.

    The axes of batch and heads are merged.
    """
    check_pyramid(OP, value, spatial_shapes, level_start_index, locations, "sampling_locations")
    check(OP, "attention_weights", weights, locations.shape[:-1], locations.dtype)
    batch, tokens, heads, channels = value.shape
    queries, _, _, points = locations.shape[1:5]
    wide = wide_dtype(value.dtype)
    maps = value.to(wide).permute(0, 2, 3, 1).reshape(batch * heads, channels, tokens)
    grids = (2 * locations.to(wide) - 1).permute(3, 0, 2, 1, 4, 5)
    shares = weights.to(wide).permute(3, 0, 2, 1, 4)
    found, start = [], 0
    for level, (height, width) in enumerate(spatial_shapes.tolist()):
        block = maps[:, :, start : start + height * width].view(batch * heads, channels, height, width)
        grid = grids[level].reshape(batch * heads, queries, points, 2)
        found.append((block, grid, shares[level].reshape(batch * heads, 1, queries, points)))
        start += height * width
    return found


def _sample(maps: Tensor, grid: Tensor) -> Tensor:
    if grid.numel() == 0:
        return maps.new_zeros((*maps.shape[:2], *grid.shape[1:3]))
    return torch.nn.functional.grid_sample(maps, grid, mode="bilinear", padding_mode="zeros", align_corners=False)


def wide_dtype(dtype: torch.dtype) -> torch.dtype:
    """Return the dtype of computations with tensors of `dtype`: float64 for float64, otherwise float32."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def points_dtype(op: str, name: str, tensor: Tensor, value: Tensor) -> torch.dtype:
    """Return the dtype of sampling points: that of value, or float32 if value is half precision.

    Raises:
        OpError: The tensor has a different dtype.
    """
    allowed = (value.dtype, wide_dtype(value.dtype))
    if tensor.dtype in allowed:
        return tensor.dtype
    seen, *expected = (str(each).removeprefix("torch.") for each in (tensor.dtype, *dict.fromkeys(allowed)))
    raise OpError(f"{op}: tensor {name} has the wrong dtype", seen=seen, expected=" or ".join(expected))


def check_pyramid(op: str, value: Tensor, shapes: Tensor, starts: Tensor, points: Tensor, points_name: str) -> None:
    """Check the tensors common to the plain and the fused op, for the reference.

    Raises:
        OpError: A tensor has a wrong shape, dtype or layout, or the sizes of the levels do not add up to that of value.
    """
    for name, tensor, rank in (("value", value, 4), ("spatial_shapes", shapes, 2), (points_name, points, 6)):
        if tensor.dim() != rank:
            seen = f"{tensor.dim()} in {list(tensor.shape)}"
            raise OpError(f"{op}: tensor {name} has the wrong number of dimensions", seen=seen, expected=str(rank))
    if not value.is_floating_point():
        raise OpError(f"{op}: tensor value has the wrong dtype", seen=str(value.dtype), expected="a floating-point one")
    (batch, tokens, heads, _), levels = value.shape, shapes.shape[0]
    index = torch.int32 if shapes.dtype == torch.int32 else torch.int64
    check(op, "value", value, value.shape, value.dtype)
    check(op, "spatial_shapes", shapes, (levels, 2), index)
    check(op, "level_start_index", starts, (levels,), index)
    sampled = (batch, points.shape[1], heads, levels, points.shape[4], 2)
    check(op, points_name, points, sampled, points_dtype(op, points_name, points, value))
    if min(*value.shape[2:], levels, points.shape[4]) < 1:
        seen = f"{list(value.shape)} and {list(points.shape)}"
        expected = "at least one head, channel, level and point"
        raise OpError(f"{op}: tensors value and {points_name}", seen=seen, expected=expected)
    sizes = [height * width if height > 0 and width > 0 else -1 for height, width in shapes.tolist()]
    if min(sizes) < 1 or sum(sizes) != tokens:
        raise OpError(f"{op}: tensor spatial_shapes", seen=str(shapes.tolist()), expected=f"maps of {tokens} positions")
    expected_starts = [sum(sizes[:level]) for level in range(levels)]
    if starts.tolist() != expected_starts:
        raise OpError(f"{op}: tensor level_start_index", seen=str(starts.tolist()), expected=str(expected_starts))
