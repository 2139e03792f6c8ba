"""Winograd's products of 3 x 3 convolutions: values, gradient in the kernel and rounding, against direct ones."""

from fractions import Fraction

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from scipy import signal

from padis_jax import winograd
from padis_jax.convolution import conv_same

SIZES = [(3, 8, 8), (2, 5, 7), (1, 1, 1), (4, 9, 4), (5, 3, 14)]
USUAL = tuple(map(Fraction, (0, 1, -1, 2, -2)))


def _direct(x, kernel):
    return lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))


def _arrays(size, c_in=6, c_out=3):
    rng = np.random.default_rng(0)
    shapes = (*size, c_in), (3, 3, c_in, c_out), (*size, c_out)
    return [jnp.asarray(rng.standard_normal(shape), jnp.float32) for shape in shapes]


@pytest.mark.parametrize("size", SIZES)
def test_values_and_gradient_in_the_kernel(size):
    x, kernel, dy = _arrays(size)
    chex.assert_trees_all_close(jax.jit(winograd.convolve)(x, kernel), _direct(x, kernel), atol=2e-5)
    (expected,) = jax.vjp(lambda k: _direct(x, k), kernel)[1](dy)
    chex.assert_trees_all_close(jax.jit(winograd.kernel_gradient)(x, dy), expected, atol=1e-4)


@pytest.mark.parametrize("cores", [1, 64])
def test_images_in_chunks(cores, monkeypatch):
    """Chunks of 1 and of 3 images of 6, the last row of tiles half empty."""
    monkeypatch.setattr(winograd.os, "cpu_count", lambda: cores)
    monkeypatch.setattr(winograd, "_TILES_PER_CORE", 0.5)
    x, kernel, dy = _arrays((6, 10, 9))
    assert winograd._chunk(x.shape) == (1 if cores == 1 else 3)
    chex.assert_trees_all_close(winograd.convolve(x, kernel), _direct(x, kernel), atol=2e-5)
    (expected,) = jax.vjp(lambda k: _direct(x, k), kernel)[1](dy)
    chex.assert_trees_all_close(winograd.kernel_gradient(x, dy), expected, atol=1e-4)


def test_under_vmap():
    x, kernel, dy = (jnp.stack([a, 2 * a]) for a in _arrays((2, 5, 7)))
    values = jax.jit(jax.vmap(winograd.convolve))(x, kernel)
    chex.assert_trees_all_close(values, jax.vmap(_direct)(x, kernel), atol=1e-4)
    gradients = jax.jit(jax.vmap(winograd.kernel_gradient))(x, dy)
    expected = jax.vmap(lambda x, dy: jax.vjp(lambda k: _direct(x, k), jnp.zeros((3, 3, 6, 3)))[1](dy)[0])(x, dy)
    chex.assert_trees_all_close(gradients, expected, atol=5e-4)


@pytest.mark.parametrize("value", [np.inf, np.nan])
def test_an_image_that_is_not_finite_spoils_no_other(value):
    x, kernel, _ = _arrays((3, 8, 8))
    found = jax.jit(winograd.convolve)(x.at[0].set(value), kernel)
    assert not jnp.isfinite(found[0]).all()
    chex.assert_trees_all_close(found[1:], _direct(x, kernel)[1:], atol=2e-5)


def test_the_matrices_convolve_exactly():
    """A^T [(G k) * (B^T d)] in one dimension, in float64."""
    rng = np.random.default_rng(0)
    d, k = rng.standard_normal(6), rng.standard_normal(3)
    for points in (winograd.POINTS, USUAL):
        b, g, a = map(np.array, winograd.matrices(points))
        np.testing.assert_allclose(a @ ((g @ k) * (b @ d)), signal.correlate(d, k, "valid"), rtol=1e-12)


def test_rounding(monkeypatch):
    """Reciprocal points: at most twice the error of a direct convolution, and half of that of the usual points."""
    x, kernel, _ = _arrays((2, 28, 28), 64, 64)
    with jax.enable_x64(True):
        exact = np.asarray(_direct(jnp.asarray(x, jnp.float64), jnp.asarray(kernel, jnp.float64)))

    def error(convolution):
        return np.linalg.norm(np.asarray(convolution(x, kernel)) - exact) / np.linalg.norm(exact)

    ours, direct = error(winograd.convolve), error(_direct)
    matrices = winograd.matrices(USUAL)
    monkeypatch.setattr(winograd, "matrices", lambda: matrices)
    usual = error(winograd.convolve)
    print(f"relative errors: direct {direct:.1e}, reciprocal points {ours:.1e}, usual points {usual:.1e}")
    assert ours < 1e-6
    assert ours < 0.6 * usual


@pytest.mark.parametrize(
    ("size", "kernel", "dtype", "suits"),
    [
        ((1, 28, 28), (3, 3, 64, 64), jnp.float32, True),
        ((1, 28, 28), (3, 3, 64, 32), jnp.float32, False),  # little work
        ((1, 512, 512), (3, 3, 3, 128), jnp.float32, False),  # few channels
        ((1, 28, 28), (1, 1, 512, 512), jnp.float32, False),
        ((0, 28, 28), (3, 3, 64, 64), jnp.float32, False),
        ((1, 28, 28), (3, 3, 64, 64), jnp.bfloat16, False),
    ],
)
def test_where_it_pays(size, kernel, dtype, suits):
    x, kernel = jnp.zeros((*size, kernel[2]), dtype), jnp.zeros(kernel, dtype)
    assert winograd.suits(x, kernel) is suits


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="other devices keep their own convolutions")
def test_large_convolutions_of_the_network_take_it():
    """Forward pass and both gradients: no convolution is left, and the values are the direct ones."""
    x, kernel, dy = _arrays((2, 28, 28), 64, 64)

    def value_and_gradients(conv):
        def f(x, kernel, dy):
            value, vjp = jax.vjp(conv, x, kernel)
            return value, vjp(dy)

        return jax.jit(f).lower(x, kernel, dy).compile()

    ours, direct = value_and_gradients(conv_same), value_and_gradients(_direct)
    assert "convolution(" in direct.as_text()
    assert "convolution(" not in ours.as_text()
    for a, b in zip(jax.tree.leaves(ours(x, kernel, dy)), jax.tree.leaves(direct(x, kernel, dy)), strict=True):
        assert jnp.linalg.norm((a - b).ravel()) < 2e-6 * jnp.linalg.norm(b.ravel())
