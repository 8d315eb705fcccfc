"""Deterministic weights for the golden tests: every tensor is a pure function of its name and shape.

The golden outputs beside this file were computed by the reference implementation of each method with
exactly these weights, so a port that loads the same state dict must reproduce the same numbers.

    state = seeded_state_dict(json.load(open("goldens/tevit/manifest.json"))["params"])

NumPy's ``RandomState`` stream is frozen by its compatibility policy, so the values do not change
from one NumPy release to the next.
"""

import hashlib

import numpy as np


def seeded_array(name: str, shape, dtype: str = "float32") -> np.ndarray:
    """Return the value of one tensor, from its state-dict name and its shape alone.

    - ``num_batches_tracked`` and any other integer tensor: zeros
    - ``running_mean``: 0.1 * N(0, 1);  ``running_var``: 0.5 + U(0, 1)
    - a bias (last name part is or ends with ``bias``): 0.05 * N(0, 1)
    - any other tensor with fewer than two dimensions (norm scales, scalars): 1 + 0.1 * N(0, 1)
    - any other tensor: N(0, 1) / sqrt(fan_in), fan_in being the product of all dims but the first
    """
    shape = tuple(int(s) for s in shape)
    if not dtype.startswith("float"):
        return np.zeros(shape, dtype=dtype)
    seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "little")
    rng = np.random.RandomState(seed)
    last = name.rsplit(".", 1)[-1]
    if last == "running_var":
        value = 0.5 + rng.random_sample(shape)
    elif last == "running_mean":
        value = 0.1 * rng.standard_normal(shape)
    elif last.endswith("bias"):
        value = 0.05 * rng.standard_normal(shape)
    elif len(shape) < 2:
        value = 1.0 + 0.1 * rng.standard_normal(shape)
    else:
        value = rng.standard_normal(shape) / np.sqrt(np.prod(shape[1:]))
    return np.asarray(value, dtype=dtype)


def seeded_state_dict(params) -> dict:
    """``params``: the manifest's list of ``{"name", "shape", "dtype"}``; returns name -> array."""
    return {p["name"]: seeded_array(p["name"], p["shape"], p.get("dtype", "float32")) for p in params}


def seeded_frames(name: str, num_frames: int, height: int, width: int) -> np.ndarray:
    """Return a smooth moving RGB test clip, uint8, shape (num_frames, height, width, 3)."""
    seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "little")
    rng = np.random.RandomState(seed)
    y, x = np.mgrid[0:height, 0:width].astype(np.float64)
    frames = np.empty((num_frames, height, width, 3), np.uint8)
    freq, phase, speed = (
        rng.uniform(0.01, 0.12, (3, 6, 2)),
        rng.uniform(0, 6.28, (3, 6)),
        rng.uniform(-0.5, 0.5, (3, 6)),
    )
    for t in range(num_frames):
        for c in range(3):
            wave = sum(np.sin(freq[c, k, 0] * y + freq[c, k, 1] * x + phase[c, k] + speed[c, k] * t) for k in range(6))
            frames[t, :, :, c] = np.clip(127.5 + 30.0 * wave, 0, 255).astype(np.uint8)
    return frames
