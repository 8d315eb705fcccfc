"""Densities and the loss of a flow."""

from __future__ import annotations

import math

from torch import Tensor

BINS = 32
"""Number of values of a quantised input in the loss, a constant in the published implementation."""


def gaussian_log_density(x: Tensor, mean: Tensor, log_std: Tensor) -> Tensor:
    """Return the logarithm of a normal density, elementwise; all of one shape."""
    return -0.5 * math.log(2 * math.pi) - log_std - 0.5 * (x - mean).square() / (2 * log_std).exp()


def bits_per_dim(log_p: Tensor, logdet: Tensor, values: int) -> Tensor:
    """Return the flow loss: the absolute value of the mean number of bits per value of an image.

    The absolute value is that of the published implementation; a number of bits below zero would be better than zero.

    Args:
        log_p: Log-density of the latent variables, `[N]`.
        logdet: Log-determinant, a scalar or `[N]`.
        values: Number of values of an image.
    """
    log_likelihood = logdet + log_p - math.log(BINS) * values
    return (-log_likelihood / (math.log(2) * values)).mean().abs()
