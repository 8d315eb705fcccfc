"""PVTv2 backbone with messenger tokens that exchange information between frames.

PVTv2 is described in Wang et al. (CVMJ 2022), the messenger shift in TeViT (Yang et al., CVPR 2022). The distances of
the shift and the convolutions of messengers are those of the published implementation.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from visdeploy_training.attention import PackedAttention
from visdeploy_training.layers import DropPath

EPS = 1e-6
SHIFTS = (1, -1, 2, -2)

# Convolutions treat a messenger as a spatially constant image without borders, on which a convolution equals a linear
# layer whose weight is the kernel summed over its positions.


class PatchEmbed(nn.Module):
    """Strided convolution and norm of an image and its messengers."""

    def __init__(self, cin: int, cout: int, kernel: int, stride: int) -> None:
        super().__init__()
        self.projection = nn.Conv2d(cin, cout, kernel, stride, padding=kernel // 2)
        self.norm = nn.LayerNorm(cout, eps=EPS)

    def forward(self, image: Tensor, messengers: Tensor) -> tuple[Tensor, Tensor, tuple[int, int]]:
        """Map `[N, cin, H, W]` and `[N, M, cin]` to `[N, h * w, cout]`, `[N, M, cout]` and (h, w)."""
        image = self.projection(image)
        tokens = self.norm(image.flatten(2).transpose(1, 2))
        size = (image.shape[2], image.shape[3])
        return tokens, self.norm(_dense(self.projection, messengers)), size


class ReducedAttention(nn.Module):
    """Attention of all tokens to the messengers and to the image tokens at `1 / reduction` of their size.

    Without a reduction, messengers are queries but not keys, as in the last stage of the published implementation.
    """

    def __init__(self, dim: int, heads: int, reduction: int) -> None:
        super().__init__()
        self.attn = PackedAttention(dim, heads)
        self.sr = nn.Conv2d(dim, dim, reduction, reduction) if reduction > 1 else None
        self.norm = nn.LayerNorm(dim, eps=EPS) if reduction > 1 else None

    def forward(self, tokens: Tensor, messengers: Tensor, size: tuple[int, int]) -> Tensor:
        """Return the residual branch `[N, h * w + M, C]` of tokens `[N, h * w, C]` and messengers `[N, M, C]`."""
        keys = tokens
        if self.sr is not None and self.norm is not None:
            reduced = self.sr(_as_map(tokens, size)).flatten(2).transpose(1, 2)
            keys = self.norm(torch.cat([reduced, _dense(self.sr, messengers)], dim=1))
        out: Tensor = self.attn(torch.cat([tokens, messengers], dim=1), keys, keys)
        return out


class MixFeedForward(nn.Module):
    """Linear layer, depthwise 3x3 convolution, GELU, linear layer, with the names of the official checkpoints."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.layers = nn.ModuleDict(
            {
                "0": nn.Conv2d(dim, hidden, 1),
                "1": nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden),
                "4": nn.Conv2d(hidden, dim, 1),
            }
        )

    def forward(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        """Return the residual branch of tokens and messengers `[N, h * w + M, C]`, with the same shape."""
        wide, depthwise, narrow = (cast(nn.Conv2d, self.layers[key]) for key in ("0", "1", "4"))
        x = _dense(wide, x)
        tokens, messengers = _split(x, size)
        tokens = depthwise(_as_map(tokens, size)).flatten(2).transpose(1, 2)
        messengers = messengers * depthwise.weight.sum(dim=(1, 2, 3)) + cast(Tensor, depthwise.bias)
        return _dense(narrow, F.gelu(torch.cat([tokens, messengers], dim=1)))


class MessengerBlock(nn.Module):
    """Attention, feed-forward network, and the shift of the messengers along the clip.

    Args:
        dim: Channels C.
        heads: Attention heads.
        reduction: Reduction factor of the rows and columns of the keys.
        hidden: Hidden width of the feed-forward network.
        drop_path: Probability of dropping a residual branch for an image.
        shifts: Number of frames by which each group of messengers is shifted.
    """

    def __init__(
        self, dim: int, *, heads: int, reduction: int, hidden: int, drop_path: float, shifts: Sequence[int]
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=EPS)
        self.attn = ReducedAttention(dim, heads, reduction)
        self.norm2 = nn.LayerNorm(dim, eps=EPS)
        self.ffn = MixFeedForward(dim, hidden)
        self.drop_path = DropPath(drop_path)
        self.shifts = tuple(shifts)

    def forward(self, tokens: Tensor, messengers: Tensor, size: tuple[int, int], frames: int) -> tuple[Tensor, Tensor]:
        """Return tokens `[N, h * w, C]` and messengers `[N, M, C]` of the same shapes; a clip has `frames` images."""
        x = torch.cat([tokens, messengers], dim=1)
        x = x + self.drop_path(self.attn(self.norm1(tokens), self.norm1(messengers), size))
        x = x + self.drop_path(self.ffn(self.norm2(x), size))
        tokens, messengers = _split(x, size)
        return tokens, shift_messengers(messengers, self.shifts, frames)


class MessengerPVT(nn.Module):
    """PVTv2 over clips, with features at strides 4, 8, 16 and 32 (`res2` ... `res5`).

    The shift wraps around the ends of a clip; the features therefore depend on the clip length. State dict names are
    those of the official TeViT checkpoints. The defaults are those of PVTv2-B1.

    Args:
        dims: Channels of the stages.
        depths: Number of blocks of the stages.
        heads: Attention heads of the stages.
        reductions: Reduction factors of the keys in the stages.
        mlp_ratios: Ratios of the hidden width of the feed-forward networks to the channels.
        messengers: Number of messenger tokens, a multiple of 4.
        drop_path: Drop probability of the last block; it increases linearly from 0 in the first block.
    """

    def __init__(
        self,
        *,
        dims: Sequence[int] = (64, 128, 320, 512),
        depths: Sequence[int] = (2, 2, 2, 2),
        heads: Sequence[int] = (1, 2, 5, 8),
        reductions: Sequence[int] = (8, 4, 2, 1),
        mlp_ratios: Sequence[int] = (8, 8, 4, 4),
        messengers: int = 32,
        drop_path: float = 0.1,
    ) -> None:
        super().__init__()
        self.channels = {f"res{i + 2}": dim for i, dim in enumerate(dims)}
        self.msg_tokens = nn.Parameter(torch.empty(1, messengers, 3))
        # computed without torch.linspace, which has no values on the meta device
        last = max(sum(depths) - 1, 1)
        self.layers = nn.ModuleList()
        for i, dim in enumerate(dims):
            cin, kernel, stride = (3, 7, 4) if i == 0 else (dims[i - 1], 3, 2)
            blocks = nn.ModuleList()
            for j in range(depths[i]):
                # every second block reverses the shift of the previous one; an unpaired last block has no shift
                shifts = [s if j % 2 == 0 else -s for s in SHIFTS]
                alone = j % 2 == 0 and j == depths[i] - 1
                block = MessengerBlock(
                    dim,
                    heads=heads[i],
                    reduction=reductions[i],
                    hidden=dim * mlp_ratios[i],
                    drop_path=drop_path * (sum(depths[:i]) + j) / last,
                    shifts=() if alone else shifts,
                )
                blocks.append(block)
            embed = PatchEmbed(cin, dim, kernel, stride)
            self.layers.append(nn.ModuleList([embed, blocks, nn.LayerNorm(dim, eps=EPS)]))
        _init(self)

    def forward(self, images: Tensor, frames: int) -> dict[str, Tensor]:
        """Return a map from stage name to features; `res{i}` has stride `2**i`.

        Args:
            images: Normalised RGB `[N, 3, H, W]`, clip after clip; H and W are multiples of 32.
            frames: Number of images per clip.
        """
        x, messengers = images, self.msg_tokens.expand(images.shape[0], -1, -1)
        features: dict[str, Tensor] = {}
        for name, stage in zip(self.channels, self.layers, strict=True):
            embed, blocks, norm = cast(nn.ModuleList, stage)
            tokens, messengers, size = embed(x, messengers)
            for block in cast(nn.ModuleList, blocks):
                tokens, messengers = block(tokens, messengers, size, frames)
            x, messengers = _as_map(norm(tokens), size), norm(messengers)
            features[name] = x
        return features


def shift_messengers(messengers: Tensor, shifts: Sequence[int], frames: int) -> Tensor:
    """Shift groups of messengers along their clips, cyclically; a positive shift moves them to later frames.

    Args:
        messengers: `[B * T, M, C]`, clip after clip.
        shifts: Number of frames for each group, all of equal size; empty for no shift.
        frames: Number T of frames per clip.
    """
    if not shifts:
        return messengers
    clips = messengers.unflatten(0, (-1, frames))
    # indices instead of torch.roll, modulo a tensor: in an exported graph the number of frames is symbolic
    place = torch.arange(frames, device=messengers.device)
    count = place[-1:] + 1
    groups = clips.chunk(len(shifts), dim=2)
    rolled = [
        group.index_select(1, torch.remainder(place - shift, count))
        for group, shift in zip(groups, shifts, strict=True)
    ]
    return torch.cat(rolled, dim=2).flatten(0, 1)


def from_pvt(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename the tensors of an ImageNet PVTv2 file; merge the query and key/value projections and drop `head`."""
    renamed: dict[str, Tensor] = {}
    for key, value in state.items():
        part, _, rest = key.partition(".")
        stage = int(part[-1]) - 1 if part[-1:].isdigit() else -1
        if part.startswith("patch_embed"):
            renamed[f"layers.{stage}.0.{rest.replace('proj.', 'projection.')}"] = value
        elif part.startswith("norm"):
            renamed[f"layers.{stage}.2.{rest}"] = value
        elif part.startswith("block"):
            index, _, rest = rest.partition(".")
            renamed |= _block_tensors(f"layers.{stage}.1.{index}.", rest, value, state[key.replace(".q.", ".kv.")])
    return renamed


def _block_tensors(prefix: str, name: str, value: Tensor, partner: Tensor) -> dict[str, Tensor]:
    if name.startswith("attn.kv."):
        return {}
    if name.startswith("attn.q."):
        kind = name.removeprefix("attn.q.")
        return {f"{prefix}attn.attn.in_proj_{kind}": torch.cat([value, partner])}
    for theirs, ours in (("mlp.fc1.", "ffn.layers.0."), ("mlp.fc2.", "ffn.layers.4.")):
        if name.startswith(theirs):
            wide = value[..., None, None] if name.endswith("weight") else value
            return {prefix + name.replace(theirs, ours): wide}
    name = name.replace("mlp.dwconv.dwconv.", "ffn.layers.1.").replace("attn.proj.", "attn.attn.out_proj.")
    return {prefix + name: value}


def _dense(conv: nn.Conv2d, x: Tensor) -> Tensor:
    """Apply a convolution to messengers `[N, M, C]`, as to spatially constant images."""
    return F.linear(x, conv.weight.sum(dim=(2, 3)), conv.bias)


def _as_map(tokens: Tensor, size: tuple[int, int]) -> Tensor:
    """Map `[N, h * w, C]` to `[N, C, h, w]`."""
    return cast(Tensor, tokens.transpose(1, 2).unflatten(2, size))


def _split(x: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Split into tokens of the image and messengers."""
    pixels = size[0] * size[1]
    return x[:, :pixels], x[:, pixels:]


def _init(module: MessengerPVT) -> None:
    nn.init.trunc_normal_(module.msg_tokens, std=0.02)
    for child in module.modules():
        if isinstance(child, nn.Conv2d):
            nn.init.kaiming_normal_(child.weight, mode="fan_out", nonlinearity="linear")
            if child.bias is not None:
                nn.init.zeros_(child.bias)
