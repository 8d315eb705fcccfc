"""The bounds of rounding errors: sums in any order keep them, sums with a planted fault do not."""

import numpy as np
import pytest

from tests.visdeploy_plugins.rounding import UNITS, Sums, assert_rounded, assert_typical, relative_error, round_to

pytestmark = pytest.mark.isa

TERMS = (1, 2, 5, 27, 200)
MANY = 4000  # of which the largest sum is so much larger than the typical one that only the mean shows small faults


def products(count, seed=0):
    """Return the factors of 1000 sums, `[1000, count]` each."""
    return np.random.default_rng(seed).standard_normal((2, 1000, count)).astype(np.float32)


def exact_sums(factors):
    a, b = factors.astype(np.float64)
    return Sums((a * b).sum(1), np.abs(a * b).sum(1), a.shape[1], np.square(a * b).sum(1))


def in_a_row(terms):
    """Sum terms one after the other, and round each sum to the type of the terms."""
    return np.cumsum(terms, axis=1, dtype=terms.dtype)[:, -1]


ORDERS = {
    "in a row": lambda a, b: in_a_row(a * b),
    "backwards": lambda a, b: in_a_row((a * b)[:, ::-1]),
    "largest first": lambda a, b: in_a_row(-np.sort(-(a * b), axis=1)),
    "pairs": lambda a, b: (a * b).sum(1),
    "eight lanes": lambda a, b: in_a_row(np.stack([in_a_row((a * b)[:, k::8]) for k in range(min(8, a.shape[1]))], 1)),
    "products not rounded": lambda a, b: in_a_row((a.astype(np.float64) * b).astype(np.float64)).astype(np.float32),
}
FAULTS = {
    "bfloat16 inputs": lambda a, b: in_a_row(round_to(a, 8) * b),
    "TF32 inputs": lambda a, b: in_a_row(round_to(a, 11) * round_to(b, 11)),
    "float16 products": lambda a, b: in_a_row((a * b).astype(np.float16).astype(np.float32)),
    "float16 sums": lambda a, b: in_a_row((a * b).astype(np.float16)).astype(np.float32),
    "float16 result": lambda a, b: in_a_row(a * b).astype(np.float16).astype(np.float32),
    "a term left out": lambda a, b: in_a_row((a * b)[:, 1:]) if a.shape[1] > 1 else 0 * a[:, 0],
}


@pytest.mark.parametrize("count", [*TERMS, MANY])
@pytest.mark.parametrize("order", ORDERS)
def test_sums_in_any_order_are_within(order, count):
    factors = products(count)
    assert_rounded(ORDERS[order](*factors), exact_sums(factors))
    if order != "largest first":  # whose partial sums are large: their signs are not random
        assert_typical([(ORDERS[order](*factors), exact_sums(factors))])


@pytest.mark.parametrize("count", [*TERMS, MANY])
@pytest.mark.parametrize("fault", FAULTS)
def test_planted_faults_are_beyond(fault, count):
    factors = products(count)
    if count != MANY:
        with pytest.raises(AssertionError, match="beyond the limit"):
            assert_rounded(FAULTS[fault](*factors), exact_sums(factors))
    with pytest.raises(AssertionError, match="root mean square"):
        assert_typical([(FAULTS[fault](*factors), exact_sums(factors))])


def test_nan_and_wrong_shapes_are_beyond():
    sums = exact_sums(products(3))
    with pytest.raises(AssertionError, match="1000 of 1000 beyond"):
        assert_rounded(np.full(1000, np.nan, np.float32), sums)
    with pytest.raises(AssertionError):
        assert_rounded(np.zeros((1000, 1), np.float32), sums)


@pytest.mark.parametrize("count", TERMS)
def test_halves_are_rounded_once(count):
    factors = products(count)
    sums = exact_sums(factors)
    assert_rounded(sums.exact.astype(np.float16), sums)
    with pytest.raises(AssertionError, match="beyond the limit"):
        assert_rounded(round_to(sums.exact, 10).astype(np.float16), sums)


def test_few_roundings_have_the_bound_that_always_holds():
    unit = UNITS["float32"]
    assert relative_error(1, unit) == pytest.approx(unit)
    assert relative_error(50, unit) == pytest.approx(50 * unit, rel=1e-4)
    assert relative_error(10_000, unit) == pytest.approx(8 * 100 * unit, rel=1e-3)
