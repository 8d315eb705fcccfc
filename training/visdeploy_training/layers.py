"""Layers shared by the methods: convolutions, frozen batch norm, stochastic depth, coordinate channels."""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from visdeploy_plugins.torch_ops import deform_conv


class FrozenBatchNorm2d(nn.Module):
    """Batch norm with fixed statistics: `(x - mean) / sqrt(var + eps) * weight + bias`.

    The state dict contains `weight, bias, running_mean, running_var`, as in detectron2.

    Args:
        channels: Number of channels.
        eps: Added to the variance.
        trainable: Train scale and shift (the statistics stay fixed); otherwise all four tensors are buffers.
    """

    weight: Tensor
    bias: Tensor
    running_mean: Tensor
    running_var: Tensor

    def __init__(self, channels: int, *, eps: float = 1e-5, trainable: bool = False) -> None:
        super().__init__()
        self.eps = eps
        if trainable:
            self.weight = nn.Parameter(torch.ones(channels))
            self.bias = nn.Parameter(torch.zeros(channels))
        else:
            self.register_buffer("weight", torch.ones(channels))
            self.register_buffer("bias", torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        """Normalise `[B, C, H, W]`."""
        return F.batch_norm(
            x, self.running_mean, self.running_var, self.weight, self.bias, training=False, eps=self.eps
        )


class ConvNorm(nn.Conv2d):
    """Convolution with an optional norm, as its child `norm`, and an optional ReLU.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        kernel_size: Side of the square kernel; the padding keeps the size at stride 1.
        stride: Stride of the kernel.
        dilation: Dilation of the kernel.
        norm: Module applied after the convolution, or None.
        relu: Whether a ReLU follows.
        bias: Whether the convolution has a bias.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        *,
        stride: int = 1,
        dilation: int = 1,
        norm: nn.Module | None = None,
        relu: bool = False,
        bias: bool = True,
    ) -> None:
        padding = dilation * (kernel_size // 2)
        super().__init__(
            in_channels, out_channels, kernel_size, stride=stride, padding=padding, dilation=dilation, bias=bias
        )
        self.norm = norm
        self.relu = relu

    def forward(self, x: Tensor) -> Tensor:
        """Map `[B, in_channels, H, W]` to `[B, out_channels, H / stride, W / stride]`."""
        x = super().forward(x)
        if self.norm is not None:
            x = cast(Tensor, self.norm(x))
        return F.relu(x) if self.relu else x


class DeformConv2d(nn.Module):
    """Deformable convolution (Dai et al., ICCV 2017; with modulation Zhu et al., CVPR 2019) with a square kernel.

    Offsets (y, x of each kernel position) and modulation are inputs.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        kernel_size: Side of the kernel.
        stride: Stride of the kernel.
        padding: Zero padding on each side of the input.
        bias: Whether the convolution has a bias.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        *,
        stride: int = 1,
        padding: int = 0,
        bias: bool = False,
    ) -> None:
        super().__init__()
        self.stride, self.padding = (stride, stride), (padding, padding)
        self.weight = nn.Parameter(torch.empty(out_channels, in_channels, kernel_size, kernel_size))
        self.bias = nn.Parameter(torch.zeros(out_channels)) if bias else None
        nn.init.kaiming_uniform_(self.weight, nonlinearity="relu")

    def forward(self, x: Tensor, offset: Tensor, modulation: Tensor | None = None) -> Tensor:
        """Map `[B, in_channels, H, W]` to `[B, out_channels, H', W']`.

        Args:
            x: Input.
            offset: `[B, 2 * positions, H', W']`, in pixels.
            modulation: `[B, positions, H', W']`, factors of the samples; None for version 1.
        """
        # Under autocast the inputs have a lower precision than the weights, and in a network with channels-last memory
        # format they are not contiguous. The operator needs one dtype and contiguous tensors.
        dtype = self.weight.dtype
        x, offset, weight = (each.to(dtype).contiguous() for each in (x, offset, self.weight))
        mask = None if modulation is None else modulation.to(dtype).contiguous()
        out: Tensor = deform_conv(
            x,
            offset,
            weight,
            mask,
            self.bias,
            stride=self.stride,
            padding=self.padding,
            dilation=(1, 1),
            groups=1,
            offset_groups=1,
        )
        return out


class ModulatedDeformConv2d(nn.Module):
    """Modulated deformable convolution whose offsets and modulation come from an ordinary convolution of the input.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        kernel_size: Side of the kernel; the padding keeps the size.
        bias: Whether the deformable convolution has a bias; that of the offsets always has one.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, *, bias: bool = True) -> None:
        super().__init__()
        self.taps = kernel_size**2
        self.offset = nn.Conv2d(in_channels, 3 * self.taps, kernel_size, padding=kernel_size // 2)
        self.conv = DeformConv2d(in_channels, out_channels, kernel_size, padding=kernel_size // 2, bias=bias)
        nn.init.zeros_(self.offset.weight)
        nn.init.zeros_(cast(Tensor, self.offset.bias))

    def forward(self, x: Tensor) -> Tensor:
        """Map `[B, in_channels, H, W]` to `[B, out_channels, H, W]`."""
        return cast(Tensor, self.conv(x, *split_modulation(self.offset(x), self.taps)))


def split_modulation(raw: Tensor, taps: int) -> tuple[Tensor, Tensor]:
    """Split `[B, 3 * taps, H, W]` into offsets (y, x of each tap) and modulation after a sigmoid."""
    return raw[:, : 2 * taps], raw[:, 2 * taps :].sigmoid()


class DropPath(nn.Module):
    """Stochastic depth (Huang et al., ECCV 2016): random dropping of a residual branch per sample in training.

    Args:
        rate: Probability of dropping the branch; kept branches are scaled up to preserve the expected value.
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        """Drop or scale each of the N samples of the branch `[N, ...]` independently."""
        if not self.training or not self.rate:
            return x
        keep = 1 - self.rate
        return x * (x.new_empty((len(x), *[1] * (x.dim() - 1))).bernoulli_(keep) / keep)


def coordinates(x: Tensor) -> Tensor:
    """Return the normalised positions of a feature map as two channels, y then x, from -1 to 1 inclusive.

    Args:
        x: Feature map `[B, C, H, W]`.

    Returns:
        `[B, 2, H, W]` of the same dtype.
    """
    batch, _, height, width = x.shape
    y = _line(height, x).view(1, 1, height, 1).expand(batch, 1, height, width)
    return torch.cat([y, _line(width, x).view(1, 1, 1, width).expand(batch, 1, height, width)], dim=1)


def _line(size: int, like: Tensor) -> Tensor:
    # equals linspace(-1, 1, size), but keeps a symbolic size symbolic in an exported graph
    return torch.arange(size, device=like.device, dtype=like.dtype) * (2.0 / max(size - 1, 1)) - 1.0


def init_head(module: nn.Module) -> None:
    """Initialise convolutions with Kaiming normal (fan out, ReLU) and zero biases, norms with 1 and 0."""
    for child in module.modules():
        if isinstance(child, nn.Conv2d):
            nn.init.kaiming_normal_(child.weight, mode="fan_out", nonlinearity="relu")
            if child.bias is not None:
                nn.init.zeros_(child.bias)
        elif isinstance(child, nn.GroupNorm):
            nn.init.ones_(child.weight)
            nn.init.zeros_(child.bias)
