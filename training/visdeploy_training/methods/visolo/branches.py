"""Branches and modules of VISOLO (Han et al., CVPR 2022), with the names of the official checkpoints."""

from __future__ import annotations

from collections import OrderedDict
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from visdeploy_training.layers import ConvNorm, coordinates
from visdeploy_training.methods.visolo.config import VISOLOConfig


class _Layers:
    """Factory of the convolutions of one network: all have a bias, most have GroupNorm."""

    def __init__(self, config: VISOLOConfig) -> None:
        self.groups = config.num_groups

    def conv(self, cin: int, cout: int, kernel: int, *, relu: bool = False) -> ConvNorm:
        return ConvNorm(cin, cout, kernel, norm=nn.GroupNorm(self.groups, cout), relu=relu)

    def chain(self, names: list[str], cin: int, width: int) -> nn.Sequential:
        layers = [self.conv(cin if i == 0 else width, width, 3, relu=True) for i in range(len(names))]
        return nn.Sequential(OrderedDict(zip(names, layers, strict=True)))


def to_grid(x: Tensor, grid: tuple[int, int]) -> Tensor:
    """Resize `[B, C, h, w]` to `[B, C, rows, columns]`, bilinear, without antialiasing, corners not aligned."""
    return F.interpolate(x, size=grid, mode="bilinear", align_corners=False)


class CategoryPre(nn.Module):
    """Part of the category branch before the temporal aggregation."""

    def __init__(self, config: VISOLOConfig, cin: int) -> None:
        super().__init__()
        make, width = _Layers(config), config.head_width
        self.grid = config.grid
        self.cat_pre_conv1 = make.conv(cin, width, 3)
        self.conv_layers = make.chain(["cat_pre_conv2", "cat_pre_conv3"], width, width)
        self.cat_pre_conv4 = make.conv(width, width, 1)

    def forward(self, r4: Tensor) -> tuple[Tensor, Tensor]:
        """Map stride-16 features to the tracking feature and the category value, each `[B, head_width, rows, cols]`."""
        feature = self.cat_pre_conv1(to_grid(r4, self.grid))
        return feature, self.cat_pre_conv4(self.conv_layers(F.relu(feature)))


class CategoryPost(nn.Module):
    """Part of the category branch after the temporal aggregation."""

    def __init__(self, config: VISOLOConfig) -> None:
        super().__init__()
        width = config.head_width
        self.conv_layers = _Layers(config).chain([f"cat_post_conv{i}" for i in (1, 2, 3)], width, width)
        self.pred = nn.Conv2d(width, config.num_classes, 3, padding=1)

    def forward(self, value: Tensor) -> Tensor:
        """Map the aggregated category value `[B, head_width, rows, cols]` to logits `[B, num_classes, rows, cols]`."""
        return cast(Tensor, self.pred(self.conv_layers(value)))


class KernelBranch(nn.Module):
    """Kernel branch: kernel value before the temporal aggregation, dynamic kernels after it."""

    def __init__(self, config: VISOLOConfig, cin: int) -> None:
        super().__init__()
        make, width = _Layers(config), config.head_width
        self.grid = config.grid
        self.conv_layers = make.chain([f"kernel_conv{i}" for i in (1, 2, 3)], cin + 2, width)
        self.conv_layers_post = make.chain(["kernel_conv4", "kernel_conv5"], width, width)
        self.pred = make.conv(width, config.mask_width, 1)

    def value(self, r4: Tensor) -> Tensor:
        """Map stride-16 features to the kernel value `[B, head_width, rows, cols]`.

        The coordinate channels are added before the resizing to the grid.
        """
        return cast(Tensor, self.conv_layers(to_grid(torch.cat([r4, coordinates(r4)], dim=1), self.grid)))

    def kernels(self, value: Tensor) -> Tensor:
        """Map the aggregated kernel value to dynamic kernels `[B, mask_width, rows, cols]`."""
        return cast(Tensor, self.pred(self.conv_layers_post(value)))


class ResBlock(nn.Module):
    """Pre-activation residual block of two 3x3 convolutions, without norms, as in the published implementation."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, 3, padding=1)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Transform a map to the same shape."""
        return x + cast(Tensor, self.conv2(F.relu(self.conv1(F.relu(x)))))


class Refine(nn.Module):
    """Fusion of a backbone map with a mask map of half its resolution."""

    def __init__(self, cin: int, width: int) -> None:
        super().__init__()
        self.convSCF = nn.Conv2d(cin, width, 3, padding=1)
        self.ResSCF = ResBlock(width)
        self.ResF = ResBlock(width)

    def forward(self, skip: Tensor, coarse: Tensor) -> Tensor:
        """Map `skip` `[B, cin, 2h, 2w]` and `coarse` `[B, width, h, w]` to `[B, width, 2h, 2w]`."""
        up = F.interpolate(coarse, scale_factor=2.0, mode="bilinear", align_corners=False)
        return cast(Tensor, self.ResF(self.ResSCF(self.convSCF(skip)) + up))


class MaskBranch(nn.Module):
    """Mask branch: mask features at stride 4 from three backbone maps."""

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
        """Map features at strides 4, 8 and 16 to mask features `[B, mask_width, H/4, W/4]`."""
        x = self.ResR4(self.convR4(torch.cat([r4, coordinates(r4)], dim=1)))
        x = self.RefR2(r2, self.RefR3(r3, x))
        return cast(Tensor, self.pred(self.convR1(F.relu(x))))


class TrackingBranch(nn.Module):
    """Memory matching module: two projections whose dot products are the affinity of grid cells."""

    def __init__(self, config: VISOLOConfig) -> None:
        super().__init__()
        make, width = _Layers(config), config.head_width
        self.conv_layers_share = make.chain(["track_S_conv1", "track_S_conv2"], width, width)
        self.track_Q_conv1 = make.conv(width, width, 3)
        self.track_Q_conv2 = make.conv(width, config.track_dim, 1)
        self.track_R_conv1 = make.conv(width, width, 3)
        self.track_R_conv2 = make.conv(width, config.track_dim, 1)

    def tie(self, *, same: float = 8.0, offset: float = 1.5) -> None:
        """Initialise both projections equally, so that the initial affinity measures the similarity of features.

        The logit of a cell with itself is then about `same - offset ** 2`, that of unrelated cells `-offset ** 2`.
        """
        self.track_R_conv1.load_state_dict(self.track_Q_conv1.state_dict())
        self.track_R_conv2.load_state_dict(self.track_Q_conv2.state_dict())
        for conv, sign in ((self.track_Q_conv2, 1.0), (self.track_R_conv2, -1.0)):
            norm = cast(nn.GroupNorm, conv.norm)
            nn.init.constant_(norm.weight, (same / conv.out_channels) ** 0.5)
            with torch.no_grad():  # the first channel represents only the offset
                norm.weight[0], norm.bias[0] = 0.0, sign * offset

    def share(self, feature: Tensor) -> Tensor:
        """Apply the layers common to both projections to `[B, head_width, rows, cols]`; keep the shape."""
        return cast(Tensor, self.conv_layers_share(F.relu(feature)))

    def query(self, shared: Tensor) -> Tensor:
        """Return the Q projection `[B, track_dim, cells]`, for the frame in the role of the query."""
        return cast(Tensor, self.track_Q_conv2(self.track_Q_conv1(shared))).flatten(2)

    def reference(self, shared: Tensor) -> Tensor:
        """Return the R projection `[B, track_dim, cells]`, for the frame in the role of the reference."""
        return cast(Tensor, self.track_R_conv2(self.track_R_conv1(shared))).flatten(2)


class MemoryModule(nn.Module):
    """Temporal aggregation module: attention over the grid cells of the memory frames."""

    def __init__(self, config: VISOLOConfig) -> None:
        super().__init__()
        self.conv1 = _Layers(config).conv(config.head_width, config.head_width, 3)

    @staticmethod
    def read(value: Tensor, attention: Tensor, projected: Tensor) -> Tensor:
        """Add the attention-weighted sum of the memory values to the value of the current frame.

        Args:
            value: `[B, C, rows, cols]` of the current frame.
            attention: `[B, cells, M * cells]`, rows sum to one.
            projected: `[B, C, M * cells]`, memory values after `conv1`.

        Returns:
            `[B, C, rows, cols]`.
        """
        gathered = torch.matmul(projected, attention.transpose(1, 2))
        return value + gathered.reshape(value.shape)

    def forward(self, value: Tensor, attention: Tensor, memory: Tensor) -> Tensor:
        """Return `read` with memory values `[M, C, rows, cols]` of one video, to which `conv1` is applied first."""
        projected = self.conv1(memory).flatten(2).permute(1, 0, 2).flatten(1)
        return self.read(value, attention, projected.unsqueeze(0))
