"""Masks of BlendMask (Chen et al., CVPR 2020): bases cropped to boxes and blended; targets in training."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from visdeploy_plugins.torch_ops import multi_level_roi_align
from visdeploy_training.methods.tpr.config import TPRConfig
from visdeploy_training.methods.tpr.output import BASE_STRIDE
from visdeploy_training.methods.tpr.targets import PairTargets

MASKS_AT_ONCE = 16
"""Full-size masks converted to float32 at a time, which bounds the memory for images with many objects."""


def enlarge(maps: Tensor, size: int) -> Tensor:
    """Resize square maps `[..., s, s]` to `[..., size, size]`, bilinearly, corners not aligned, as matrix products.

    Unlike the resize operators of some engines, matrix products also accept a batch of zero maps.
    """
    side = maps.shape[-1]
    place = ((torch.arange(size, device=maps.device, dtype=maps.dtype) + 0.5) * (side / size) - 0.5).clamp(0, side - 1)
    cells = torch.arange(side, device=maps.device, dtype=maps.dtype)
    weights = (1 - (place[:, None] - cells).abs()).clamp(min=0)
    return torch.matmul(torch.matmul(weights, maps), weights.transpose(0, 1))


def blend(bases: Tensor, attention: Tensor, config: TPRConfig) -> Tensor:
    """Combine bases with attention maps with a softmax over the bases.

    Args:
        bases: `[P, bases, size, size]`, cropped to boxes.
        attention: `[P, bases * s * s]`, with s x s cells per attention map.
        config: Configuration with sizes.

    Returns:
        Mask logits `[P, size, size]`.
    """
    maps = attention.unflatten(1, (config.num_bases, config.attention_size, config.attention_size))
    return (bases * enlarge(maps, config.mask_size).softmax(dim=1)).sum(dim=1)


def crop(bases: Tensor, boxes: Tensor, images: Tensor, size: int) -> Tensor:
    """Crop bases to boxes by RoIAlign with one sample per cell.

    Args:
        bases: `[B, bases, H / 4, W / 4]`.
        boxes: `[k, 4]` left, top, right, bottom in pixels of the input, possibly outside of it.
        images: `[k]` int64, index of the image of each box.
        size: Rows and columns of a crop.

    Returns:
        `[k, bases, size, size]`.
    """
    crops: Tensor = multi_level_roi_align(
        [bases.float().contiguous()],
        boxes.float(),
        images,
        output_size=(size, size),
        spatial_scales=(1 / BASE_STRIDE,),
        sampling_ratio=1,
    )
    return crops


def crop_bases(bases: Tensor, targets: Sequence[PairTargets], size: int) -> Tensor:
    """Crop the bases of each image to the boxes of its objects: `[K_1 + ... + K_B, bases, size, size]`."""
    counts = torch.tensor([len(t.boxes) for t in targets], device=bases.device)
    images = torch.arange(len(targets), device=bases.device).repeat_interleave(counts)
    return crop(bases, torch.cat([t.boxes for t in targets]), images, size)


@torch.no_grad()
def mask_targets(masks: Tensor, boxes: Tensor, size: int) -> Tensor:
    """Crop masks `[K, H, W]` bool to boxes `[K, 4]` in pixels, and resize them to `[K, size, size]` bool."""
    found = [torch.zeros(0, size, size, dtype=torch.bool, device=masks.device)]
    for some, around in zip(masks.split(MASKS_AT_ONCE), boxes.split(MASKS_AT_ONCE), strict=True):
        crops = multi_level_roi_align(
            [some[:, None].float()],
            around.float().contiguous(),
            torch.arange(len(some), device=masks.device),
            output_size=(size, size),
            spatial_scales=(1.0,),
            sampling_ratio=0,
        )
        found.append(crops.squeeze(1) >= 0.5)
    return torch.cat(found)
