"""Device of PyTorch's operators: the same for all tensors; kernels run only if they can be loaded."""

import contextlib

import numpy as np
import pytest
import torch

from tests.visdeploy_plugins.support import INPUTS, random_case
from visdeploy_plugins import OpError, native
from visdeploy_plugins.torch_ops import binding

CUDA = torch.device("cuda", 0)


@pytest.fixture
def cuda_library(operators, monkeypatch):
    """The real library asked about device 0, without PyTorch's own way there, which needs a driver."""
    monkeypatch.setattr(torch.cuda, "device", lambda _: contextlib.nullcontext())
    binding._why_no_cuda_kernel.cache_clear()
    yield native.load()[0]
    binding._why_no_cuda_kernel.cache_clear()


def test_tensors_on_two_devices_are_named(operators):
    tensors = [torch.from_numpy(random_case(np.random.default_rng(51), [(2, 3)])[name]) for name in INPUTS]
    tensors[3] = tensors[3].to("meta")
    with pytest.raises(OpError, match=r"_forward: tensor 3 is elsewhere \(seen: meta; expected: cpu\)"):
        binding.call("vd_ms_deform_attn_forward", [*tensors, None])


def test_other_devices_have_no_kernel(operators):
    assert binding.why_no_kernel(torch.device("cpu")) == ""
    assert binding.why_no_kernel(torch.device("meta")) == "no kernel is bound to this device"


def test_cuda_without_a_driver_says_why(cuda_library):
    if torch.cuda.is_available():
        pytest.skip("there is a CUDA device: the GPU tests show that the kernels run there")
    expected = "no use of CUDA device 0" if cuda_library.vd_cuda_architectures() else "built without nvcc"
    assert expected in binding.why_no_kernel(CUDA)


def test_device_is_asked_once_and_its_answer_decides(monkeypatch, cuda_library):
    asked = []
    monkeypatch.setattr(native, "set_cuda_device", lambda device: asked.append(device) or "kernels do not load")
    assert [binding.why_no_kernel(CUDA) for _ in range(3)] == ["kernels do not load"] * 3
    assert asked == [0]


def test_emulation_has_one_device(emulation):
    assert emulation.library.vd_cuda_set_device(0) == 0
    assert emulation.library.vd_cuda_set_device(1) == 1
    assert b"expected: 0, the emulated one" in emulation.library.vd_last_error()
