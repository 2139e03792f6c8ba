"""Noise of volumes in parts: bit for bit what one draw gives, in the memory of a part."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from padis_jax.solvers import draws


@pytest.mark.parametrize("shape", [(2, 3, 5), (16, 4, 4), (33, 5, 7), (20, 1, 3)])
def test_the_numbers_are_those_of_one_draw(shape):
    key = jax.random.key(3)
    np.testing.assert_array_equal(draws.normal(key, shape), jax.random.normal(key, shape))


def test_every_slice_is_mixed_once():
    """33 slices in parts of 3 fit; 35 do not, so that the last part begins within the one before."""
    key, (volume, other) = jax.random.key(1), np.random.default_rng(0).random((2, 35, 4, 5), np.float32)
    found = jax.jit(lambda *given: draws.mixed(lambda a, b, z: 2 * a + b * z, key, *given))(volume, other)
    expected = 2 * volume + other * np.asarray(jax.random.normal(key, volume.shape))
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)


def test_memory_is_that_of_a_part():
    shape = (64, 48, 48)

    def planned(draw):
        found = jax.jit(draw).lower(jax.random.key(0)).compile().memory_analysis().temp_size_in_bytes
        return found / (4 * np.prod(shape))

    assert planned(lambda key: draws.normal(key, shape)) < 0.5
    if jax.default_backend() == "cpu":
        assert planned(lambda key: jax.random.normal(key, shape)) > 2  # else this module is not needed


def test_other_generators_draw_at_once():
    volume = jnp.zeros((4, 3, 3))
    assert draws.in_parts(jax.random.key(0), volume)
    assert not draws.in_parts(jax.random.key(0, impl="rbg"), volume)
    assert not draws.in_parts(jax.random.key(0), volume[:1])
    assert not draws.in_parts(jax.random.key(0), volume.astype(jnp.float16))
