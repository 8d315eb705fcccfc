"""The CUDA kernels of multi-scale deformable attention, compiled for the host."""

import numpy as np
import pytest

from tests.visdeploy_plugins.support import (
    GRADIENTS,
    INPUTS,
    MSDA,
    backward,
    error,
    forward,
    golden,
    random_case,
    tolerances,
)
from visdeploy_plugins import OpError


def emulated_forward(emulation, case):
    output = np.empty(case["grad_output"].shape, case["value"].dtype)
    output.view(np.uint8).fill(0xFF)
    emulation("vd_ms_deform_attn_forward", [*(case[name] for name in INPUTS), output])
    return output


def emulated_backward(emulation, case):
    grads = {f"grad_{name}": np.full_like(case[name], np.nan) for name in (INPUTS[0], *INPUTS[3:])}
    tensors = [*(case[name] for name in INPUTS), case["grad_output"], *(grads[name] for name in GRADIENTS)]
    emulation("vd_ms_deform_attn_backward", tensors)
    return grads


@pytest.mark.parametrize("name", MSDA)
def test_forward_and_gradients_equal_golden(shared, emulation, name):
    case = golden(shared, name)
    assert error(emulated_forward(emulation, case), case["output"]) <= tolerances(shared)["output"]
    grads = emulated_backward(emulation, case)
    for each in GRADIENTS:
        assert error(grads[each], case[each]) <= tolerances(shared)["gradients"], each


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 8, 12, 16, 33])
@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
def test_every_width_equals_the_cpu_kernel(operators, emulation, dtype, channels):
    rng = np.random.default_rng(channels)
    case = random_case(rng, [(5, 7), (1, 3)], batch=2, heads=3, channels=channels, dtype=np.dtype(dtype))
    limit = {"float32": 1e-6, "float64": 1e-14, "float16": 1e-3}[dtype]
    assert error(emulated_forward(emulation, case), forward(case)) <= limit
    if dtype != "float16":
        seen, expected = emulated_backward(emulation, case), backward(case)
        assert all(error(seen[each], expected[each]) <= 10 * limit for each in GRADIENTS)


def test_unaligned_values_take_the_scalar_kernel(operators, emulation):
    case = random_case(np.random.default_rng(31), [(4, 4)], channels=16)
    shifted = np.empty(case["value"].size + 1, np.float32)[1:].reshape(case["value"].shape)
    shifted[:] = case["value"]
    assert shifted.ctypes.data % 16
    assert error(emulated_forward(emulation, {**case, "value": shifted}), forward(case)) <= 1e-6


@pytest.mark.parametrize("hostile", [np.nan, np.inf, -np.inf, 1e4, -1e4, 1e30, 2.0**31])
def test_hostile_locations_contribute_nothing(emulation, hostile):
    case = random_case(np.random.default_rng(32), [(3, 4), (1, 1)], channels=8, points=3, spread=0.4)
    clean = {name: each.copy() for name, each in case.items()}
    clean["attention_weights"][:, :, :, :, 1] = 0
    case["sampling_locations"][:, :, :, :, 1, 0] = hostile
    assert np.array_equal(emulated_forward(emulation, case), emulated_forward(emulation, clean))
    grads = emulated_backward(emulation, case)
    assert np.isfinite(grads["grad_value"]).all()
    assert not grads["grad_sampling_locations"][:, :, :, :, 1].any()


def test_bad_tensors_are_named(emulation):
    case = random_case(np.random.default_rng(33), [(3, 4)])
    case["attention_weights"] = case["attention_weights"][..., :1].copy()
    with pytest.raises(OpError, match=r"ms_deform_attn: tensor attention_weights has the wrong shape"):
        emulated_forward(emulation, case)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda shapes, starts: shapes.__setitem__((1, 1), 4),  # one token more than there are
        lambda shapes, starts: shapes.__setitem__((1, 0), 2**62),
        lambda shapes, starts: shapes.__setitem__((1, 0), -1),
        lambda shapes, starts: shapes.__setitem__((1, 1), 0),
        lambda shapes, starts: starts.__setitem__(1, 21),
        lambda shapes, starts: starts.__setitem__(1, -1),
        lambda shapes, starts: starts.__setitem__(1, 2**62),
    ],
)
def test_level_that_does_not_fit_contributes_nothing(operators, emulation, spoil):
    """No host code sees the index tensors on a device: the kernel itself must stay within value."""
    case = random_case(np.random.default_rng(32), [(4, 5), (2, 3)], channels=8, queries=9)
    clean = {**case, "attention_weights": case["attention_weights"] * np.float32([1, 0])[:, None]}
    expected = forward(clean)
    spoil(case["spatial_shapes"], case["level_start_index"])
    assert error(emulated_forward(emulation, case), expected) <= 1e-6
    grads = emulated_backward(emulation, case)
    assert not any(grads[each][:, :, :, 1].any() for each in GRADIENTS[1:])
    assert not grads["grad_value"][:, 20:].any()


@pytest.mark.parametrize("points", [1, 8, 61])
@pytest.mark.parametrize("channels", [2, 32, 2064])
def test_every_division_of_a_block(operators, emulation, channels, points):
    """Rows of one thread to several blocks' worth of threads, points that need one chunk to many."""
    rng = np.random.default_rng(points)
    case = random_case(rng, [(3, 4), (2, 2), (1, 1)], batch=2, channels=channels, points=points, queries=67)
    assert error(emulated_forward(emulation, case), forward(case)) <= 2e-6
