"""Preconditioning: limits, the formula with a stub in place of the network, positions, and shapes that do not fit."""

import dataclasses

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import NETWORK, random_params

from padis_jax import denoiser
from padis_jax.denoiser import denoise_patches
from padis_jax.unet import NetworkConfig

RNG = np.random.default_rng(0)
PATCHES = jnp.asarray(RNG.standard_normal((3, 4, 4, 1)), jnp.float32)
POSITIONS = jnp.asarray(RNG.uniform(-1, 1, (3, 4, 4, 2)), jnp.float32)
SIGMA = jnp.asarray((0.01, 0.5, 20.0))
denoise = jax.jit(denoise_patches, static_argnums=0)


def test_preconditioning_is_the_formula(monkeypatch):
    seen = {}

    def stub(config, params, x, label, *, dropout_key):
        seen.update(x=x, label=label, dropout_key=dropout_key)
        return jnp.full(x[..., :1].shape, 3.0)

    monkeypatch.setattr(denoiser, "apply_network", stub)
    out = denoise_patches(NETWORK, {}, PATCHES, POSITIONS, SIGMA)
    s, d = np.asarray(SIGMA, np.float64)[:, None, None, None], NETWORK.sigma_data
    expected = d**2 / (s**2 + d**2) * PATCHES + s * d / np.sqrt(s**2 + d**2) * 3.0
    chex.assert_trees_all_close(out, expected.astype(np.float32), rtol=1e-5, atol=1e-6)
    inputs = np.concatenate([PATCHES / np.sqrt(s**2 + d**2), POSITIONS], -1)  # positions are neither noised nor scaled
    chex.assert_trees_all_close((seen["x"], seen["label"]), (inputs, np.log(np.asarray(SIGMA)) / 4), rtol=1e-5)
    assert seen["dropout_key"] is None


def test_limits_of_sigma():
    params = random_params()
    at = lambda sigma: denoise(NETWORK, params, PATCHES, POSITIONS, jnp.full(3, sigma))  # noqa: E731
    np.testing.assert_allclose(at(1e-6), PATCHES, atol=1e-4)
    assert float(jnp.abs(at(0.3) - PATCHES).max()) > 0.05
    # At high noise the patch itself is forgotten: what is left is c_out F, of the size of the data.
    assert float(jnp.abs(at(1e4)).max()) < 100 * NETWORK.sigma_data


def test_every_patch_has_its_own_sigma():
    params = random_params()
    together = denoise(NETWORK, params, PATCHES, POSITIONS, SIGMA)
    alone = [denoise(NETWORK, params, PATCHES, POSITIONS, jnp.full(3, sigma))[i] for i, sigma in enumerate(SIGMA)]
    chex.assert_trees_all_close(list(together), alone, rtol=1e-4, atol=1e-5)


def test_positions_count_only_if_the_network_has_channels_for_them():
    """The gradient by the positions vanishes exactly for a network without position channels."""
    for channels in (2, 0):
        config = dataclasses.replace(NETWORK, position_channels=channels)
        params = random_params(config)
        by_positions = jax.jit(jax.grad(lambda p, c=config, w=params: denoise_patches(c, w, PATCHES, p, SIGMA).sum()))
        gradient = np.abs(by_positions(POSITIONS)).max((0, 1, 2))
        assert np.all(gradient > 1e-4) if channels else not gradient.any()


@pytest.mark.parametrize(
    "patches, positions, sigma, message",
    [
        ((3, 4, 4), (3, 4, 4, 2), (3,), r"must be \[b, p, p, c\], got \(3, 4, 4\)"),
        ((3, 4, 4, 3), (3, 4, 4, 2), (3,), "3 channels, but the network was made for 1"),
        ((3, 4, 4, 1), (3, 4, 5, 2), (3,), r"positions \(3, 4, 4, 2\).*got \(3, 4, 5, 2\)"),
        ((3, 4, 4, 1), (3, 4, 4, 1), (3,), r"positions \(3, 4, 4, 2\)"),
        ((3, 4, 4, 1), (3, 4, 4, 2), (1,), r"sigma \(3,\).*\(1,\)"),
        ((3, 4, 4, 1), (3, 4, 4, 2), (), r"sigma \(3,\)"),
        ((3, 6, 4, 1), (3, 6, 4, 2), (3,), "patch of 6 pixels"),
        ((3, 4, 6, 1), (3, 4, 6, 2), (3,), "patch of 6 pixels"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(patches, positions, sigma, message):
    config = NetworkConfig(model_channels=8, channel_mult=(1, 1, 1), num_blocks=1)
    with pytest.raises(ValueError, match=message):
        denoise_patches(config, {}, jnp.zeros(patches), jnp.zeros(positions), jnp.ones(sigma))
