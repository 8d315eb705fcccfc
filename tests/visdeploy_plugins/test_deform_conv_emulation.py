"""The CUDA kernels of deformable convolution, compiled for the host."""

import numpy as np
import pytest
import torch

from tests.visdeploy_plugins.deform_conv_support import DCN, SHAPES, backward, forward, keywords, params, random_case
from tests.visdeploy_plugins.support import error, golden, tolerances
from visdeploy_plugins import OpError, native
from visdeploy_plugins.torch_ops import binding, deform_conv


@pytest.mark.parametrize("name", DCN)
def test_golden(shared, emulation, name):
    case = golden(shared, name)
    assert error(forward(case, emulation=emulation), case["output"]) <= tolerances(shared)["output"]
    for each, grad in backward(case, emulation=emulation).items():
        assert error(grad, case[each]) <= tolerances(shared)["gradients"], each


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("dtype", "limit"), [("float32", 3e-6), ("float64", 1e-13), ("float16", 2e-3)])
def test_every_shape_equals_the_cpu_kernel(operators, emulation, shape, dtype, limit):
    case = random_case(np.random.default_rng(41), **SHAPES[shape], dtype=np.dtype(dtype))
    assert error(forward(case, emulation=emulation), forward(case)) <= limit
    if dtype != "float16":
        expected = backward(case)
        for name, grad in backward(case, emulation=emulation).items():
            assert error(grad, expected[name]) <= 2 * limit, name


def test_bfloat16_equals_the_cpu_kernel(operators, emulation):
    case = random_case(np.random.default_rng(42), channels=18, outputs=40)
    names = ("input", "offset", "weight", "mask", "bias")
    inputs = [torch.from_numpy(case[name]).bfloat16() for name in names]
    expected = deform_conv(*inputs, **keywords(case))
    output = torch.full_like(expected, torch.nan)
    views = [binding.view(each) for each in (*inputs, output)]
    native.call("vd_deform_conv_forward", views, params=params(case), stream=0, library=emulation.library)
    torch.testing.assert_close(output, expected, rtol=8e-3, atol=1e-3)


@pytest.mark.parametrize("hostile", [np.nan, np.inf, -np.inf, 1e4, -1e4, 1e30, 2.0**31])
def test_hostile_offsets_contribute_nothing(emulation, hostile):
    case = random_case(np.random.default_rng(43), channels=9, size=(4, 5))
    clean = {name: each.copy() for name, each in case.items()}
    clean["mask"][:, 4] = 0
    case["offset"][:, 9] = hostile
    assert np.array_equal(forward(case, emulation=emulation), forward(clean, emulation=emulation))
    grads = backward(case, emulation=emulation)
    assert all(np.isfinite(each).all() for each in grads.values())
    assert not grads["grad_offset"][:, 8:10].any()
    assert not grads["grad_mask"][:, 4].any()


def test_empty_batch(emulation):
    case = random_case(np.random.default_rng(44), batch=0)
    assert forward(case, emulation=emulation).shape == (0, 4, 5, 6)
    assert not any(each.any() for each in backward(case, emulation=emulation).values())


def test_bad_calls_are_named(emulation):
    case = random_case(np.random.default_rng(45)) | {"groups": np.array(3)}
    for call in (forward, backward):
        with pytest.raises(OpError, match=r"deform_conv: parameter groups \(seen: 3"):
            call(case, emulation=emulation)
