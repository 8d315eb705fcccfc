"""Invertible layers of a flow step, each with the logarithm of the determinant of its Jacobian."""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

CONDITION_CHANNELS = 64
"""Channels of the condition of a conditional flow."""


class ZeroConv(nn.Module):
    """3x3 convolution that starts as 0, with a learned scale of its outputs; the padding has the value 1.

    Args:
        cin: Channels of the input.
        cout: Channels of the output.
    """

    def __init__(self, cin: int, cout: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(cin, cout, 3)
        nn.init.zeros_(self.conv.weight)
        nn.init.zeros_(cast(Tensor, self.conv.bias))
        self.scale = nn.Parameter(torch.zeros(1, cout, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Map `[N, cin, h, w]` to `[N, cout, h, w]`."""
        return cast(Tensor, self.conv(F.pad(x, (1, 1, 1, 1), value=1.0))) * (3 * self.scale).exp()


def coupling_net(cin: int, width: int, cout: int) -> nn.Sequential:
    """Return the network of a coupling, whose output is 0 at first."""
    first, second = nn.Conv2d(cin, width, 3, padding=1), nn.Conv2d(width, width, 1)
    for conv in (first, second):
        nn.init.normal_(conv.weight, 0, 0.05)
        nn.init.zeros_(cast(Tensor, conv.bias))
    return nn.Sequential(first, nn.ReLU(), second, nn.ReLU(), ZeroConv(width, cout))


class ActNorm(nn.Module):
    """Scale and shift of each channel, initialised so that the first batch has mean 0 and standard deviation 1.

    Args:
        channels: Number of channels.

    Attributes:
        initialized: Whether there was a first batch, uint8.
    """

    initialized: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.loc = nn.Parameter(torch.zeros(1, channels, 1, 1))
        self.scale = nn.Parameter(torch.ones(1, channels, 1, 1))
        self.register_buffer("initialized", torch.tensor(0, dtype=torch.uint8))

    @torch.no_grad()
    def _initialise(self, x: Tensor) -> None:
        values = x.transpose(0, 1).flatten(1)
        self.loc.copy_(-values.mean(dim=1).view_as(self.loc))
        self.scale.copy_(1 / (values.std(dim=1) + 1e-6).view_as(self.scale))
        self.initialized.fill_(1)
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            # the processes have different batches, and must start with equal parameters
            for tensor in (self.loc, self.scale):
                torch.distributed.broadcast(tensor.data, 0)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the normalised `[N, C, h, w]` and the scalar log-determinant."""
        if not self.initialized:
            self._initialise(x)
        logdet = x.shape[2] * x.shape[3] * self.scale.abs().log().sum()
        return self.scale * (x + self.loc), logdet

    def inverse(self, y: Tensor) -> Tensor:
        """Return the input of an output."""
        return y / self.scale - self.loc


class PlainConv(nn.Module):
    """Invertible 1x1 convolution with a matrix that is orthogonal at first.

    Args:
        channels: Number of channels.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(channels, channels, 1, 1))
        with torch.no_grad():
            self.weight.copy_(random_rotation(channels)[:, :, None, None])

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the mixed `[N, C, h, w]` and the scalar log-determinant."""
        matrix = self.weight[:, :, 0, 0].double()
        logdet = x.shape[2] * x.shape[3] * torch.linalg.slogdet(matrix).logabsdet.to(x.dtype)
        return F.conv2d(x, self.weight), logdet

    def inverse(self, y: Tensor) -> Tensor:
        """Return the input of an output."""
        return F.conv2d(y, torch.linalg.inv(self.weight[:, :, 0, 0])[:, :, None, None])


class LUConv(nn.Module):
    """Invertible 1x1 convolution, parametrised by its LU decomposition with a fixed permutation.

    Args:
        channels: Number of channels.
    """

    w_p: Tensor
    u_mask: Tensor
    l_mask: Tensor
    s_sign: Tensor
    l_eye: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        permutation, lower, upper = torch.linalg.lu(random_rotation(channels))
        diagonal = upper.diagonal()
        ones = torch.ones_like(lower)
        self.w_l = _parameter(lower)
        self.w_s = _parameter(diagonal.abs().log())
        self.w_u = _parameter(upper.triu(1))
        for name, value in (
            ("w_p", permutation),
            ("u_mask", ones.triu(1)),
            ("l_mask", ones.tril(-1)),
            ("s_sign", diagonal.sign()),
            ("l_eye", torch.eye(channels, device="cpu")),
        ):
            self.register_buffer(name, torch.empty(value.shape).copy_(value))

    @property
    def matrix(self) -> Tensor:
        """The matrix of the convolution, `[C, C]`."""
        lower = self.w_l * self.l_mask + self.l_eye
        upper = self.w_u * self.u_mask + torch.diag(self.s_sign * self.w_s.exp())
        return self.w_p @ lower @ upper

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the mixed `[N, C, h, w]` and the scalar log-determinant."""
        return F.conv2d(x, self.matrix[:, :, None, None]), x.shape[2] * x.shape[3] * self.w_s.sum()

    def inverse(self, y: Tensor) -> Tensor:
        """Return the input of an output."""
        return F.conv2d(y, torch.linalg.inv(self.matrix)[:, :, None, None])


class Coupling(nn.Module):
    """Change of the second half of the channels that depends on the first half, and on a condition if there is one.

    Args:
        channels: Number of channels.
        width: Hidden channels.
        affine: Scale and shift; otherwise only a shift.
        condition: Channels of the condition, 0 without.
    """

    def __init__(self, channels: int, width: int, *, affine: bool, condition: int = 0) -> None:
        super().__init__()
        self.affine = affine
        half = channels // 2
        self.net = coupling_net(half + condition, width, channels if affine else half)

    def _terms(self, a: Tensor, condition: Tensor | None) -> tuple[Tensor | None, Tensor]:
        """Return scale (None if additive) and shift of the second half."""
        found = self.net(a if condition is None else torch.cat([a, condition], dim=1))
        return scale_and_shift(found) if self.affine else (None, found)

    def forward(self, x: Tensor, condition: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return `[N, C, h, w]` and the log-determinant: `[N]` if affine, otherwise the scalar 0."""
        a, b = x.chunk(2, dim=1)
        scale, shift = self._terms(a, condition)
        if scale is None:
            return torch.cat([a, b + shift], dim=1), x.new_zeros(())
        return torch.cat([a, (b + shift) * scale], dim=1), scale.log().flatten(1).sum(dim=1)

    def inverse(self, y: Tensor, condition: Tensor | None = None) -> Tensor:
        """Return the input of an output."""
        a, b = y.chunk(2, dim=1)
        scale, shift = self._terms(a, condition)
        return torch.cat([a, b - shift if scale is None else b / scale - shift], dim=1)


class Injector(nn.Module):
    """Scale and shift of all channels that depend on the condition alone.

    Args:
        channels: Number of channels.
        width: Hidden channels.
    """

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.net = coupling_net(CONDITION_CHANNELS, width, 2 * channels)

    def forward(self, x: Tensor, condition: Tensor) -> tuple[Tensor, Tensor]:
        """Return `[N, C, h, w]` and the log-determinant `[N]`."""
        scale, shift = scale_and_shift(self.net(condition))
        return (x + shift) * scale, scale.log().flatten(1).sum(dim=1)

    def inverse(self, y: Tensor, condition: Tensor) -> Tensor:
        """Return the input of an output."""
        scale, shift = scale_and_shift(self.net(condition))
        return y / scale - shift


def scale_and_shift(raw: Tensor) -> tuple[Tensor, Tensor]:
    """Split `[N, 2C, h, w]` into a scale between 0 and 1, close to 1 at first, and a shift."""
    scale, shift = raw.chunk(2, dim=1)
    return (scale + 2).sigmoid(), shift


def random_rotation(channels: int) -> Tensor:
    """Return a random orthogonal matrix on the CPU, also where networks are built without values."""
    rotation: Tensor = torch.linalg.qr(torch.randn(channels, channels, device="cpu")).Q
    return rotation


def _parameter(value: Tensor) -> nn.Parameter:
    parameter = nn.Parameter(torch.empty(value.shape))
    with torch.no_grad():
        parameter.copy_(value)
    return parameter
