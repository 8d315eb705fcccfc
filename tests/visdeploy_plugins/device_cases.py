"""Calls of all operators in PyTorch on any device, for the checks in `device_checks.py`."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from tests.visdeploy_plugins import deform_conv_support, masked_conv_support, roi_align_support, support
from tests.visdeploy_plugins.ms_deform_attn_fused_support import FUSED_INPUTS, fused_case
from tests.visdeploy_plugins.support import Arrays
from visdeploy_plugins import torch_ops

Tensors = dict[str, torch.Tensor]
WIDE = (torch.float32, torch.float64)
DTYPES = (*WIDE, torch.float16, torch.bfloat16)


@dataclass(frozen=True)
class Op:
    """One op.

    Attributes:
        run: Calls the PyTorch operator with the tensors of a case, by name, and the case's parameters.
        make: Random cases; takes a generator and sizes.
        inputs: Which arrays of a case are its tensors.
        differentiable: Which of them have gradients.
        points: The one that says where to sample, or which positions count: it may hold anything. None has one.
        kinked: Inputs whose gradient jumps where a coordinate is an integer: compared on small cases alone.
        keeps: Inputs that stay float32 where values are halves.
        output, grad: Names of the golden output and of its gradient.
        goldens: Files of goldens.
        shapes: Sizes of random cases that meet every branch of the kernels.
        full: Sizes as in use.
    """

    run: Callable[[Tensors, Arrays], torch.Tensor]
    make: Callable[..., Arrays]
    inputs: tuple[str, ...]
    differentiable: tuple[str, ...]
    points: str
    kinked: tuple[str, ...] = ()
    keeps: tuple[str, ...] = ()
    output: str = "output"
    grad: str = "grad_output"
    goldens: tuple[str, ...] = ()
    shapes: dict[str, dict[str, Any]] = field(default_factory=dict)
    full: dict[str, Any] = field(default_factory=dict)

    def tensors(self, case: Arrays, dtype: torch.dtype, device: torch.device | str, *, grad: bool = False) -> Tensors:
        """Return the case's inputs on a device, its values rounded to a dtype."""
        found = {}
        for name in self.inputs:
            if name in case:
                tensor = torch.from_numpy(np.ascontiguousarray(case[name]))
                if tensor.is_floating_point() and not (name in self.keeps and dtype not in WIDE):
                    tensor = tensor.to(dtype)
                found[name] = tensor.to(device).requires_grad_(grad and name in self.differentiable)
        return found


def _attention(tensors: Tensors, _: Arrays) -> torch.Tensor:
    return torch_ops.ms_deform_attn(*(tensors[name] for name in support.INPUTS))


def _fused_attention(tensors: Tensors, _: Arrays) -> torch.Tensor:
    return torch_ops.ms_deform_attn_fused(*(tensors[name] for name in FUSED_INPUTS))


def _deform_conv(tensors: Tensors, case: Arrays) -> torch.Tensor:
    return torch_ops.deform_conv(**tensors, **deform_conv_support.keywords(case))


def _masked_conv(tensors: Tensors, case: Arrays) -> torch.Tensor:
    return torch_ops.masked_conv(**tensors, **masked_conv_support.keywords(case))


def _roi_align(tensors: Tensors, case: Arrays) -> torch.Tensor:
    maps = [tensors[f"feature{level}"] for level in range(len(case["scales"]))]
    where = tensors["rois"], tensors["batch_indices"]
    return torch_ops.multi_level_roi_align(maps, *where, **roi_align_support.settings_of(case))


def _make_attention(rng: np.random.Generator, *, levels: list[tuple[int, int]], **sizes: Any) -> Arrays:
    return support.random_case(rng, levels, **sizes)


def _make_fused_attention(rng: np.random.Generator, *, levels: list[tuple[int, int]], **sizes: Any) -> Arrays:
    return fused_case(rng, levels, **sizes)


PYRAMID = [(100, 160), (50, 80), (25, 40), (13, 20)]
FEATURES = tuple(f"feature{level}" for level in range(4))

OPS = {
    "ms_deform_attn": Op(
        run=_attention,
        make=_make_attention,
        inputs=support.INPUTS,
        differentiable=(support.INPUTS[0], *support.INPUTS[3:]),
        points="sampling_locations",
        kinked=("sampling_locations",),
        goldens=tuple(support.MSDA),
        shapes={
            "plain": {"levels": [(5, 7), (2, 3)]},
            "one channel": {"levels": [(1, 1)], "heads": 1, "channels": 1, "queries": 1, "points": 1},
            "16 bytes of halves": {"levels": [(9, 4)] * 3, "channels": 8, "queries": 70, "batch": 2},
            "odd channels": {"levels": [(6, 6), (1, 9)], "channels": 33, "heads": 3, "queries": 40},
            "more points than fit a block": {"levels": [(4, 4)] * 5, "channels": 32, "points": 40, "queries": 9},
            "more channels than threads": {"levels": [(3, 3)], "channels": 1030, "heads": 1, "queries": 5},
            "no queries": {"levels": [(3, 3)], "queries": 0},
            "no batch": {"levels": [(3, 3)], "batch": 0},
        },
        full={"levels": PYRAMID, "heads": 8, "channels": 32, "queries": 21260, "points": 4, "spread": 0.6},
    ),
    "ms_deform_attn_fused": Op(
        run=_fused_attention,
        make=_make_fused_attention,
        inputs=FUSED_INPUTS,
        differentiable=(FUSED_INPUTS[0], *FUSED_INPUTS[3:]),
        points="sampling_offsets",
        kinked=("reference_points", "sampling_offsets"),
        shapes={
            "plain": {"levels": [(5, 7), (2, 3)]},
            "boxes": {"levels": [(9, 4)] * 3, "reference_size": 4, "channels": 8, "queries": 70, "batch": 2},
            "one channel": {"levels": [(1, 1)], "heads": 1, "channels": 1, "queries": 1, "points": 1},
            "odd channels": {"levels": [(6, 6), (1, 9)], "channels": 33, "heads": 3, "queries": 40},
            "more points than fit a block": {"levels": [(4, 4)] * 5, "channels": 32, "points": 40, "queries": 9},
            "no queries": {"levels": [(3, 3)], "queries": 0},
        },
        full={"levels": PYRAMID, "heads": 8, "channels": 32, "queries": 21260, "points": 4},
    ),
    "deform_conv": Op(
        run=_deform_conv,
        make=deform_conv_support.random_case,
        inputs=("input", "offset", "weight", "mask", "bias"),
        differentiable=("input", "offset", "weight", "mask", "bias"),
        points="offset",
        kinked=("offset",),
        goldens=tuple(deform_conv_support.DCN),
        shapes={**deform_conv_support.SHAPES, "no batch": {"batch": 0}},
        full={"channels": 256, "outputs": 256, "size": (50, 80), "batch": 2},
    ),
    "masked_conv": Op(
        run=_masked_conv,
        make=masked_conv_support.random_case,
        inputs=masked_conv_support.INPUTS,
        differentiable=("x", "weight", "bias"),
        points="mask",
        keeps=("mask",),
        output="y",
        grad="grad_y",
        goldens=tuple(masked_conv_support.GOLDENS),
        shapes=masked_conv_support.SHAPES,
        full={"channels": 256, "outputs": 256, "size": (50, 80), "batch": 2, "active": 0.25},
    ),
    "multi_level_roi_align": Op(
        run=_roi_align,
        make=roi_align_support.random_case,
        inputs=(*FEATURES, "rois", "batch_indices"),
        differentiable=FEATURES,
        points="rois",
        keeps=("rois",),
        shapes={
            "plain": {},
            "eight channels": {"channels": 8, "output": (3, 5)},
            "as many samples as cells": {"ratio": 0, "levels": 2, "rois": 5},
            "one level": {"levels": 1, "channels": 1, "batch": 1},
            "no boxes": {"rois": 0},
        },
        full={"rois": 1500, "batch": 5, "channels": 256, "image": (384, 640)},
    ),
}
