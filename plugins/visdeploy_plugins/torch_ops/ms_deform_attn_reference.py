"""Multi-scale deformable attention in plain PyTorch: what the kernels are tested against, and the fallback.

One `grid_sample` per level. Its gradients differ from the kernels' in one place: at a coordinate of exactly -1, which
lies outside by definition, `grid_sample` gives a location gradient and the kernels give zero.
"""

from __future__ import annotations

import torch
from torch import Tensor

from visdeploy_plugins.errors import OpError
from visdeploy_plugins.torch_ops.binding import check

OP = "ms_deform_attn"
_BILINEAR, _ZEROS = 0, 0  # what grid_sampler_2d calls its modes


def ms_deform_attn_reference(
    value: Tensor,
    spatial_shapes: Tensor,
    level_start_index: Tensor,
    sampling_locations: Tensor,
    attention_weights: Tensor,
) -> Tensor:
    """Same arguments and result as `ms_deform_attn`; differentiable by PyTorch itself."""
    batch, _, heads, channels = value.shape
    queries = sampling_locations.shape[1]
    wide = _wide(value.dtype)
    total = value.new_zeros((batch * heads, channels, queries), dtype=wide)
    for maps, grid, weights in _levels(value, spatial_shapes, level_start_index, sampling_locations, attention_weights):
        sampled = _sample(maps.to(wide), grid.to(wide))
        total = total + (sampled * weights.to(wide)).sum(-1)
    return total.view(batch, heads * channels, queries).transpose(1, 2).to(value.dtype).contiguous()


def ms_deform_attn_reference_backward(
    value: Tensor,
    spatial_shapes: Tensor,
    level_start_index: Tensor,
    sampling_locations: Tensor,
    attention_weights: Tensor,
    grad_output: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients for value, sampling_locations and attention_weights, where autograd cannot record."""
    batch, tokens, heads, channels = value.shape
    queries, points = sampling_locations.shape[1], sampling_locations.shape[4]
    wide = _wide(value.dtype)
    grad = grad_output.view(batch, queries, heads, channels).permute(0, 2, 3, 1)
    grad = grad.reshape(batch * heads, channels, queries, 1).to(wide)
    grad_maps, grad_locations, grad_weights = [], [], []
    for maps, grid, weights in _levels(value, spatial_shapes, level_start_index, sampling_locations, attention_weights):
        maps, grid, weights = maps.to(wide), grid.to(wide), weights.to(wide)
        by_head = (batch, heads, queries, points)
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
    results = grad_value, torch.stack(grad_locations, 3), torch.stack(grad_weights, 3)
    return tuple(each.to(value.dtype).contiguous() for each in results)  # type: ignore[return-value]


def _levels(
    value: Tensor, spatial_shapes: Tensor, level_start_index: Tensor, locations: Tensor, weights: Tensor
) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Per level, with batch and heads folded: maps [NM, D, H, W], grid [NM, Q, P, 2], weights [NM, 1, Q, P]."""
    _check(value, spatial_shapes, level_start_index, locations, weights)
    batch, tokens, heads, channels = value.shape
    queries, _, _, points = locations.shape[1:5]
    maps = value.permute(0, 2, 3, 1).reshape(batch * heads, channels, tokens)
    grids = (2 * locations - 1).permute(3, 0, 2, 1, 4, 5)
    shares = weights.permute(3, 0, 2, 1, 4)
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


def _wide(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype == torch.float64 else torch.float32


def _check(value: Tensor, shapes: Tensor, starts: Tensor, locations: Tensor, weights: Tensor) -> None:
    for name, tensor, rank in (("value", value, 4), ("spatial_shapes", shapes, 2), ("sampling_locations", locations, 6)):
        if tensor.dim() != rank:
            seen = f"{tensor.dim()} in {list(tensor.shape)}"
            raise OpError(f"{OP}: tensor {name} has the wrong number of dimensions", seen=seen, expected=str(rank))
    if not value.is_floating_point():
        raise OpError(f"{OP}: tensor value has the wrong dtype", seen=str(value.dtype), expected="a floating-point one")
    (batch, tokens, heads, _), levels = value.shape, shapes.shape[0]
    queries, points = locations.shape[1], locations.shape[4]
    check(OP, "value", value, value.shape, value.dtype)
    check(OP, "spatial_shapes", shapes, (levels, 2), torch.int64)
    check(OP, "level_start_index", starts, (levels,), torch.int64)
    check(OP, "sampling_locations", locations, (batch, queries, heads, levels, points, 2), value.dtype)
    check(OP, "attention_weights", weights, (batch, queries, heads, levels, points), value.dtype)
    if min(*value.shape[2:], levels, points) < 1:
        seen = f"{list(value.shape)} and {list(locations.shape)}"
        expected = "at least one head, channel, level and point"
        raise OpError(f"{OP}: tensors value and sampling_locations", seen=seen, expected=expected)
    sizes = [height * width if height > 0 and width > 0 else -1 for height, width in shapes.tolist()]
    if min(sizes) < 1 or sum(sizes) != tokens:
        raise OpError(f"{OP}: tensor spatial_shapes", seen=str(shapes.tolist()), expected=f"maps of {tokens} positions")
    expected_starts = [sum(sizes[:level]) for level in range(levels)]
    if starts.tolist() != expected_starts:
        raise OpError(f"{OP}: tensor level_start_index", seen=str(starts.tolist()), expected=str(expected_starts))
