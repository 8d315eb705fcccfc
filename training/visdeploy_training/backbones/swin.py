"""Swin Transformer (Liu et al., ICCV 2021) with the names and layout of mmdet's checkpoints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from visdeploy_training.layers import DropPath

APART = -100.0
"""Term added to attention logits between regions that only the cyclic shift makes adjacent."""


class WindowAttention(nn.Module):
    """Attention within windows of S x S tokens, with a learned bias per relative position."""

    relative_position_index: Tensor

    def __init__(self, dim: int, heads: int, window: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)
        self.relative_position_bias_table = nn.Parameter(torch.zeros((2 * window - 1) ** 2, heads))
        nn.init.trunc_normal_(self.relative_position_bias_table, std=0.02)
        place = torch.arange(window)
        step = place[:, None] - place + window - 1
        rows, columns = step[:, None, :, None], step[None, :, None, :]
        index = (rows * (2 * window - 1) + columns).reshape(window**2, window**2)
        self.register_buffer("relative_position_index", index, persistent=False)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """Transform `[N, windows, S * S, C]` to the same shape, with a mask `[windows, S * S, S * S]` or None."""
        parts = self.qkv(x).unflatten(-1, (3, self.heads, -1))
        q, k, v = parts.permute(3, 0, 1, 4, 2, 5).unbind(0)
        scores = torch.matmul(q * q.shape[-1] ** -0.5, k.transpose(-1, -2))
        scores = scores + self.relative_position_bias_table[self.relative_position_index].permute(2, 0, 1)
        if mask is not None:
            scores = scores + mask[:, None]
        out: Tensor = self.proj(torch.matmul(scores.softmax(dim=-1), v).transpose(2, 3).flatten(3))
        return out


class ShiftedWindows(nn.Module):
    """Window attention over a map; in every second block the windows are shifted by half a window."""

    def __init__(self, dim: int, heads: int, window: int, shift: int) -> None:
        super().__init__()
        self.window, self.shift = window, shift
        self.w_msa = WindowAttention(dim, heads, window)

    def forward(self, x: Tensor) -> Tensor:
        """Return the residual branch of `[N, H, W, C]`, with the same shape."""
        height, width, side = x.shape[1], x.shape[2], self.window
        x = F.pad(x, (0, 0, 0, -width % side, 0, -height % side))
        rows, columns = x.shape[1] // side, x.shape[2] // side
        mask = None
        if self.shift:
            mask = self._mask(x.shape[1], x.shape[2], x)
            x = x.roll((-self.shift, -self.shift), dims=(1, 2))
        windows = x.unflatten(2, (columns, side)).unflatten(1, (rows, side)).transpose(2, 3)
        windows = self.w_msa(windows.flatten(3, 4).flatten(1, 2), mask)
        windows = windows.unflatten(1, (rows, columns)).unflatten(3, (side, side))
        x = windows.transpose(2, 3).flatten(3, 4).flatten(1, 2)
        if self.shift:
            x = x.roll((self.shift, self.shift), dims=(1, 2))
        return x[:, :height, :width]

    def _mask(self, height: int, width: int, like: Tensor) -> Tensor:
        """Return the attention mask `[windows, S * S, S * S]`: 0 within a region of the padded map, `APART` between."""
        rows, columns = (self._parts(n, like) for n in (height, width))  # [windows along the axis, S]
        parts = (3 * rows[:, None, :, None] + columns[None, :, None, :]).flatten(2).flatten(0, 1)
        return (parts[:, :, None] != parts[:, None, :]).to(like.dtype) * APART

    def _parts(self, size: int, like: Tensor) -> Tensor:
        place = torch.arange(size, device=like.device)
        part = (place >= size - self.window).long() + (place >= size - self.shift).long()
        return cast(Tensor, part.unflatten(0, (-1, self.window)))


class FeedForward(nn.Module):
    """Linear layer, GELU, linear layer, with the names of mmdet."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Sequential(nn.Linear(dim, hidden), nn.GELU()), nn.Linear(hidden, dim))

    def forward(self, x: Tensor) -> Tensor:
        """Return the residual branch of `[..., C]`, with the same shape."""
        return cast(Tensor, self.layers(x))


class SwinBlock(nn.Module):
    """Window attention and feed-forward network, each after a norm."""

    def __init__(self, dim: int, *, heads: int, window: int, shift: int, hidden: int, drop_path: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim)
        self.attn = ShiftedWindows(dim, heads, window, shift)
        self.norm2 = nn.LayerNorm(dim)
        self.ffn = FeedForward(dim, hidden)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        """Transform `[N, H, W, C]` to the same shape."""
        x = x + self.drop_path(self.attn(self.norm1(x)))
        return x + cast(Tensor, self.drop_path(self.ffn(self.norm2(x))))


class PatchMerging(nn.Module):
    """Merging of 2x2 tokens to one with twice the channels; the 4 C inputs are ordered by channel, then by pixel."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(4 * dim)
        self.reduction = nn.Linear(4 * dim, 2 * dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map `[N, H, W, C]` to `[N, H / 2, W / 2, 2 C]`; H and W are even."""
        x = x.unflatten(2, (-1, 2)).unflatten(1, (-1, 2))  # [N, H/2, 2, W/2, 2, C]
        merged: Tensor = self.reduction(self.norm(x.permute(0, 1, 3, 5, 2, 4).flatten(3)))
        return merged


class Stage(nn.Module):
    """Blocks of one stage, and the downsampling to the next."""

    def __init__(self, blocks: Sequence[SwinBlock], downsample: PatchMerging | None) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.downsample = downsample


class PatchEmbed(nn.Module):
    """Embedding of 4x4 pixels as one token, with a norm."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.projection = nn.Conv2d(3, dim, 4, 4)
        self.norm = nn.LayerNorm(dim)

    def forward(self, x: Tensor) -> Tensor:
        """Map `[N, 3, H, W]` to `[N, H / 4, W / 4, C]`."""
        return cast(Tensor, self.norm(self.projection(x).permute(0, 2, 3, 1)))


class SwinTransformer(nn.Module):
    """Swin Transformer with features at strides 4, 8, 16 and 32 (`res2` ... `res5`).

    Height and width of the input must be multiples of 32. The defaults are those of Swin-L with windows of 7 x 7.

    Args:
        dim: Channels of the first stage; they double with each stage.
        depths: Number of blocks of the stages.
        heads: Attention heads of the stages.
        window: Side of a window, in tokens.
        mlp_ratio: Ratio of the hidden width of the feed-forward networks to the channels.
        drop_path: Drop probability of the last block; it increases linearly from 0 in the first block.
        recompute: Use activation checkpointing in training: recompute the blocks in the backward pass.
    """

    def __init__(
        self,
        *,
        dim: int = 192,
        depths: Sequence[int] = (2, 2, 18, 2),
        heads: Sequence[int] = (6, 12, 24, 48),
        window: int = 7,
        mlp_ratio: int = 4,
        drop_path: float = 0.2,
        recompute: bool = True,
    ) -> None:
        super().__init__()
        self.recompute = recompute
        self.channels = {f"res{i + 2}": dim << i for i in range(len(depths))}
        self.patch_embed = PatchEmbed(dim)
        self.stages = nn.ModuleList()
        last = max(sum(depths) - 1, 1)
        for i, depth in enumerate(depths):
            width = dim << i
            blocks = [
                SwinBlock(
                    width,
                    heads=heads[i],
                    window=window,
                    shift=window // 2 if j % 2 else 0,
                    hidden=width * mlp_ratio,
                    drop_path=drop_path * (sum(depths[:i]) + j) / last,
                )
                for j in range(depth)
            ]
            self.stages.append(Stage(blocks, PatchMerging(width) if i + 1 < len(depths) else None))
            self.add_module(f"norm{i}", nn.LayerNorm(width))
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Return a map from stage name to features of normalised RGB `[N, 3, H, W]`; `res{i}` has stride `2**i`."""
        x = self.patch_embed(images)
        features: dict[str, Tensor] = {}
        for i, (name, each) in enumerate(zip(self.channels, self.stages, strict=True)):
            stage = cast(Stage, each)
            for block in stage.blocks:
                again = self.recompute and self.training
                x = checkpoint(block, x, use_reentrant=False) if again else block(x)
            # contiguous, because convolutions are slow on the permuted view and RoIAlign does not accept it
            features[name] = self.get_submodule(f"norm{i}")(x).permute(0, 3, 1, 2).contiguous()
            x = x if stage.downsample is None else stage.downsample(x)
        return features


ORIGINAL = "patch_embed.proj.weight"
"""Tensor name that exists only in checkpoints of the original layout."""
_NAMES = (
    ("patch_embed.proj.", "patch_embed.projection."),
    ("layers.", "stages."),
    (".attn.", ".attn.w_msa."),
    (".mlp.fc1.", ".ffn.layers.0.0."),
    (".mlp.fc2.", ".ffn.layers.1."),
)


def from_swin(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename the tensors of a Swin file of either layout; drop `head` and the tensors that follow from the sizes.

    In the original layout, patch merging orders its inputs by pixel (column-major), then by channel.
    """
    original = ORIGINAL in state
    renamed: dict[str, Tensor] = {}
    for key, value in state.items():
        if key.startswith(("head.", "norm.")) or key.endswith(("relative_position_index", "attn_mask")):
            continue
        name = key
        if original:
            for theirs, ours in _NAMES:
                name = name.replace(theirs, ours)
            if ".downsample." in name:
                pixels = value.unflatten(-1, (4, -1))[..., [0, 2, 1, 3], :]
                value = pixels.transpose(-1, -2).flatten(-2)
        renamed[name] = value
    return renamed
