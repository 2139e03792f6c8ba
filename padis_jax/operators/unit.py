"""Lengths of arrays in any unit: float32 holds the squares of numbers between 1e-19 and 1e19 only.

A' y is ||A||^2 times an image, and conjugate gradients take its square and its product with A'A A' y: with pixels in
nanometres, or in metres, they would be infinite or 0. So what is squared is multiplied by a power of two first, which
changes no digit.
"""

from __future__ import annotations

import jax.numpy as jnp
from jax import Array, lax


def power_of_two(array: Array) -> Array:
    """2^k, real [], such that the largest entry of 2^k times the array is from 1/2 to 1; 1 where all are 0.

    It has no derivative. Its inverse is exact, too.
    """
    largest = jnp.max(jnp.abs(lax.stop_gradient(array)))
    most = jnp.finfo(largest.dtype).maxexp - 8
    exponent = jnp.clip(jnp.frexp(largest)[1], -most, most)
    return jnp.ldexp(jnp.ones_like(largest), -exponent)


def length(array: Array) -> Array:
    """||a||, real []."""
    scale = power_of_two(array)
    return jnp.linalg.norm((scale.astype(array.dtype) * array).ravel()) / scale
