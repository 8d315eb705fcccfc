"""The heads of VISOLO (spec sections 3.3 to 3.8); names are those of the official checkpoints."""

from __future__ import annotations

from collections import OrderedDict
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from visdeploy_training.layers import ConvNorm, coordinates
from visdeploy_training.methods.visolo.config import VISOLOConfig


class _Layers:
    """Makes the convolutions of one network: all have a bias, most have GroupNorm."""

    def __init__(self, config: VISOLOConfig) -> None:
        self.groups = config.num_groups

    def conv(self, cin: int, cout: int, kernel: int, *, relu: bool = False) -> ConvNorm:
        return ConvNorm(cin, cout, kernel, norm=nn.GroupNorm(self.groups, cout), relu=relu)

    def chain(self, names: list[str], cin: int, width: int) -> nn.Sequential:
        layers = [self.conv(cin if i == 0 else width, width, 3, relu=True) for i in range(len(names))]
        return nn.Sequential(OrderedDict(zip(names, layers, strict=True)))


def to_grid(x: Tensor, grid: tuple[int, int]) -> Tensor:
    """Bilinear resize of `[B, C, h, w]` to `[B, C, rows, columns]` (no antialiasing, corners not aligned)."""
    return F.interpolate(x, size=grid, mode="bilinear", align_corners=False)


class CategoryPre(nn.Module):
    """What the category branch computes from one frame alone (section 3.3)."""

    def __init__(self, config: VISOLOConfig, cin: int) -> None:
        super().__init__()
        make, width = _Layers(config), config.head_width
        self.grid = config.grid
        self.cat_pre_conv1 = make.conv(cin, width, 3)
        self.conv_layers = make.chain(["cat_pre_conv2", "cat_pre_conv3"], width, width)
        self.cat_pre_conv4 = make.conv(width, width, 1)

    def forward(self, r4: Tensor) -> tuple[Tensor, Tensor]:
        """Stride-16 features to the tracking feature and the category value, each `[B, head_width, rows, cols]`."""
        feature = self.cat_pre_conv1(to_grid(r4, self.grid))
        return feature, self.cat_pre_conv4(self.conv_layers(F.relu(feature)))


class CategoryPost(nn.Module):
    """Class logits from the category value after the memory read (section 3.8)."""

    def __init__(self, config: VISOLOConfig) -> None:
        super().__init__()
        width = config.head_width
        self.conv_layers = _Layers(config).chain([f"cat_post_conv{i}" for i in (1, 2, 3)], width, width)
        self.pred = nn.Conv2d(width, config.num_classes, 3, padding=1)

    def forward(self, value: Tensor) -> Tensor:
        """`[B, head_width, rows, cols]` to logits `[B, num_classes, rows, cols]`."""
        return cast(Tensor, self.pred(self.conv_layers(value)))


class KernelBranch(nn.Module):
    """Kernel value before the memory, dynamic kernels after it (section 3.4)."""

    def __init__(self, config: VISOLOConfig, cin: int) -> None:
        super().__init__()
        make, width = _Layers(config), config.head_width
        self.grid = config.grid
        self.conv_layers = make.chain([f"kernel_conv{i}" for i in (1, 2, 3)], cin + 2, width)
        self.conv_layers_post = make.chain(["kernel_conv4", "kernel_conv5"], width, width)
        self.pred = make.conv(width, config.mask_width, 1)

    def value(self, r4: Tensor) -> Tensor:
        """Stride-16 features to the kernel value `[B, head_width, rows, cols]`; coordinates are resized along."""
        return cast(Tensor, self.conv_layers(to_grid(torch.cat([r4, coordinates(r4)], dim=1), self.grid)))

    def kernels(self, value: Tensor) -> Tensor:
        """Kernel value after the memory read to kernels `[B, mask_width, rows, cols]`."""
        return cast(Tensor, self.pred(self.conv_layers_post(value)))


class ResBlock(nn.Module):
    """Pre-activation residual block, two 3x3 convolutions, no norm (quirk Q6)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, 3, padding=1)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """The shape is kept."""
        return x + cast(Tensor, self.conv2(F.relu(self.conv1(F.relu(x)))))


class Refine(nn.Module):
    """Adds a finer backbone map to a coarser mask map (section 3.5)."""

    def __init__(self, cin: int, width: int) -> None:
        super().__init__()
        self.convSCF = nn.Conv2d(cin, width, 3, padding=1)
        self.ResSCF = ResBlock(width)
        self.ResF = ResBlock(width)

    def forward(self, skip: Tensor, coarse: Tensor) -> Tensor:
        """`skip` `[B, cin, 2h, 2w]` and `coarse` `[B, width, h, w]` to `[B, width, 2h, 2w]`."""
        up = F.interpolate(coarse, scale_factor=2.0, mode="bilinear", align_corners=False)
        return cast(Tensor, self.ResF(self.ResSCF(self.convSCF(skip)) + up))


class MaskBranch(nn.Module):
    """Mask features at stride 4 from three backbone maps (section 3.5)."""

    def __init__(self, config: VISOLOConfig, channels: tuple[int, int, int]) -> None:
        super().__init__()
        make, width = _Layers(config), config.mask_width
        self.convR4 = make.conv(channels[2] + 2, width, 3)
        self.ResR4 = ResBlock(width)
        self.RefR3 = Refine(channels[1], width)
        self.RefR2 = Refine(channels[0], width)
        self.convR1 = make.conv(width, width, 3, relu=True)
        self.pred = make.conv(width, width, 1)

    def forward(self, r2: Tensor, r3: Tensor, r4: Tensor) -> Tensor:
        """Features at strides 4, 8, 16 to mask features `[B, mask_width, H/4, W/4]`."""
        x = self.ResR4(self.convR4(torch.cat([r4, coordinates(r4)], dim=1)))
        x = self.RefR2(r2, self.RefR3(r3, x))
        return cast(Tensor, self.pred(self.convR1(F.relu(x))))


class TrackingBranch(nn.Module):
    """Two projections whose dot products are the affinity of cells (section 3.6)."""

    def __init__(self, config: VISOLOConfig) -> None:
        super().__init__()
        make, width = _Layers(config), config.head_width
        self.conv_layers_share = make.chain(["track_S_conv1", "track_S_conv2"], width, width)
        self.track_Q_conv1 = make.conv(width, width, 3)
        self.track_Q_conv2 = make.conv(width, config.track_dim, 1)
        self.track_R_conv1 = make.conv(width, width, 3)
        self.track_R_conv2 = make.conv(width, config.track_dim, 1)

    def tie(self, *, same: float = 8.0, offset: float = 1.5) -> None:
        """Start both projections alike, so that the affinity begins as similarity and not as noise.

        The logit of a cell with itself is then about `same - offset ** 2`, that of unlike cells about `-offset ** 2`.
        """
        self.track_R_conv1.load_state_dict(self.track_Q_conv1.state_dict())
        self.track_R_conv2.load_state_dict(self.track_Q_conv2.state_dict())
        for conv, sign in ((self.track_Q_conv2, 1.0), (self.track_R_conv2, -1.0)):
            norm = cast(nn.GroupNorm, conv.norm)
            nn.init.constant_(norm.weight, (same / conv.out_channels) ** 0.5)
            with torch.no_grad():  # one channel carries the offset and nothing else
                norm.weight[0], norm.bias[0] = 0.0, sign * offset

    def share(self, feature: Tensor) -> Tensor:
        """The part common to both projections; `[B, head_width, rows, cols]`, shape kept."""
        return cast(Tensor, self.conv_layers_share(F.relu(feature)))

    def query(self, shared: Tensor) -> Tensor:
        """Q projection `[B, track_dim, cells]`: the frame that looks."""
        return cast(Tensor, self.track_Q_conv2(self.track_Q_conv1(shared))).flatten(2)

    def reference(self, shared: Tensor) -> Tensor:
        """R projection `[B, track_dim, cells]`: the frame that is looked at."""
        return cast(Tensor, self.track_R_conv2(self.track_R_conv1(shared))).flatten(2)


class MemoryModule(nn.Module):
    """Attention over the cells of the memory frames (section 3.7)."""

    def __init__(self, config: VISOLOConfig) -> None:
        super().__init__()
        self.conv1 = _Layers(config).conv(config.head_width, config.head_width, 3)

    @staticmethod
    def read(value: Tensor, attention: Tensor, projected: Tensor) -> Tensor:
        """Add what the attention gathers to the frame's own value.

        Args:
            value: `[B, C, rows, cols]` of the current frame.
            attention: `[B, cells, M * cells]`, rows sum to one.
            projected: `[B, C, M * cells]`, the memory values behind `conv1`.

        Returns:
            `[B, C, rows, cols]`.
        """
        gathered = torch.matmul(projected, attention.transpose(1, 2))
        return value + gathered.reshape(value.shape)

    def forward(self, value: Tensor, attention: Tensor, memory: Tensor) -> Tensor:
        """As `read`, from memory values `[M, C, rows, cols]` of one video that are not projected yet."""
        projected = self.conv1(memory).flatten(2).permute(1, 0, 2).flatten(1)
        return self.read(value, attention, projected.unsqueeze(0))
