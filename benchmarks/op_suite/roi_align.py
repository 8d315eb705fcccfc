"""Multi-level RoI align as in TeViT: 100 boxes in each of 5 frames of 360x640, on four levels of 256 channels."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from math import ceil, floor

import torch
from torch import Tensor
from torchvision.ops import roi_align

from op_suite.case import Case, Tensors, node
from visdeploy_plugins.torch_ops import multi_level_roi_align

HEIGHT, WIDTH, STRIDES, FINEST, RATIO = 360, 640, (4, 8, 16, 32), 56.0, 2
SCALES = [1 / stride for stride in STRIDES]
MAPS = [f"feature_{level}" for level in range(len(STRIDES))]


def cases(*, small: bool) -> Iterator[Case]:
    """Yield cases of the two output sizes that TeViT uses for the same boxes."""
    frames, boxes, channels = (2, 4, 8) if small else (5, 100, 256)
    inputs = _inputs(frames, boxes, channels)
    for side in (7, 14):
        yield Case(
            op="multi_level_roi_align",
            setting=f"{frames} frames x {boxes} boxes, {side}x{side}",
            inputs=inputs,
            nodes=[
                node(
                    "MultiLevelRoiAlign",
                    ["rois", "batch_indices", *MAPS],
                    output_height=side,
                    output_width=side,
                    sampling_ratio=RATIO,
                    spatial_scales=SCALES,
                    finest_scale=FINEST,
                )
            ],
            ours=partial(_ours, side=side),
            eager={"torchvision per level": partial(_per_level, side=side)},
            # one fused operation for each of 4 neighbours of RATIO^2 samples, and the mean
            flops=frames * boxes * channels * side**2 * (8 * RATIO**2 + 1),
            touched=_touched(inputs),
            single=frozenset({"rois"}),
        )


def _ours(t: Tensors, side: int) -> Tensor:
    output: Tensor = multi_level_roi_align(
        [t[name] for name in MAPS],
        t["rois"],
        t["batch_indices"],
        output_size=(side, side),
        spatial_scales=SCALES,
        sampling_ratio=RATIO,
        finest_scale=FINEST,
    )
    return output


def _per_level(t: Tensors, side: int) -> Tensor:
    """Compute RoI align with one call per level for the boxes of that level, and restore the order of the boxes."""
    rois, first = t["rois"], t[MAPS[0]]
    boxes = torch.cat([t["batch_indices"][:, None].to(rois.dtype), rois], 1).to(first.dtype)
    level_of = _levels(rois)
    output = first.new_empty((len(rois), first.shape[1], side, side))
    for level, name in enumerate(MAPS):
        index = (level_of == level).nonzero()[:, 0]
        output[index] = roi_align(t[name], boxes[index], side, SCALES[level], RATIO, aligned=True)
    return output


def _levels(rois: Tensor) -> Tensor:
    sides = ((rois[:, 2] - rois[:, 0]) * (rois[:, 3] - rois[:, 1])).sqrt()
    return torch.log2(sides / FINEST + 1e-6).floor().clamp(0, len(STRIDES) - 1).long()


def _inputs(frames: int, boxes: int, channels: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(3)
    count = frames * boxes
    size = torch.tensor([WIDTH, HEIGHT])
    centres = torch.rand((count, 2), generator=generator) * size
    # sides from 16 pixels to the whole frame, uniform on a logarithmic scale, so that every level has boxes
    sides = 16 * 2 ** (torch.rand((count, 2), generator=generator) * 4.5)
    corners = [(centres - sides / 2).clamp(min=0), torch.minimum(centres + sides / 2, size)]
    inputs = {"rois": torch.cat(corners, 1), "batch_indices": torch.arange(frames).repeat_interleave(boxes)}
    for name, stride in zip(MAPS, STRIDES, strict=True):
        shape = (frames, channels, ceil(HEIGHT / stride), ceil(WIDTH / stride))
        inputs[name] = torch.randn(shape, generator=generator)
    return inputs


def _touched(inputs: Tensors) -> dict[str, float]:
    """Compute the share of each map that is covered by boxes of its level."""
    shares, level_of = {}, _levels(inputs["rois"])
    for level, (name, stride) in enumerate(zip(MAPS, STRIDES, strict=True)):
        covered = torch.zeros(inputs[name].shape[0], *inputs[name].shape[2:])
        for roi, image in zip(
            inputs["rois"][level_of == level], inputs["batch_indices"][level_of == level], strict=True
        ):
            left, top, right, bottom = (roi / stride).tolist()
            covered[image, floor(top) : ceil(bottom) + 1, floor(left) : ceil(right) + 1] = 1
        shares[name] = float(covered.mean())
    return shares
