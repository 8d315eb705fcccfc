"""Cases, views and tolerances that the tests of the operators share."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

from visdeploy_plugins import native

Arrays = dict[str, np.ndarray]
INPUTS = ("value", "spatial_shapes", "level_start_index", "sampling_locations", "attention_weights")
GRADIENTS = ("grad_value", "grad_sampling_locations", "grad_attention_weights")
MSDA = ["msda_random", "msda_outside", "msda_border", "msda_1x1", "msda_frames", "msda_empty", "msda_scalar"]
MSDA += ["msda_raw_weights"]


def golden(shared: Path, name: str) -> Arrays:
    with np.load(shared / "goldens" / "ops" / f"{name}.npz") as arrays:
        return dict(arrays)


def tolerances(shared: Path) -> dict[str, Any]:
    """Return the tolerances stated by the manifest: 1e-5 for outputs, 1e-4 for gradients, times max(1, largest)."""
    stated = json.loads((shared / "goldens" / "ops" / "manifest.json").read_text())["tolerance"]
    assert "1e-5" in stated["output"]
    assert "1e-4" in stated["gradients"]
    return {"output": 1e-5, "gradients": 1e-4}


def error(seen: np.ndarray, expected: np.ndarray) -> float:
    """Return the largest difference, relative to the largest expected value if that is above 1."""
    assert seen.shape == expected.shape
    if expected.size == 0:
        return 0.0
    difference = np.abs(seen.astype(np.float64) - expected.astype(np.float64)).max()
    return float(difference / max(1.0, np.abs(expected).max()))


def view(array: np.ndarray) -> native.TensorView:
    strides = tuple(step // array.itemsize for step in array.strides)
    return native.TensorView(array.ctypes.data, array.shape, strides, array.dtype.name)


def forward(case: Arrays, *, threads: int = 1) -> np.ndarray:
    output = np.empty(case["grad_output"].shape, case["value"].dtype)
    output.view(np.uint8).fill(0xFF)  # NaN in every floating-point type
    native.call("vd_ms_deform_attn_forward", [view(case[name]) for name in INPUTS] + [view(output)], threads=threads)
    return output


def backward(case: Arrays, *, threads: int = 1) -> Arrays:
    grads = {f"grad_{name}": np.full_like(case[name], np.nan) for name in (INPUTS[0], *INPUTS[3:])}
    tensors = [case[name] for name in INPUTS] + [case["grad_output"]] + [grads[name] for name in GRADIENTS]
    native.call("vd_ms_deform_attn_backward", [view(each) for each in tensors], threads=threads)
    return grads


def random_case(
    rng: np.random.Generator,
    levels: list[tuple[int, int]],
    *,
    batch: int = 1,
    heads: int = 2,
    channels: int = 4,
    queries: int = 3,
    points: int = 2,
    spread: float = 1.5,
    dtype: Any = np.float32,
) -> Arrays:
    """Return random inputs; locations reach `spread - 1` map sizes beyond the border on each side."""
    sizes = [height * width for height, width in levels]
    samples = (batch, queries, heads, len(levels), points)
    locations = 0.5 + spread * (rng.random((*samples, 2)) - 0.5) * 2
    return {
        "value": rng.standard_normal((batch, sum(sizes), heads, channels)).astype(dtype),
        "spatial_shapes": np.array(levels, np.int64),
        "level_start_index": np.cumsum([0, *sizes[:-1]]).astype(np.int64),
        "sampling_locations": locations.astype(dtype),
        "attention_weights": rng.standard_normal(samples).astype(dtype),
        "grad_output": rng.standard_normal((batch, queries, heads * channels)).astype(dtype),
    }


def brute_force(case: Arrays) -> np.ndarray:
    """Compute the operator with Python loops in float64, directly from its definition."""
    value, locations, weights = (case[name].astype(np.float64) for name in (INPUTS[0], *INPUTS[3:]))
    batch, queries, heads, levels, points = weights.shape
    output = np.zeros((batch, queries, heads, value.shape[3]))
    for n, q, m, level, p in np.ndindex(batch, queries, heads, levels, points):
        height, width = (int(size) for size in case["spatial_shapes"][level])
        x, y = locations[n, q, m, level, p] * (width, height) - 0.5
        if not (-1 < y < height and -1 < x < width):
            continue
        top, left = int(np.floor(y)), int(np.floor(x))
        for row, column in ((top, left), (top, left + 1), (top + 1, left), (top + 1, left + 1)):
            if 0 <= row < height and 0 <= column < width:
                share = (1 - abs(y - row)) * (1 - abs(x - column))
                token = int(case["level_start_index"][level]) + row * width + column
                output[n, q, m] += weights[n, q, m, level, p] * share * value[n, token, m]
    return output.reshape(batch, queries, heads * value.shape[3])


def run_on_isa(program: str, isa: str, *folders: Path) -> list[float]:
    """Return the numbers that a program prints in a process whose CPU kernels use one instruction set.

    The program prints first which one was taken.
    """
    command = [sys.executable, "-c", program, *map(str, folders)]
    env = {**os.environ, "VISDEPLOY_PLUGINS_ISA": isa, "PYTHONPATH": ":".join(filter(None, sys.path))}
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    used, *numbers = done.stdout.split()
    assert used == isa
    return [float(each) for each in numbers]
