"""CUDA kernels through PyTorch's operators: right numbers in every dtype, at every size, wherever points lie."""

import pytest
import torch

from tests.visdeploy_plugins import device_checks
from tests.visdeploy_plugins.device_cases import DTYPES, OPS

pytestmark = pytest.mark.gpu
ALL_OPS = pytest.mark.parametrize("op", OPS.values(), ids=OPS)
ALL_DTYPES = pytest.mark.parametrize("dtype", DTYPES, ids=str)


@pytest.mark.parametrize(
    ("op", "golden"),
    [pytest.param(op, golden, id=golden) for op in OPS.values() for golden in op.goldens],
)
def test_goldens(op, golden, shared, device):
    device_checks.check_golden(op, golden, shared, device)


@ALL_DTYPES
@pytest.mark.parametrize(
    ("op", "sizes"),
    [pytest.param(op, op.shapes[what], id=f"{name}, {what}") for name, op in OPS.items() for what in op.shapes],
)
def test_every_shape_against_float64(op, sizes, dtype, device):
    device_checks.check_against_float64(op, device_checks.random_case(op, 71, **sizes), dtype, device)


@ALL_OPS
@ALL_DTYPES
def test_full_size_against_the_cpu_kernels(op, dtype, device):
    device_checks.check_against_cpu(op, device_checks.random_case(op, 72, **op.full), dtype, device)


@ALL_OPS
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("hostile", device_checks.HOSTILE)
def test_hostile_points(op, hostile, dtype, device):
    device_checks.check_hostile_points(op, hostile, dtype, device)


@ALL_OPS
@ALL_DTYPES
def test_unaligned(op, dtype, device):
    device_checks.check_unaligned(op, dtype, device)


@ALL_OPS
def test_same_bits_each_time(op, device):
    """Forward sums have one order; a race would show as a difference between runs."""
    case = device_checks.random_case(op, 73, **op.full)
    tensors = op.tensors(case, torch.float16, device)
    first = op.run(tensors, case)
    assert all(torch.equal(first, op.run(tensors, case)) for _ in range(5))
