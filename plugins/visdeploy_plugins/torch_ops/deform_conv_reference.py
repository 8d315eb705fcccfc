"""Deformable convolution in plain PyTorch: the reference for tests of the kernels, and the fallback.

Samples are gathered by index, with the rules of the kernels: a point contributes only if `-1 < y < H` and `-1 < x < W`,
neighbours outside the map are zero, and derivatives at integer coordinates are the right-sided ones.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from visdeploy_plugins.errors import OpError
from visdeploy_plugins.torch_ops.binding import check

OP = "deform_conv"


class Geometry(NamedTuple):
    """Parameters of a deformable convolution. Pairs are (y, x), and the padding is (top, left, bottom, right)."""

    stride: tuple[int, int]
    padding: tuple[int, int, int, int]
    dilation: tuple[int, int]
    groups: int
    offset_groups: int


def geometry(
    stride: Sequence[int], padding: Sequence[int], dilation: Sequence[int], groups: int, offset_groups: int
) -> Geometry:
    """Collect the parameters; a padding of two numbers is expanded to both sides of each axis.

    Raises:
        OpError: A sequence has the wrong length.
    """
    for name, values, lengths in (("stride", stride, (2,)), ("padding", padding, (2, 4)), ("dilation", dilation, (2,))):
        if len(values) not in lengths:
            expected = " or ".join(str(length) for length in lengths)
            raise OpError(f"{OP}: parameter {name}", seen=f"{len(values)} numbers", expected=expected)
    top, left, bottom, right = (*padding, *padding) if len(padding) == 2 else padding
    rest = (top, left, bottom, right), (dilation[0], dilation[1]), groups, offset_groups
    return Geometry((stride[0], stride[1]), *rest)


def output_size(height: int, width: int, kernel: Sequence[int], params: Geometry) -> tuple[int, int]:
    """Compute the height and width of the output; sizes may be symbolic."""
    top, left, bottom, right = params.padding
    spans = [params.dilation[axis] * (kernel[axis] - 1) + 1 for axis in range(2)]
    return (
        (height + top + bottom - spans[0]) // params.stride[0] + 1,
        (width + left + right - spans[1]) // params.stride[1] + 1,
    )


def deform_conv_reference(
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
    """Compute `deform_conv`, with the same arguments and result, in differentiable operators of PyTorch."""
    params = geometry(stride, padding, dilation, groups, offset_groups)
    _check(input, offset, weight, mask, params)
    if bias is not None:
        check(OP, "bias", bias, (weight.shape[0],), input.dtype)
    columns = _columns(input, offset, mask, weight.shape[2:], params)
    matrix = weight.to(columns.dtype).view(groups, weight.shape[0] // groups, columns.shape[2])
    output = torch.einsum("gok,ngkp->ngop", matrix, columns)
    size = output_size(input.shape[2], input.shape[3], weight.shape[2:], params)
    output = output.reshape(input.shape[0], weight.shape[0], *size)
    if bias is not None:
        output = output + bias.to(output.dtype)[:, None, None]
    return output.to(input.dtype)


def deform_conv_reference_backward(
    input: Tensor,
    offset: Tensor,
    weight: Tensor,
    mask: Tensor | None,
    grad_output: Tensor,
    params: Geometry,
) -> tuple[Tensor, Tensor, Tensor, Tensor | None, Tensor]:
    """Compute the gradients for input, offset, weight, mask and bias without autograd."""
    kernel = weight.shape[2:]
    columns = _columns(input, offset, mask, kernel, params)
    batch, groups = input.shape[0], params.groups
    grad = grad_output.to(columns.dtype).view(batch, groups, weight.shape[0] // groups, columns.shape[3])
    matrix = weight.to(columns.dtype).view(groups, weight.shape[0] // groups, columns.shape[2])
    points = _points(input, offset, kernel, params)
    maps = _maps(input, params)
    grad_columns = torch.einsum("gok,ngop->ngkp", matrix, grad).reshape(*maps.shape[:3], points.down.shape[2])
    share = torch.ones_like(points.down) if mask is None else mask.to(points.down.dtype).view(points.down.shape)
    grad_maps = torch.zeros_like(maps)
    dots = []
    for index, valid, portion in _neighbours(points):
        dots.append((grad_columns * _gather(maps, index, valid)).sum(2))
        spread = grad_columns * (share * portion * valid)[:, :, None]
        grad_maps.scatter_add_(3, index[:, :, None].expand_as(spread), spread)
    down, right = points.down, points.right
    portions = [portion for _, _, portion in _neighbours(points)]
    grad_mask = torch.stack([dot * portion for dot, portion in zip(dots, portions, strict=True)]).sum(0)
    grad_y = share * ((1 - right) * (dots[2] - dots[0]) + right * (dots[3] - dots[1]))
    grad_x = share * ((1 - down) * (dots[1] - dots[0]) + down * (dots[3] - dots[2]))
    by_tap = (*maps.shape[:2], kernel[0] * kernel[1], columns.shape[3])
    grad_offset = torch.stack([grad_y.view(by_tap), grad_x.view(by_tap)], 3)
    results = (
        grad_maps.reshape(input.shape),
        grad_offset.reshape(offset.shape),
        torch.einsum("ngop,ngkp->gok", grad, columns).reshape(weight.shape),
        None if mask is None else grad_mask.reshape(mask.shape),
        grad.sum((0, 3)).flatten(),
    )
    return tuple(None if each is None else each.to(input.dtype) for each in results)  # type: ignore[return-value]


class _Points(NamedTuple):
    """Sampling points; each tensor is [N, DG, taps * positions]."""

    row: Tensor  # int64, of the neighbour above
    column: Tensor  # int64, of the neighbour to the left
    down: Tensor  # distance from the row above, in [0, 1)
    right: Tensor
    inside: Tensor  # whether the point contributes
    size: tuple[int, int]


def _points(input: Tensor, offset: Tensor, kernel: Sequence[int], params: Geometry) -> _Points:
    height, width = input.shape[2:]
    size = output_size(height, width, kernel, params)
    wide = _wide(input.dtype)
    origins = [
        torch.arange(size[axis], device=input.device)[None] * params.stride[axis]
        - params.padding[axis]
        + torch.arange(kernel[axis], device=input.device)[:, None] * params.dilation[axis]
        for axis in range(2)
    ]
    grid = (kernel[0], kernel[1], *size)
    shape = (input.shape[0], params.offset_groups, kernel[0] * kernel[1], 2, size[0] * size[1])
    offsets = offset.to(wide).view(shape)
    flat = (input.shape[0], params.offset_groups, kernel[0] * kernel[1] * size[0] * size[1])
    y = (origins[0][:, None, :, None].expand(grid).reshape(shape[2], shape[4]).to(wide) + offsets[..., 0, :]).view(flat)
    x = (origins[1][None, :, None, :].expand(grid).reshape(shape[2], shape[4]).to(wide) + offsets[..., 1, :]).view(flat)
    inside = (y > -1) & (y < height) & (x > -1) & (x < width)
    # Replaced before the conversion to integers, which is undefined for NaN and very large values.
    y, x = torch.where(inside, y, torch.zeros_like(y)), torch.where(inside, x, torch.zeros_like(x))
    row, column = y.floor(), x.floor()
    return _Points(row.long(), column.long(), y - row.detach(), x - column.detach(), inside, (height, width))


def _neighbours(points: _Points) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Yield index, whether it is inside the map, and weight of each of the four neighbours."""
    height, width = points.size
    for below in range(2):
        for beside in range(2):
            row, column = points.row + below, points.column + beside
            valid = points.inside & (row >= 0) & (row < height) & (column >= 0) & (column < width)
            weight_y = points.down if below else 1 - points.down
            weight_x = points.right if beside else 1 - points.right
            yield torch.where(valid, row * width + column, 0), valid, weight_y * weight_x


def _gather(maps: Tensor, index: Tensor, valid: Tensor) -> Tensor:
    values = maps.gather(3, index[:, :, None].expand(-1, -1, maps.shape[2], -1))
    return torch.where(valid[:, :, None], values, torch.zeros_like(values))


def _maps(input: Tensor, params: Geometry) -> Tensor:
    batch, channels, height, width = input.shape
    by_group = (batch, params.offset_groups, channels // params.offset_groups, height * width)
    return input.to(_wide(input.dtype)).view(by_group)


def _columns(
    input: Tensor,
    offset: Tensor,
    mask: Tensor | None,
    kernel: Sequence[int],
    params: Geometry,
) -> Tensor:
    """Compute the sampled values, multiplied by the mask: [N, groups, channels / groups * taps, positions]."""
    points = _points(input, offset, kernel, params)
    maps = _maps(input, params)
    sampled = torch.zeros_like(maps[..., :1])
    for index, valid, weight in _neighbours(points):
        sampled = sampled + _gather(maps, index, valid) * weight[:, :, None]
    if mask is not None:
        sampled = sampled * mask.to(sampled.dtype).view(points.down.shape)[:, :, None]
    size = output_size(input.shape[2], input.shape[3], kernel, params)
    rows = input.shape[1] // params.groups * kernel[0] * kernel[1]
    return sampled.reshape(input.shape[0], params.groups, rows, size[0] * size[1])


def _wide(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype == torch.float64 else torch.float32


def _check(input: Tensor, offset: Tensor, weight: Tensor, mask: Tensor | None, params: Geometry) -> None:
    for name, tensor in (("input", input), ("weight", weight)):
        if tensor.dim() != 4:
            seen = f"{tensor.dim()} in {list(tensor.shape)}"
            raise OpError(f"{OP}: tensor {name} has the wrong number of dimensions", seen=seen, expected="4")
        if min(tensor.shape[1 if name == "input" else 0 :]) < 1:
            expected = "at least one channel, output, pixel and tap"
            raise OpError(f"{OP}: tensor {name}", seen=str(list(tensor.shape)), expected=expected)
    if not input.is_floating_point():
        raise OpError(f"{OP}: tensor input has the wrong dtype", seen=str(input.dtype), expected="a floating-point one")
    for name, values, least in (
        ("stride", list(params.stride), 1),
        ("padding", list(params.padding), 0),
        ("dilation", list(params.dilation), 1),
    ):
        if min(values) < least:
            raise OpError(f"{OP}: parameter {name}", seen=str(values), expected=f"each at least {least}")
    batch, channels, height, width = input.shape
    outputs, kernel = weight.shape[0], list(weight.shape[2:])
    for name, divisor, size in (
        ("groups", params.groups, channels),
        ("groups", params.groups, outputs),
        ("offset_groups", params.offset_groups, channels),
    ):
        if divisor < 1 or size % divisor:
            raise OpError(f"{OP}: parameter {name}", seen=str(divisor), expected=f"a divisor of {size}")
    out = output_size(height, width, kernel, params)
    if min(out) < 1:
        expected = "a kernel that fits into the padded input"
        raise OpError(f"{OP}: tensor weight, kernel", seen=str(kernel), expected=expected)
    taps = params.offset_groups * kernel[0] * kernel[1]
    check(OP, "input", input, input.shape, input.dtype)
    check(OP, "weight", weight, (outputs, channels // params.groups, *kernel), input.dtype)
    check(OP, "offset", offset, (batch, 2 * taps, *out), input.dtype)
    if mask is not None:
        check(OP, "mask", mask, (batch, taps, *out), input.dtype)
