"""Multi-scale deformable attention at the size of a DETR encoder: every position of the pyramid is a query."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from op_suite.case import Case, Tensors, node
from visdeploy_plugins.torch_ops import ms_deform_attn, ms_deform_attn_reference

LEVELS = [(100, 160), (50, 80), (25, 40), (13, 20)]
SMALL_LEVELS = [(8, 10), (4, 5)]
HEADS, POINTS, CHANNELS = 8, 4, 256
NAMES = ("value", "spatial_shapes", "level_start_index", "sampling_locations", "attention_weights")
GEOMETRY = frozenset(NAMES[1:3])


def cases(*, small: bool) -> Iterator[Case]:
    """Yield a case with locations as in trained encoders, and one with uniformly random locations."""
    levels = SMALL_LEVELS if small else LEVELS
    for setting in ("offsets of a few pixels", "uniformly random locations"):
        shapes = torch.tensor(levels)
        inputs = encoder_inputs(shapes)
        if setting.startswith("uniform"):
            generator = torch.Generator().manual_seed(1)
            inputs["sampling_locations"] = torch.rand(inputs["sampling_locations"].shape, generator=generator)
        yield Case(
            op="ms_deform_attn",
            setting=setting,
            inputs=inputs,
            nodes=[node("MSDeformAttn", list(NAMES))],
            ours=lambda t: ms_deform_attn(*(t[name] for name in NAMES)),
            eager=_eager(),
            flops=sampling_flops(inputs["attention_weights"], inputs["value"]),
            constants=GEOMETRY,
        )


def encoder_inputs(shapes: Tensor) -> dict[str, Tensor]:
    """Create the inputs of one layer: every position is a query, with offsets of a few pixels around its centre."""
    generator = torch.Generator().manual_seed(0)
    tokens, levels = int(shapes.prod(1).sum()), len(shapes)
    centres, offsets = reference_points(shapes), pixel_offsets(tokens, levels, generator)
    steps = shapes.flip(1)[None, None, None, :, None].float()
    weights = torch.randn((1, tokens, HEADS, levels * POINTS), generator=generator).softmax(-1)
    return {
        "value": torch.randn((1, tokens, HEADS, CHANNELS // HEADS), generator=generator),
        "spatial_shapes": shapes,
        "level_start_index": torch.cat([torch.zeros(1, dtype=torch.int64), shapes.prod(1).cumsum(0)[:-1]]),
        "sampling_locations": centres[None, :, None, None, None] + offsets / steps,
        "attention_weights": weights.view(1, tokens, HEADS, levels, POINTS),
    }


def reference_points(shapes: Tensor) -> Tensor:
    """Return the centres of all pixels of all levels, [S, 2] as (x, y) in 0..1."""
    points = []
    for height, width in shapes.tolist():
        y, x = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
        points.append(torch.stack([x / width, y / height], -1).view(-1, 2))
    return torch.cat(points)


def pixel_offsets(queries: int, levels: int, generator: torch.Generator) -> Tensor:
    """Create offsets in pixels as in trained encoders: one direction per head, one pixel more per point, and noise."""
    angles = torch.arange(HEADS) * (2 * torch.pi / HEADS)
    ways = torch.stack([angles.cos(), angles.sin()], -1)[None, :, None, None]
    steps = (torch.arange(POINTS) + 1.0)[:, None]
    return ways * steps + torch.randn((1, queries, HEADS, levels, POINTS, 2), generator=generator)


def sampling_flops(weights: Tensor, value: Tensor) -> int:
    """Count operations: per point one fused operation per channel for each of 4 neighbours, and 20 for coordinates."""
    return weights.numel() * (8 * value.shape[3] + 20)


def _eager() -> dict[str, Callable[[Tensors], Tensor]]:
    found: dict[str, Callable[[Tensors], Tensor]] = {
        "PyTorch grid_sample": lambda t: ms_deform_attn_reference(*(t[name] for name in NAMES))
    }
    if torch.cuda.is_available() and importlib.util.find_spec("deformops") is not None:
        msda = importlib.import_module("deformops.registry").msda
        found["deformops"] = lambda t: msda(*(t[name] for name in NAMES[:4]), t[NAMES[4]].flatten(-2))
    return found
