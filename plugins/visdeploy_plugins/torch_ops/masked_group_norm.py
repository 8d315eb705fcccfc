"""Group normalisation over active positions, composed of standard operators."""

from __future__ import annotations

import torch
from torch import Tensor

from visdeploy_plugins.errors import OpError


def masked_group_norm(
    x: Tensor, mask: Tensor, weight: Tensor, bias: Tensor, *, groups: int, eps: float = 1e-5
) -> Tensor:
    """Normalises each group of channels over the active positions alone; inactive ones become exactly 0.

    With A the active positions of a sample, mean and biased variance are taken over A and the channels of the group,
    and `out = (x - mean) / sqrt(var + eps) * weight + bias` at A. It follows `masked_conv` in a gated block, needs no
    kernel, and exports to plain ONNX operators. A sample in which nothing is active gives zeros. NaN at inactive
    positions of x does not reach the result.

    Args:
        x: [N, C, H, W], floating point. Statistics of halves are taken in float32.
        mask: [N, H, W], bool or floating point; positive is active, as in `masked_conv`.
        weight: [C].
        bias: [C].
        groups: How many groups the channels form; divides C.
        eps: Added to the variance.

    Returns:
        [N, C, H, W], of x's dtype.

    Raises:
        OpError: groups does not divide the channels.

    Source: specs/tpr.md, section 13.2.
    """
    channels = x.shape[1]
    if groups < 1 or channels % groups:
        raise OpError(
            "masked_group_norm: parameter groups", seen=str(groups), expected=f"a divisor of the {channels} channels"
        )
    active = (mask > 0)[:, None]
    wide = x.to(torch.float64 if x.dtype == torch.float64 else torch.float32)
    values = torch.where(active, wide, 0.0).unflatten(1, (groups, channels // groups))
    inside = active[:, None]
    count = active.to(wide.dtype).sum((2, 3), keepdim=True)[:, None] * (channels // groups)
    count = count.clamp(min=1.0)
    mean = values.sum((2, 3, 4), keepdim=True) / count
    centred = torch.where(inside, values - mean, 0.0)
    variance = centred.square().sum((2, 3, 4), keepdim=True) / count
    normal = (centred * torch.rsqrt(variance + eps)).flatten(1, 2)
    scaled = normal * weight.to(wide.dtype)[:, None, None] + bias.to(wide.dtype)[:, None, None]
    return torch.where(active, scaled, 0.0).to(x.dtype)
