"""Group normalisation over active positions, composed of standard operators."""

from __future__ import annotations

import torch
from torch import Tensor

from visdeploy_plugins.errors import OpError


def masked_group_norm(
    x: Tensor, mask: Tensor, weight: Tensor, bias: Tensor, *, groups: int, eps: float = 1e-5, inside_only: bool = False
) -> Tensor:
    """Normalise each group of channels over the active positions.

    With A the active positions of a sample, mean and biased variance are computed over A and the channels of the group,
    and `out = (x - mean) / sqrt(var + eps) * weight + bias` in A. Without `inside_only`, the output is exactly 0 at
    inactive positions, and NaN there in x does not affect the result. It follows `masked_conv` in the gated blocks of
    Temporal Pyramid Routing (Li et al., TPAMI 2023), needs no kernel, and is exported to standard ONNX operators.

    Args:
        x: [N, C, H, W], floating point. Statistics of half-precision inputs are computed in float32.
        mask: [N, H, W], bool or floating point; active where positive, as in `masked_conv`.
        weight: [C].
        bias: [C].
        groups: Number of groups of channels, a divisor of C.
        eps: Added to the variance.
        inside_only: x is 0 at inactive positions, as `masked_conv` returns it, and the caller does not use the output
            there, which is then undefined. Saves two passes over the tensor; the result in A is the same.

    Returns:
        [N, C, H, W], of x's dtype.

    Raises:
        OpError: `groups` is not a divisor of C.
    """
    channels = x.shape[1]
    if groups < 1 or channels % groups:
        raise OpError(
            "masked_group_norm: parameter groups", seen=str(groups), expected=f"a divisor of the {channels} channels"
        )
    active = (mask > 0)[:, None]
    wide = x.to(torch.float64 if x.dtype == torch.float64 else torch.float32)
    values = (wide if inside_only else torch.where(active, wide, 0.0)).unflatten(1, (groups, channels // groups))
    inside = active[:, None].to(wide.dtype)
    count = (inside.sum((2, 3, 4), keepdim=True) * (channels // groups)).clamp(min=1.0)
    mean = values.sum((2, 3, 4), keepdim=True) / count
    # `mean * inside` has one channel per group, so that it is small beside x
    centred = values - mean * inside
    # not vector_norm: ONNX Runtime's ReduceL2 is one operator, with a relative error of 1e-5 over 50,000 values
    variance = centred.square().sum((2, 3, 4), keepdim=True) / count
    scale = torch.rsqrt(variance + eps) * weight.to(wide.dtype).reshape(1, groups, -1, 1, 1)
    scaled = (centred * scale).flatten(1, 2) + bias.to(wide.dtype)[:, None, None]
    return (scaled if inside_only else torch.where(active, scaled, 0.0)).to(x.dtype)
