"""Bounds of rounding errors that follow from the arithmetic, whatever the processor and the order of its sums.

An output is a sum of terms. However it is added up, with fused multiply-adds or without, each term goes through at most
n roundings, each of which multiplies it by 1 + d with |d| <= u, half the distance from 1 to the next number.
"""

from dataclasses import dataclass
from math import expm1, sqrt

import numpy as np

UNITS = {"bfloat16": 2.0**-8, "float16": 2.0**-11, "float32": 2.0**-24, "float64": 2.0**-53}
CONFIDENCE = 8.0


@dataclass(frozen=True)
class Sums:
    """Outputs in float64, and what bounds the rounding of the same in the precision that an operator adds in.

    Attributes:
        exact: The outputs.
        terms: Sums of the absolute values of the terms, of the outputs' shape.
        roundings: The most roundings that a term goes through.
        squares: Sums of the squares of the terms, for `assert_typical`.
        moved: By how much a coordinate's rounding may change an output, in units u of the coordinate's precision.
    """

    exact: np.ndarray
    terms: np.ndarray
    roundings: int
    squares: np.ndarray | None = None
    moved: np.ndarray | float = 0.0


def relative_error(roundings: int, unit: float) -> float:
    """Return the maximum relative error of a term after a number of roundings.

    The smaller of two bounds: gamma_n = n u / (1 - n u), which always holds, and the probabilistic one of Higham and
    Mary (A New Approach to Probabilistic Rounding Error Analysis, 2019, Theorem 2.4), which for c = `CONFIDENCE` fails
    with a probability of at most 2 exp(-c^2 (1 - u)^2 / 2) = 3e-14 a term: exp(c sqrt(n) u + n u^2 / (1 - u)) - 1.
    """
    always = roundings * unit / (1 - roundings * unit)
    likely = expm1(CONFIDENCE * sqrt(roundings) * unit + roundings * unit**2 / (1 - unit))
    return min(always, likely)


def assert_rounded(seen: np.ndarray, sums: Sums, *, dtype: str = "") -> None:
    """Check that the error of each output is within the bound that follows from the roundings of its terms.

    Terms are added up in float32 (in float64 where `seen` is), then rounded once to the type of `seen`.

    Args:
        seen: The outputs.
        sums: The exact ones.
        dtype: The type that `seen` was rounded to, where NumPy has none of that name.
    """
    assert seen.shape == sums.exact.shape
    dtype = dtype or seen.dtype.name
    unit = UNITS["float64" if dtype == "float64" else "float32"]
    limit = relative_error(sums.roundings, unit) * sums.terms + unit * sums.moved
    if dtype == "float64":
        limit = 2 * limit  # what it is compared with has the same roundings
    elif dtype != "float32":
        limit = limit + UNITS[dtype] * (np.abs(sums.exact) + limit) + 2.0**-25  # half of float16's smallest number
    difference = np.abs(seen.astype(np.float64) - sums.exact)
    beyond = ~(difference <= limit)
    assert not beyond.any(), f"{beyond.sum()} of {seen.size} beyond the limit; {difference[beyond].max()}"


def assert_typical(pairs: list[tuple[np.ndarray, Sums]]) -> None:
    """Check that the root mean square error of float32 outputs is at most that of independent roundings.

    A rounding is uniform within u of a partial sum, and the mean square of a sum of terms with random signs is the sum
    of their squares: each of a term's n roundings adds u^2 / 3 times its square or less. Correct sums stay near half of
    the limit, since terms go through n / 2 roundings in the mean, which are smaller than u by another quarter.

    Args:
        pairs: Outputs and the exact ones, some thousand numbers together, of coordinates that need no rounding.
    """
    errors = [seen.astype(np.float64) - sums.exact for seen, sums in pairs]
    variances = [sums.roundings / 3 * sums.squares for _, sums in pairs]
    limit = UNITS["float32"] * sqrt(np.concatenate([each.ravel() for each in variances]).mean())
    seen = sqrt(np.square(np.concatenate([each.ravel() for each in errors])).mean())
    assert seen <= limit, f"root mean square error {seen:.3e}, limit {limit:.3e}"


def round_to(array: np.ndarray, bits: int) -> np.ndarray:
    """Return the array with significands of so many bits: 8 are bfloat16's, 11 those of float16 and TF32."""
    significand, exponent = np.frexp(array)
    return np.ldexp(np.round(np.ldexp(significand, bits)), exponent - bits).astype(array.dtype)
