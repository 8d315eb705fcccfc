"""Cases of the fused op, and what they are tested against."""

from typing import Any

import numpy as np

from tests.visdeploy_plugins.support import INPUTS, Arrays, random_case, view
from visdeploy_plugins import native

FUSED_INPUTS = (*INPUTS[:3], "reference_points", "sampling_offsets", "attention_logits")
FUSED_GRADIENTS = tuple(f"grad_{name}" for name in (FUSED_INPUTS[0], *FUSED_INPUTS[3:]))


def fused_case(
    rng: np.random.Generator,
    levels: list[tuple[int, int]],
    *,
    reference_size: int = 2,
    dtype: Any = np.float32,
    **sizes: Any,
) -> Arrays:
    """Return random inputs: references in the whole maps, offsets of a few pixels (or of about a box)."""
    case = random_case(rng, levels, dtype=dtype, **sizes)
    weights = case.pop("attention_weights")
    batch, queries, _, count, _ = weights.shape
    shape = case.pop("sampling_locations").shape
    references = rng.random((batch, queries, count, reference_size))
    return case | {
        "reference_points": references.astype(dtype),
        "sampling_offsets": (2 * rng.standard_normal(shape)).astype(dtype),
        "attention_logits": (3 * weights).astype(dtype),
    }


def forward_fused(case: Arrays, *, threads: int = 1) -> np.ndarray:
    output = np.empty(case["grad_output"].shape, case["value"].dtype)
    output.view(np.uint8).fill(0xFF)
    tensors = [*(case[name] for name in FUSED_INPUTS), output]
    native.call("vd_ms_deform_attn_fused_forward", [view(each) for each in tensors], threads=threads)
    return output


def unfused(case: Arrays, dtype: Any = np.float64) -> Arrays:
    """Return the plain op's case with the same result, locations and weights found in `dtype`."""
    logits, offsets, references = (case[name].astype(dtype) for name in reversed(FUSED_INPUTS[3:]))
    batch, queries, heads, levels, points = logits.shape
    rows = logits.reshape(batch, queries, heads, levels * points)
    shares = np.exp(rows - rows.max(-1, keepdims=True))
    shares /= shares.sum(-1, keepdims=True)
    references = references[:, :, None, :, None]
    if references.shape[-1] == 4:
        locations = references[..., :2] + offsets / dtype(points) * references[..., 2:] * dtype(0.5)
    else:
        locations = references + offsets / case["spatial_shapes"][:, None, ::-1].astype(dtype)
    return {
        **{name: case[name] for name in INPUTS[1:3]},
        "value": case["value"].astype(dtype),
        "sampling_locations": locations,
        "attention_weights": shares.reshape(logits.shape),
        "grad_output": case["grad_output"].astype(dtype),
    }
