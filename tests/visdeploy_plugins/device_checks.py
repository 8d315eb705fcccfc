"""Checks of a kernel on a device. GPU tests run them on CUDA, others on the emulation of the CUDA kernels."""

from pathlib import Path

import numpy as np
import torch

from tests.visdeploy_plugins.device_cases import WIDE, Op, Tensors
from tests.visdeploy_plugins.support import Arrays, golden, tolerances

HOSTILE = (np.nan, np.inf, -np.inf, 1e4, -1e4, 1e30, 2.0**31, -(2.0**63))


def random_case(op: Op, seed: int, **sizes: object) -> Arrays:
    """Return a case of the given sizes, or of the op's plain ones."""
    return op.make(np.random.default_rng(seed), **{**next(iter(op.shapes.values())), **sizes})


def worst(seen: torch.Tensor, expected: torch.Tensor) -> float:
    """Return the largest difference over the largest expected value, at least 1; NaN must be in the same places."""
    assert seen.shape == expected.shape
    assert seen.dtype == expected.dtype or expected.dtype == torch.float64
    if expected.numel() == 0:
        return 0.0
    seen, expected = seen.detach().cpu().double(), expected.detach().cpu().double()
    assert torch.equal(seen.isnan(), expected.isnan())
    difference = torch.where(seen == expected, 0.0, seen - expected).nan_to_num(nan=0.0).abs().max()
    return float(difference / max(1.0, float(expected.nan_to_num(nan=0.0).abs().max())))


def outcome(op: Op, case: Arrays, tensors: Tensors) -> Tensors:
    """Return the output, and the gradients for the case's own gradient of the output."""
    output = op.run(tensors, case)
    found = {"output": output}
    wanted = [name for name in op.differentiable if name in tensors and tensors[name].requires_grad]
    if wanted:
        grad = torch.from_numpy(case[op.grad]).to(output)
        grads = torch.autograd.grad(output, [tensors[name] for name in wanted], grad, allow_unused=True)
        found |= {f"grad_{name}": each for name, each in zip(wanted, grads, strict=True) if each is not None}
    return found


def reference(op: Op, case: Arrays, tensors: Tensors) -> Tensors:
    """Return the outcome of the CPU kernels."""
    assert all(each.device.type == "cpu" for each in tensors.values())
    return outcome(op, case, tensors)


def check_golden(op: Op, name: str, shared: Path, device: torch.device) -> None:
    """Check that float32 on the stored inputs gives the stored output and gradients."""
    case, limits = golden(shared, name), tolerances(shared)
    found = outcome(op, case, op.tensors(case, torch.float32, device, grad=True))
    assert worst(found["output"], torch.from_numpy(case[op.output])) <= limits["output"]
    for each in set(found) - {"output"}:
        assert worst(found[each], torch.from_numpy(case[each])) <= limits["gradients"], each


def check_against_float64(op: Op, case: Arrays, dtype: torch.dtype, device: torch.device) -> None:
    """Output and gradients differ from float64 on the CPU by one rounding of the result and float32's own error."""
    tensors = op.tensors(case, dtype, device, grad=True)
    exact_inputs = {
        name: (each.detach().cpu().double() if each.is_floating_point() else each.cpu()).requires_grad_(
            each.requires_grad
        )
        for name, each in tensors.items()
    }
    rounded = case | {op.grad: torch.from_numpy(case[op.grad]).to(dtype).double().numpy()}
    found, exact = outcome(op, rounded, tensors), reference(op, rounded, exact_inputs)
    rounding = torch.finfo(dtype).eps if dtype not in WIDE else 0.0
    own = 1e-12 if dtype == torch.float64 else 2e-5
    for name, expected in exact.items():
        limit = rounding + own * (1 if name == "output" else 10)
        assert worst(found[name], expected) <= limit, name


def check_against_cpu(op: Op, case: Arrays, dtype: torch.dtype, device: torch.device) -> None:
    """Output, and gradients that do not jump, agree with the CPU kernels of the same dtype on cases of any size."""
    found = outcome(op, case, op.tensors(case, dtype, device, grad=True))
    expected = reference(op, case, op.tensors(case, dtype, "cpu", grad=True))
    rounding = torch.finfo(dtype).eps if dtype not in WIDE else 0.0
    for name, each in expected.items():
        if name.removeprefix("grad_") not in op.kinked:
            assert worst(found[name], each) <= 2 * rounding + (1e-10 if dtype == torch.float64 else 1e-4), name


def check_hostile_points(op: Op, hostile: float, dtype: torch.dtype, device: torch.device) -> None:
    """Points that are not numbers or far away leave output and gradients finite, and those of the CPU kernels."""
    case = random_case(op, 61)
    flat = case[op.points].reshape(-1)
    flat[:: 2 if len(flat) < 20 else 7] = np.clip(hostile, -3e38, 3e38) if np.isfinite(hostile) else hostile
    found = outcome(op, case, op.tensors(case, dtype, device, grad=True))
    expected = reference(op, case, op.tensors(case, dtype, "cpu", grad=True))
    rounding = torch.finfo(dtype).eps if dtype not in WIDE else 0.0
    for name, each in expected.items():
        assert torch.isfinite(found[name]).all(), name
        assert worst(found[name], each) <= 2 * rounding + 1e-5, name


def check_unaligned(op: Op, dtype: torch.dtype, device: torch.device) -> None:
    """Check that tensors that are not aligned give the results of aligned ones."""
    for sizes in op.shapes.values():
        case = random_case(op, 62, **sizes)
        aligned = op.tensors(case, dtype, device)
        shifted = {name: shift(each) for name, each in aligned.items()}
        # Sums of other widths are contracted otherwise: a few roundings of float32, or one of a half.
        limit = torch.finfo(dtype).eps * (16 if dtype in WIDE else 1)
        assert worst(op.run(shifted, case), op.run(aligned, case)) <= limit


def shift(tensor: torch.Tensor) -> torch.Tensor:
    """Return the same values in memory that is aligned for one element and no more."""
    memory = torch.empty(tensor.numel() + 1, dtype=tensor.dtype, device=tensor.device)[1:]
    return memory.view(tensor.shape).copy_(tensor)
