"""Names and shapes of official checkpoints of VIShv and STEm-Seg, built from the published naming."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch

Shape = tuple[int, ...]
Entries = Iterator[tuple[str, Shape]]

DEPTHS = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}
STATISTICS = ("weight", "bias", "running_mean", "running_var")
WIDE, NARROW = (256, 256, 256, 256), (256, 256, 128, 128)
LAYOUTS: dict[str, dict[str, Any]] = {
    "hierarchical_ytvis": {"position": 3, "free": 3, "semantic": (42, WIDE), "hierarchical": True},
    "hierarchical_davis": {"position": 3, "free": 3, "hierarchical": True},
    "stemseg_ytvis": {"position": 2, "free": 2, "semantic": (42, WIDE)},
    "stemseg_davis": {"position": 2, "free": 2},
    "stemseg_kitti": {"position": 3, "free": 0, "semantic": (4, NARROW)},
}
UNUSED = ("offset_decoder.conv1_cat.", "offset_decoder.pooling_blocks.", "embedding_loss_criterion.")
BYTES, KEPT = "initialized", "free_dim_bandwidths"


def layout(
    depth: int,
    *,
    position: int,
    free: int,
    semantic: tuple[int, Sequence[int]] | None = None,
    hierarchical: bool = False,
    flow: bool = True,
) -> dict[str, Shape]:
    """Return the shape of every tensor by its official name.

    Args:
        depth: Depth of the ResNet.
        position: Number of coordinates of the embedding.
        free: Number of its free dimensions.
        semantic: Outputs and channels of the semantic head; None for a separate seediness head.
        hierarchical: With the appearance decoder.
        flow: With the flow.
    """
    found = {f"backbone.{k}": v for k, v in backbone(depth).items()} | dict(_decoder("embedding_head", NARROW))
    found |= {
        "embedding_head.time_scale": (),
        "embedding_head.conv_embedding.weight": (position + free, 128, 1, 1, 1),
        "embedding_head.conv_variance.weight": (position, 128, 1, 1, 1),
        "embedding_head.conv_variance.bias": (position,),
    }
    if free:
        found["embedding_loss_criterion.free_dim_bandwidths"] = (1, free)
    if hierarchical:
        convs = {"conv1_add": ((64, 256), (free, 64)), "conv1_cat": ((256, 1024), (64, 256), (free, 64))}
        for name, sizes in convs.items():
            for i, size in enumerate(sizes):
                found[f"offset_decoder.{name}.{i}.weight"] = (*size, 1, 1, 1)
                found[f"offset_decoder.{name}.{i}.bias"] = size[:1]
        found |= dict(_flow(4 * free)) if flow else {}
    if semantic is None:
        found |= dict(_decoder("seediness_head", NARROW)) | {"seediness_head.conv_out.weight": (1, 128, 1, 1, 1)}
    else:
        rows, channels = semantic
        found |= dict(_decoder("semseg_head", channels))
        found["semseg_head.conv_out.weight"] = (rows, channels[-1], 1, 1, 1)
        found["embedding_head.conv_seediness.weight"] = (1, 128, 1, 1, 1)
    return found


def state(shapes: Mapping[str, Shape], value: float = 0.5) -> dict[str, torch.Tensor]:
    """Return a state dict that holds one value in memory for each tensor; clusters have a deviation of 0.3."""
    values = {BYTES: torch.ones((), dtype=torch.uint8), KEPT: torch.tensor(1 / 0.09)}
    default = torch.tensor(value)
    return {k: values.get(k.rsplit(".", 1)[-1], default).clone().expand(s) for k, s in shapes.items()}


def backbone(depth: int) -> dict[str, Shape]:
    """Return the tensors of the backbone and its pyramid, named as in the files of Mask R-CNN."""
    found: dict[str, Shape] = {"body.stem.conv1.weight": (64, 3, 7, 7)} | dict(_norm("body.stem.bn1", 64))
    cin = 64
    for stage, blocks in enumerate(DEPTHS[depth]):
        width, cout = 64 << stage, 256 << stage
        for block in range(blocks):
            name = f"body.layer{stage + 1}.{block}"
            if not block:
                found[f"{name}.downsample.0.weight"] = (cout, cin, 1, 1)
                found |= dict(_norm(f"{name}.downsample.1", cout))
            for i, (a, b, k) in enumerate(((cin, width, 1), (width, width, 3), (width, cout, 1)), start=1):
                found[f"{name}.conv{i}.weight"] = (b, a, k, k)
                found |= dict(_norm(f"{name}.bn{i}", b))
            cin = cout
        for part, size in (("inner", (256, cout, 1, 1)), ("layer", (256, 256, 3, 3))):
            found[f"fpn.fpn_{part}{stage + 1}.weight"] = size
            found[f"fpn.fpn_{part}{stage + 1}.bias"] = (256,)
    return found


def _norm(name: str, channels: int) -> Entries:
    for leaf in STATISTICS:
        yield f"{name}.{leaf}", (channels,)


def _decoder(name: str, channels: Sequence[int]) -> Entries:
    for block, depth, cout in zip(("32x", "16x", "8x", "4x"), (3, 2, 1, 1), channels, strict=True):
        for i in range(depth):
            yield f"{name}.block_{block}.{4 * i}.weight", (cout, cout if i else 256, 3, 3, 3)
            yield f"{name}.block_{block}.{4 * i}.bias", (cout,)
            yield f"{name}.block_{block}.{4 * i + 1}.weight", (cout,)
            yield f"{name}.block_{block}.{4 * i + 1}.bias", (cout,)
    for i, scale in enumerate((16, 8, 4), start=1):
        yield f"{name}.conv_{scale}.weight", (channels[i], channels[i - 1] + channels[i], 1, 1, 1)


def _flow(channels: int) -> Entries:
    half, square = channels // 2, (channels, channels)
    for k in range(32):
        name = f"offset_head.blocks.0.flows.{k}"
        yield f"{name}.actnorm.loc", (1, channels, 1, 1)
        yield f"{name}.actnorm.scale", (1, channels, 1, 1)
        yield f"{name}.actnorm.initialized", ()
        for leaf in ("w_l", "w_u", "w_p", "u_mask", "l_mask", "l_eye"):
            yield f"{name}.invconv.{leaf}", square
        for leaf in ("w_s", "s_sign"):
            yield f"{name}.invconv.{leaf}", (channels,)
        for i, size in ((0, (512, half, 3, 3)), (2, (512, 512, 1, 1))):
            yield f"{name}.coupling.net.{i}.weight", size
            yield f"{name}.coupling.net.{i}.bias", size[:1]
        yield f"{name}.coupling.net.4.scale", (1, half, 1, 1)
        yield f"{name}.coupling.net.4.conv.weight", (half, 512, 3, 3)
        yield f"{name}.coupling.net.4.conv.bias", (half,)
    yield "offset_head.blocks.0.prior.scale", (1, 2 * channels, 1, 1)
    yield "offset_head.blocks.0.prior.conv.weight", (2 * channels, channels, 3, 3)
    yield "offset_head.blocks.0.prior.conv.bias", (2 * channels,)
