"""Ten thousand random cases and the mean of some: errors are those of sums in float32, rounded once to the dtype."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.visdeploy_plugins.ms_deform_attn_support import exact_sums
from tests.visdeploy_plugins.rounding import assert_rounded, assert_typical, round_to
from tests.visdeploy_plugins.support import INPUTS, forward, random_case

pytestmark = pytest.mark.isa

EXAMPLES, CASES_PER_EXAMPLE = 100, 100


def emulated(emulation, case):
    output = np.full(case["grad_output"].shape, np.nan, case["value"].dtype)
    emulation("vd_ms_deform_attn_forward", [*(case[name] for name in INPUTS), output])
    return output


@pytest.mark.slow
@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    seed=st.integers(0, 2**32 - 1),
    levels=st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9)), min_size=1, max_size=4),
    heads=st.integers(1, 3),
    channels=st.sampled_from([1, 3, 4, 8, 19, 32, 40]),
    queries=st.sampled_from([1, 2, 5, 60]),
    points=st.integers(1, 5),
    spread=st.sampled_from([0.5, 0.7, 1.5]),
    dtype=st.sampled_from(["float32", "float32", "float16"]),
)
def test_random_cases_are_rounded_sums(operators, emulation, seed, levels, spread, dtype, **sizes):
    """A sample of the batch is a case: its values, locations and weights are its own."""
    rng = np.random.default_rng(seed)
    case = random_case(rng, levels, batch=CASES_PER_EXAMPLE, spread=spread, **sizes)
    case = {name: each.astype(dtype) if each.dtype == np.float32 else each for name, each in case.items()}
    sums = exact_sums(case)
    assert_rounded(forward(case), sums)
    assert_rounded(emulated(emulation, case), sums)


def exact_coordinates(seed):
    """Draw levels and locations in powers of two, so that neither coordinates nor distances are rounded."""
    case = random_case(np.random.default_rng(seed), [(16, 8), (4, 8), (2, 2)], channels=5, queries=4, points=4)
    return case | {"sampling_locations": np.round(256 * case["sampling_locations"]) / np.float32(256)}


@pytest.mark.parametrize("kernels", ["cpu", "emulated cuda"])
def test_mean_error_is_that_of_rounded_sums(operators, emulation, kernels):
    cases = [exact_coordinates(seed) for seed in range(200)]
    run = forward if kernels == "cpu" else lambda case: emulated(emulation, case)
    assert_typical([(run(case), exact_sums(case)) for case in cases])


@pytest.mark.parametrize("bits", [8, 11])
@pytest.mark.parametrize("name", ["value", *INPUTS[3:]])
def test_inputs_of_fewer_bits_are_found(operators, name, bits):
    case = random_case(np.random.default_rng(0), [(5, 6), (3, 3)])
    with pytest.raises(AssertionError, match="beyond the limit"):
        assert_rounded(forward(case | {name: round_to(case[name], bits)}), exact_sums(case))


def test_inputs_of_twenty_bits_are_found_in_the_mean(operators):
    cases = [exact_coordinates(seed) for seed in range(200)]
    pairs = [(forward(case | {"value": round_to(case["value"], 20)}), exact_sums(case)) for case in cases]
    with pytest.raises(AssertionError, match="root mean square"):
        assert_typical(pairs)
