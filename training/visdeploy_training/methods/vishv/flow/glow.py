"""Multi-level flow: squeeze, flow steps and split of each level; likelihood, inverse and sampling."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from visdeploy.errors import ConfigError
from visdeploy_training.methods.vishv.flow.layers import (
    CONDITION_CHANNELS,
    ActNorm,
    Coupling,
    Injector,
    LUConv,
    PlainConv,
    ZeroConv,
)
from visdeploy_training.methods.vishv.flow.likelihood import gaussian_log_density


class FlowResult(NamedTuple):
    """Result of a flow for N images.

    Attributes:
        log_p: Logarithm of the density of the latent variables, `[N]`.
        logdet: Logarithm of the determinant of the Jacobian: a scalar if it is the same for all images, else `[N]`.
        latents: Latent variables of each level, first level first.
    """

    log_p: Tensor
    logdet: Tensor
    latents: list[Tensor]


class FlowStep(nn.Module):
    """Actnorm, invertible 1x1 convolution and coupling; an injector before the coupling if there is a condition.

    Args:
        channels: Number of channels.
        width: Hidden channels.
        affine: Affine instead of additive coupling; always in a conditional flow.
        lu: 1x1 convolution in LU form; always in a conditional flow.
        conditional: The step depends on a condition.
    """

    def __init__(self, channels: int, width: int, *, affine: bool, lu: bool, conditional: bool) -> None:
        super().__init__()
        self.actnorm = ActNorm(channels)
        self.invconv: LUConv | PlainConv = LUConv(channels) if lu or conditional else PlainConv(channels)
        self.injector = Injector(channels, width) if conditional else None
        condition = CONDITION_CHANNELS if conditional else 0
        self.coupling = Coupling(channels, width, affine=affine or conditional, condition=condition)

    def forward(self, x: Tensor, condition: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return `[N, C, h, w]` and the log-determinant, a scalar or `[N]`."""
        x, logdet = self.actnorm(x)
        x, change = self.invconv(x)
        logdet = logdet + change
        if self.injector is not None:
            x, change = self.injector(x, condition)
            logdet = logdet + change
        x, change = self.coupling(x, condition)
        return x, logdet + change

    def inverse(self, y: Tensor, condition: Tensor | None = None) -> Tensor:
        """Return the input of an output."""
        y = self.coupling.inverse(y, condition)
        if self.injector is not None:
            y = self.injector.inverse(y, cast(Tensor, condition))
        return self.actnorm.inverse(self.invconv.inverse(y))


class Level(nn.Module):
    """Squeeze, flow steps, and the Gaussian prior of the part that leaves the flow.

    Args:
        cin: Channels of the input.
        steps: Number of flow steps.
        width: Hidden channels.
        last: Everything leaves the flow; otherwise half of the channels.
        affine: See `FlowStep`.
        lu: See `FlowStep`.
        conditional: See `FlowStep`.
    """

    def __init__(
        self, cin: int, steps: int, width: int, *, last: bool, affine: bool, lu: bool, conditional: bool
    ) -> None:
        super().__init__()
        channels, self.last = 4 * cin, last
        self.flows = nn.ModuleList(
            FlowStep(channels, width, affine=affine, lu=lu, conditional=conditional) for _ in range(steps)
        )
        self.prior = ZeroConv(channels, 2 * channels) if last else ZeroConv(channels // 2, channels)

    def forward(self, x: Tensor, condition: Tensor | None) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Map `[N, C, h, w]` to what stays in the flow, log-determinant, `[N]` log-density and latent variables."""
        x = squeeze(x)
        logdet = x.new_zeros(())
        for step in self.flows:
            x, change = step(x, condition)
            logdet = logdet + change
        x, z = (x, x) if self.last else x.chunk(2, dim=1)
        mean, log_std = self._prior(x)
        return x, logdet, gaussian_log_density(z, mean, log_std).flatten(1).sum(dim=1), z

    def _prior(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and logarithm of the standard deviation of the latent variables, given what stays."""
        mean, log_std = self.prior(torch.zeros_like(x) if self.last else x).chunk(2, dim=1)
        return mean, log_std

    def inverse(self, x: Tensor | None, latent: Tensor, condition: Tensor | None, *, sample: bool) -> Tensor:
        """Return the input of a level.

        Args:
            x: What stayed in the flow; None for the last level.
            latent: Latent variables, or noise with unit variance if `sample`.
            condition: Condition of this level; None without.
            sample: Convert noise to latent variables.
        """
        if sample:
            mean, log_std = self._prior(latent if x is None else x)
            latent = mean + log_std.exp() * latent
        y = latent if x is None else torch.cat([x, latent], dim=1)
        for step in reversed(self.flows):
            y = cast(FlowStep, step).inverse(y, condition)
        return unsqueeze(y)


class ConditionEncoder(nn.Module):
    """Condition of each level of a flow, from the union of the masks of a frame (figure of the VIShv paper).

    Args:
        levels: Number of levels.
    """

    def __init__(self, levels: int) -> None:
        super().__init__()
        sizes = (1, 16, 32, 64, CONDITION_CHANNELS)
        self.stem = nn.ModuleList(nn.Conv2d(a, b, 3, stride=2, padding=1) for a, b in pairwise(sizes))
        self.level = nn.ModuleList(
            nn.Conv2d(CONDITION_CHANNELS, CONDITION_CHANNELS, 3, stride=2, padding=1) for _ in range(levels)
        )

    def forward(self, masks: Tensor) -> list[Tensor]:
        """Map float masks `[N, 1, H, W]` to `[N, 64, H / 32 / 2**i, W / 32 / 2**i]` for each level i."""
        for conv in self.stem:
            masks = F.relu(conv(masks))
        found = []
        for conv in self.level:
            masks = F.relu(conv(masks))
            found.append(masks)
        return found


class Glow(nn.Module):
    """Glow (Kingma and Dhariwal, NeurIPS 2018) with the layers and names of the published VIShv.

    Args:
        channels: Channels of the input.
        steps: Flow steps of a level.
        levels: Number of levels.
        width: Hidden channels.
        affine: Affine instead of additive couplings.
        lu: 1x1 convolutions in LU form in all levels; the last level always has this form.
        conditional: Condition on the masks of a frame.
    """

    def __init__(
        self,
        channels: int,
        *,
        steps: int,
        levels: int,
        width: int = 512,
        affine: bool = False,
        lu: bool = False,
        conditional: bool = False,
    ) -> None:
        super().__init__()
        self.condition_encoder = ConditionEncoder(levels) if conditional else None
        self.blocks = nn.ModuleList()
        for i in range(levels):
            last = i == levels - 1
            self.blocks.append(
                Level(channels << i, steps, width, last=last, affine=affine, lu=lu or last, conditional=conditional)
            )

    def forward(self, x: Tensor, masks: Tensor | None = None) -> FlowResult:
        """Compute the likelihood of images.

        Args:
            x: `[N, C, h, w]`, h and w multiples of `2**levels`.
            masks: Union of the masks, float `[N, 1, 16 h, 16 w]`, for a conditional flow.

        Raises:
            ConfigError: The size is wrong, or a condition is missing.
        """
        divisor = 1 << len(self.blocks)
        if x.shape[2] % divisor or x.shape[3] % divisor:
            raise ConfigError(
                "vishv: the flow has too many levels for this input",
                seen=f"{x.shape[2]}x{x.shape[3]} at a 16th of the input size",
                expected=f"multiples of {divisor}",
                hint=f"Make the sides of the input multiples of {16 * divisor}, or reduce flow_levels.",
            )
        logdet, log_p = x.new_zeros(()), x.new_zeros(len(x))
        latents = []
        for block, condition in zip(self.blocks, self.conditions(masks), strict=True):
            x, change, density, latent = block(x, condition)
            logdet, log_p = logdet + change, log_p + density
            latents.append(latent)
        return FlowResult(log_p, logdet, latents)

    def conditions(self, masks: Tensor | None) -> Sequence[Tensor | None]:
        """Return the condition of each level.

        Raises:
            ConfigError: A conditional flow has no masks.
        """
        if self.condition_encoder is None:
            return [None] * len(self.blocks)
        if masks is None:
            raise ConfigError("vishv: a conditional flow needs the masks of its frames")
        return cast(list[Tensor], self.condition_encoder(masks))

    def inverse(self, latents: Sequence[Tensor], masks: Tensor | None = None) -> Tensor:
        """Return the images `[N, C, h, w]` with these latent variables, first level first."""
        return self._inverse(latents, masks, sample=False)

    def sample(self, noise: Sequence[Tensor], masks: Tensor | None = None) -> Tensor:
        """Return images `[N, C, h, w]` from noise with unit variance, in the shapes of the latent variables."""
        return self._inverse(noise, masks, sample=True)

    def _inverse(self, values: Sequence[Tensor], masks: Tensor | None, *, sample: bool) -> Tensor:
        x: Tensor | None = None
        levels = list(zip(self.blocks, values, self.conditions(masks), strict=True))
        for block, value, condition in reversed(levels):
            x = cast(Level, block).inverse(x, value, condition, sample=sample)
        return cast(Tensor, x)


def squeeze(x: Tensor) -> Tensor:
    """Move 2x2 pixels into channels: `[N, C, h, w]` to `[N, 4C, h / 2, w / 2]`, channel `4 c + 2 row + column`."""
    return F.pixel_unshuffle(x, 2)


def unsqueeze(y: Tensor) -> Tensor:
    """Invert `squeeze`."""
    return F.pixel_shuffle(y, 2)
