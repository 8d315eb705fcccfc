"""Cases and calls that the tests of multi-level RoI align share; without torch, which programs may start without."""

import json
from pathlib import Path

import numpy as np

from tests.visdeploy_plugins.support import Arrays, view
from visdeploy_plugins import native

SCALES = (1 / 4, 1 / 8, 1 / 16, 1 / 32)


def random_case(
    rng: np.random.Generator,
    *,
    rois: int = 12,
    batch: int = 2,
    channels: int = 3,
    image: tuple[int, int] = (96, 160),
    levels: int = 4,
    output: tuple[int, int] = (7, 7),
    ratio: int = 2,
    finest: float = 56.0,
    dtype: str = "float32",
) -> Arrays:
    """Return boxes of all levels, some of them partly or completely outside of the image or with swapped corners."""
    height, width = image
    scales = [1 / (4 << level) for level in range(levels)]
    sides = np.exp(rng.uniform(np.log(4), np.log(600), (rois, 2))) * rng.choice([1, 1, 1, -1], (rois, 2))
    centres = (rng.random((rois, 2)) * 1.4 - 0.2) * (width, height)
    boxes = np.concatenate([centres - sides / 2, centres + sides / 2], 1).astype(np.float32)
    case = {
        "rois": boxes.astype(np.float64 if dtype == "float64" else np.float32),
        "batch_indices": rng.integers(0, batch, rois) if batch else np.zeros(0, np.int64),
        "output_size": np.array(output),
        "ratio": np.array(ratio),
        "scales": np.array(scales, np.float32),
        "finest": np.array(finest, np.float32),
        "grad_output": rng.standard_normal((rois, channels, *output)).astype(dtype),
    }
    for level, scale in enumerate(scales):
        size = [max(1, round(side * scale)) for side in image]
        case[f"feature{level}"] = rng.standard_normal((batch, channels, *size)).astype(dtype)
    return case


def features(case: Arrays) -> list[np.ndarray]:
    return [case[f"feature{level}"] for level in range(len(case["scales"]))]


def params(case: Arrays) -> native.RoiAlignParams:
    made = native.RoiAlignParams(*map(int, case["output_size"]), int(case["ratio"]), len(case["scales"]))
    made.finest_scale = float(case["finest"])
    made.spatial_scales[: len(case["scales"])] = [float(scale) for scale in case["scales"]]
    return made


def eight(arrays: list[np.ndarray]) -> list[np.ndarray | None]:
    return [*arrays, *[None] * (8 - len(arrays))]


def forward(case: Arrays, *, threads: int = 1, emulation=None) -> np.ndarray:
    """Return the kernel through the C interface, or its CUDA twin on the host."""
    maps = features(case)
    output = np.empty((len(case["rois"]), maps[0].shape[1], *case["output_size"]), maps[0].dtype)
    output.view(np.uint8).fill(0xFF)  # NaN in every floating-point type
    _call("forward", case, [case["rois"], case["batch_indices"], *eight(maps), output], threads, emulation)
    return output


def backward(case: Arrays, *, threads: int = 1, emulation=None) -> list[np.ndarray]:
    grads = [np.full_like(each, np.nan) for each in features(case)]
    tensors = [case["rois"], case["batch_indices"], *eight(grads), case["grad_output"]]
    _call("backward", case, tensors, threads, emulation)
    return grads


def _call(direction, case, tensors, threads, emulation):
    function = f"vd_multi_level_roi_align_{direction}"
    if emulation:
        emulation(function, tensors, params=params(case))
    else:
        views = [None if each is None else view(each) for each in tensors]
        native.call(function, views, params=params(case), threads=threads)


def settings_of(case: Arrays) -> dict[str, object]:
    """Return the PyTorch operator's keyword arguments."""
    return {
        "output_size": [int(each) for each in case["output_size"]],
        "spatial_scales": [float(each) for each in case["scales"]],
        "sampling_ratio": int(case["ratio"]),
        "finest_scale": float(case["finest"]),
    }


def golden_cases(shared: Path) -> dict[int, Arrays]:
    """Return the unit case for 7x7 and 14x14 bins, on the cells and channels of its pyramid that are stored.

    The full pyramid is not; cells that are missing are NaN, so that bins which they reach come out as NaN.
    """
    folder = shared / "goldens" / "tevit"
    stored = json.loads((folder / "manifest.json").read_text())["arrays"]["msgshift_clip_a.npz"]
    cases = {}
    with np.load(folder / "msgshift_clip_a.npz") as arrays:
        for bins, step in ((7, 16), (14, 64)):
            rois = arrays["unit/rois"]
            case = {
                "rois": np.ascontiguousarray(rois[:, 1:]),
                "batch_indices": rois[:, 0].astype(np.int64),
                "output_size": np.array([bins, bins]),
                "ratio": np.array(2),
                "scales": np.array(SCALES, np.float32),
                "finest": np.array(56.0, np.float32),
                "levels": arrays["unit/roi_levels"],
                "expected": arrays[f"unit/roi_feat_{bins}"],
            }
            for level in range(4):
                entry = stored[f"neck/p{level + 2}"]
                full = np.full(entry["shape"], np.nan, np.float32)
                full[_slices(entry["slice"])] = arrays[f"neck/p{level + 2}"]
                case[f"feature{level}"] = np.ascontiguousarray(full[:, ::step])
            cases[bins] = case
    return cases


def _slices(text: str) -> tuple[slice, ...]:
    """Convert text such as `[:, ::5]` to slices."""
    parts = [each.strip().split(":") for each in text.strip("[]").split(",")]
    return tuple(slice(*(int(number) if number else None for number in part)) for part in parts)
