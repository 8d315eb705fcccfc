"""Time of the steps of a method in PyTorch, torch.compile, and ONNX Runtime without and with our operators.

All are measured in the same run, on one window of a clip method or on consecutive frames of an online method. PyTorch
runs the network without kernels of visdeploy: `grid_sample` in the attention, the deformable convolution and RoI align
(one call per level) of torchvision, and dense convolutions behind gates. `end_to_end.py` prints the measurements.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from op_suite.attention import sampling_flops
from op_suite.roofline import Work, measure_machine
from op_suite.timing import time_on_cpu
from torch import Tensor, nn
from torchvision.ops import deform_conv2d

import visdeploy
import visdeploy_plugins
from visdeploy.backends import Backend, open_backend
from visdeploy.streaming.pipeline import Pipeline
from visdeploy.streaming.windows import Step
from visdeploy_plugins.torch_ops import ms_deform_attn_fused, ms_deform_attn_fused_reference
from visdeploy_plugins.torch_ops.multi_level_roi_align_reference import roi_levels
from visdeploy_training import layers
from visdeploy_training.methods.defvis import encoder
from visdeploy_training.methods.tevit import network
from visdeploy_training.methods.tpr import blending, gates
from visdeploy_training.torch_backend import TorchBackend

Run = Callable[[], list[np.ndarray]]
EAGER, COMPILED, STOCK, OURS = (
    "PyTorch eager, no kernel of ours",
    "torch.compile, no kernel of ours",
    "ONNX Runtime, standard operators",
    "ONNX Runtime, our ops",
)


@dataclass
class Seconds:
    """Minimum time of a window on one side: wall-clock time, and processor time summed over all threads."""

    wall: float = float("inf")
    cpu: float = float("inf")


def _torchvision(
    x: Tensor,
    offset: Tensor,
    weight: Tensor,
    mask: Tensor | None = None,
    bias: Tensor | None = None,
    **options: Any,
) -> Tensor:
    kept = {name: options[name] for name in ("stride", "padding", "dilation")}
    output: Tensor = deform_conv2d(x, offset, weight, bias, mask=mask, **kept)
    return output


def _dense(x: Tensor, mask: Tensor, weight: Tensor, bias: Tensor | None = None, **options: Any) -> Tensor:
    return torch.where((mask > 0)[:, None], torch.nn.functional.conv2d(x, weight, bias, **options), 0.0)


def _per_level(
    maps: Sequence[Tensor],
    rois: Tensor,
    images: Tensor,
    *,
    output_size: tuple[int, int],
    spatial_scales: Sequence[float],
    sampling_ratio: int,
    finest_scale: float = 56.0,
) -> Tensor:
    """Compute RoI align with one call per level for the boxes of that level, and restore the order of the boxes."""
    levels, boxes = roi_levels(rois, len(maps), finest_scale), torch.cat([images[:, None].to(rois.dtype), rois], 1)
    output = maps[0].new_zeros((len(rois), maps[0].shape[1], *output_size))
    for level, (each, scale) in enumerate(zip(maps, spatial_scales, strict=True)):
        chosen = (levels == level).nonzero()[:, 0]
        output[chosen] = torch.ops.torchvision.roi_align(each, boxes[chosen], scale, *output_size, sampling_ratio, True)
    return output


@contextmanager
def plain_pytorch(seen: list[tuple[Tensor, ...]]) -> Iterator[None]:
    """Run networks without our kernels; append the inputs of the first deformable attention, if any, to `seen`."""

    def attention(*inputs: Tensor) -> Tensor:
        if not seen and not torch.compiler.is_compiling():
            seen.append(inputs)
        return ms_deform_attn_fused_reference(*inputs)

    with (
        patch.object(encoder, "ms_deform_attn_fused", attention),
        patch.object(layers, "deform_conv", _torchvision),
        patch.object(network, "multi_level_roi_align", _per_level),
        patch.object(blending, "multi_level_roi_align", _per_level),
        patch.object(gates, "masked_conv", _dense),
    ):
        yield


def _run(pipeline: Pipeline, steps: Sequence[Step]) -> Run:
    """Return a function that runs steps of a stream from its start, and returns all outputs of the last one."""

    def run() -> list[np.ndarray]:
        state, outputs = None, dict[str, np.ndarray]()
        for step in steps:
            outputs, state = pipeline.run(step, state, proof=True)
        return list(outputs.values())

    return run


def _error(found: np.ndarray, expected: np.ndarray) -> float:
    if found.shape != expected.shape:
        return float("inf")
    return float(np.abs(found.astype(np.float64) - expected).max(initial=0.0))


def time_sides(
    bundle: visdeploy.Bundle, module: nn.Module, steps: Sequence[Step], *, threads: int, rounds: int, compiled: bool
) -> tuple[dict[str, Seconds], dict[str, float], tuple[Tensor, ...] | None]:
    """Run the same steps on every side, in turns.

    Args:
        bundle: The exported network.
        module: Step module of the same network in PyTorch.
        steps: Consecutive steps of a stream, from its start.
        threads: Number of threads of ONNX Runtime.
        rounds: Number of timed runs of every side.
        compiled: Also run `torch.compile`.

    Returns:
        The minimum time of each side for all steps, its largest difference from PyTorch in an output of the last step
        (infinite if the number of detections differs), and the inputs of the first deformable attention, if there is
        any.
    """
    seen: list[tuple[Tensor, ...]] = []
    spec = bundle.manifest
    with plain_pytorch(seen):
        engines: dict[str, Backend] = {EAGER: TorchBackend(module, spec)}
        if compiled:
            engines[COMPILED] = TorchBackend(torch.compile(module), spec)
        with patch.object(visdeploy_plugins, "onnxruntime_library", lambda: None):
            engines[STOCK] = open_backend(bundle, device="cpu", threads=threads)
        engines[OURS] = open_backend(bundle, device="cpu", threads=threads)
        sides = {name: _run(Pipeline(spec, engine), steps) for name, engine in engines.items()}
        # one untimed run, for compilation and for the memory that engines allocate (a third of the time of a first run)
        expected = {name: run() for name, run in sides.items()}[EAGER]
        times, errors = {name: Seconds() for name in sides}, dict.fromkeys(sides, 0.0)
        for _ in range(rounds):
            for name, run in sides.items():
                cpu, wall = time.process_time(), time.perf_counter()
                found = run()
                best = times[name]
                best.wall = min(best.wall, time.perf_counter() - wall)
                best.cpu = min(best.cpu, time.process_time() - cpu)
                errors[name] = max(_error(a, b) for a, b in zip(found, expected, strict=True))
    return times, errors, seen[0] if seen else None


def time_attention(inputs: tuple[Tensor, ...], layer_count: int, *, threads: int) -> dict[str, Any]:
    """Time our attention kernel on the inputs of one layer, with the roofline measured in the same run."""
    value, logits = inputs[0], inputs[5]
    with torch.inference_mode():
        seconds = [time_on_cpu(lambda: ms_deform_attn_fused(*inputs)) for _ in range(3)]
        output = ms_deform_attn_fused(*inputs)
    # in addition to the sampling: about 4 operations per term of the softmax and 2 per coordinate
    work = Work(
        bytes=sum(each.numel() * each.element_size() for each in (*inputs, output)),
        flops=sampling_flops(logits, value) + 8 * logits.numel(),
    )
    machine = measure_machine(time_on_cpu, "cpu", torch.float32, threads)
    index = 1 if machine.clock == "cpu" else 0
    best = 1e3 * min(each[index] for each in seconds)
    return {
        "layers": layer_count,
        "samples": logits.numel(),
        "channels": value.shape[3],
        "megabytes": work.bytes / 1e6,
        "gflop": work.flops / 1e9,
        "ms": best,
        "roof_ms": machine.roof_ms(work),
        "bound": machine.bound(work),
        "share_of_roof": machine.roof_ms(work) / best,
        "machine": f"{machine.gb_s:.1f} GB/s, {machine.gflop_s:.1f} GFLOP/s ({machine.how})",
    }
