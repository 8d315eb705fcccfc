"""Ten thousand random cases: no worse than twice the error of plain PyTorch in the same dtype."""

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.visdeploy_plugins.support import INPUTS, forward, random_case
from visdeploy_plugins.torch_ops import ms_deform_attn_reference

EXAMPLES, CASES_PER_EXAMPLE = 100, 100


def emulated(emulation, case):
    output = np.full(case["grad_output"].shape, np.nan, case["value"].dtype)
    emulation("vd_ms_deform_attn_forward", [*(case[name] for name in INPUTS), output])
    return output


def error_of(output, exact):
    return float(np.sqrt(np.square(output.astype(np.float64) - exact).mean()))


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
def test_error_is_at_most_twice_that_of_plain_pytorch(operators, emulation, seed, levels, spread, dtype, **sizes):
    """A sample of the batch is a case: its values, locations and weights are its own."""
    rng = np.random.default_rng(seed)
    case = random_case(rng, levels, batch=CASES_PER_EXAMPLE, spread=spread, **sizes)
    case = {name: each.astype(dtype) if each.dtype == np.float32 else each for name, each in case.items()}
    inputs = [torch.from_numpy(case[name]) for name in INPUTS]
    wide = [each.double() if each.is_floating_point() else each for each in inputs]
    exact = ms_deform_attn_reference(*wide).numpy()
    plain = ms_deform_attn_reference(*inputs).numpy()
    eps = np.finfo(dtype).eps
    largest = np.abs(case["value"].astype(np.float64)).max((1, 2, 3))
    terms = largest * np.abs(case["attention_weights"].astype(np.float64)).sum((3, 4)).max((1, 2))
    for output in (forward(case), emulated(emulation, case)):
        assert error_of(output, exact) <= 2 * error_of(plain, exact)
        for sample in range(CASES_PER_EXAMPLE):
            # Of a single number plain PyTorch may happen to be exact. A location's rounding, which moves its point by
            # so many pixels, and those of four products are no fault.
            roundings = eps / 2 * (4 + np.max(levels)) * terms[sample]
            assert error_of(output[sample], exact[sample]) <= 2 * error_of(plain[sample], exact[sample]) + roundings
