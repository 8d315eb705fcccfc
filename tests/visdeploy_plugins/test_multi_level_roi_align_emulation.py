"""The CUDA kernels of multi-level RoI align, compiled for the host."""

import numpy as np
import pytest

from tests.visdeploy_plugins.roi_align_support import backward, forward, golden_cases, random_case
from tests.visdeploy_plugins.support import error


@pytest.mark.parametrize("bins", [7, 14])
def test_forward_equals_golden(shared, emulation, bins):
    case = golden_cases(shared)[bins]
    output = forward(case, emulation=emulation)
    known = np.isfinite(output)
    assert known.mean() > 0.4
    assert error(output[known], case["expected"][known]) <= 1e-5


@pytest.mark.parametrize("channels", [1, 7, 8, 20])
@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
@pytest.mark.parametrize("ratio", [0, 2])
def test_every_width_equals_the_cpu_kernel(operators, emulation, dtype, channels, ratio):
    case = random_case(np.random.default_rng(channels), channels=channels, ratio=ratio, dtype=dtype, output=(4, 5))
    limit = {"float32": 1e-6, "float64": 1e-14, "float16": 1e-3}[dtype]
    assert error(forward(case, emulation=emulation), forward(case)) <= limit
    if dtype != "float16":
        for seen, expected in zip(backward(case, emulation=emulation), backward(case), strict=True):
            assert error(seen, expected) <= 10 * limit


@pytest.mark.parametrize("index", [-1, 2, 2**62, -(2**63)])
def test_box_of_no_image_is_zero_and_reads_nothing(emulation, index):
    case = random_case(np.random.default_rng(41), rois=4)
    clean = forward(case, emulation=emulation)
    case["batch_indices"][1] = index
    output = forward(case, emulation=emulation)
    assert not output[1].any()
    others = [0, 2, 3]
    assert np.array_equal(output[others], clean[others])
    case["grad_output"][others] = 0
    assert not any(each.any() for each in backward(case, emulation=emulation))


@pytest.mark.parametrize("hostile", [np.nan, np.inf, -np.inf, 1e9, 3e38])
@pytest.mark.parametrize("ratio", [0, 2])
def test_hostile_boxes_give_what_they_give_on_the_cpu(operators, emulation, hostile, ratio):
    case = random_case(np.random.default_rng(42), rois=5, ratio=ratio, output=(2, 3), channels=1)
    case["rois"][1:4] = [[hostile, 0, 9, 9], [0, 0, hostile, 9], [-hostile, -hostile, hostile, hostile]]
    output = forward(case, emulation=emulation)
    assert np.isfinite(output).all()
    assert error(output, forward(case)) <= 1e-6


@pytest.mark.parametrize("sizes", [{"rois": 0}, {"rois": 0, "batch": 0}, {"image": (1, 1)}], ids=str)
def test_smallest_cases(operators, emulation, sizes):
    case = random_case(np.random.default_rng(43), **sizes)
    assert error(forward(case, emulation=emulation), forward(case)) <= 1e-6
    for seen, expected in zip(backward(case, emulation=emulation), backward(case), strict=True):
        assert error(seen, expected) <= 1e-5
