"""Reference for multi-scale deformable attention, computed in float64 by PyTorch."""

import numpy as np
import torch

from tests.visdeploy_plugins.rounding import Sums
from tests.visdeploy_plugins.support import INPUTS, Arrays
from visdeploy_plugins.torch_ops import ms_deform_attn_reference


def exact_sums(case: Arrays) -> Sums:
    """Return the output in float64 and what bounds its rounding.

    A term is a neighbour's value times its two distances and the attention weight: five roundings, then one for each
    of the four neighbours of each point that it is added to. A coordinate within the map, location * size - 0.5, is
    rounded twice, each time by at most u times the map's size; from pixel to pixel a value changes by at most twice the
    largest one.
    """
    wide = {name: case[name].astype(np.float64) for name in (INPUTS[0], *INPUTS[3:])}
    exact, terms, squares = (
        _reference(case | wide | {name: change(wide[name]) for name in ("value", "attention_weights")})
        for change in (np.positive, np.abs, np.square)
    )
    levels, points = wide["attention_weights"].shape[3:]
    sizes = case["spatial_shapes"].sum(-1) + 2
    weights = (np.abs(wide["attention_weights"]).sum(-1) * sizes).sum(-1)
    slope = 2 * np.abs(wide["value"]).max((1, 3), initial=0)[:, None]
    moved = np.repeat(2 * slope * weights, case["value"].shape[3], -1).reshape(exact.shape)
    return Sums(exact, terms, 4 * levels * points + 5, squares, moved)


def _reference(case: Arrays) -> np.ndarray:
    return ms_deform_attn_reference(*(torch.from_numpy(case[name]) for name in INPUTS)).numpy()
