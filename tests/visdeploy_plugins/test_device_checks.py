"""The checks of the GPU tests, through PyTorch's operators, on the CUDA kernels as the host compiler compiled them."""

import pytest
import torch

from tests.visdeploy_plugins import device_checks
from tests.visdeploy_plugins.device_cases import DTYPES, OPS
from visdeploy_plugins import native

HOST = torch.device("cpu")


@pytest.fixture(params=OPS)
def op(request, operators, emulation, monkeypatch):
    """Return an op whose kernels are the emulated ones, save where a check asks for the CPU's as its measure."""
    cpu_call, outcome = native.call, device_checks.outcome

    def emulated_call(function, tensors, *, params=None, threads=1):
        cpu_call(function, tensors, params=params, stream=0, library=emulation.library)

    def reference(*arguments):
        with monkeypatch.context() as patch:
            patch.setattr(native, "call", cpu_call)
            return outcome(*arguments)

    monkeypatch.setattr(native, "call", emulated_call)
    monkeypatch.setattr(device_checks, "reference", reference)
    return OPS[request.param]


def test_goldens(op, shared):
    for name in op.goldens:
        device_checks.check_golden(op, name, shared, HOST)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_every_shape_against_float64(op, dtype):
    for seed, sizes in enumerate(op.shapes.values()):
        device_checks.check_against_float64(op, device_checks.random_case(op, seed, **sizes), dtype, HOST)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
@pytest.mark.parametrize("hostile", device_checks.HOSTILE)
def test_hostile_points(op, hostile, dtype):
    device_checks.check_hostile_points(op, hostile, dtype, HOST)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
def test_unaligned(op, dtype):
    device_checks.check_unaligned(op, dtype, HOST)
