"""Noise levels and the loss: the training draw, the weight that flattens an untrained network's loss, the ladders."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from padis_jax import denoiser, loss
from padis_jax.errors import UserError
from padis_jax.loss import denoising_loss
from padis_jax.noise import NoiseConfig, draw_sigma, edm_ladder, geometric_ladder, loss_weight
from padis_jax.unet import NetworkConfig

NETWORK = NetworkConfig(model_channels=8, channel_mult=(1,), num_blocks=1, sigma_data=0.3)


def test_the_draw_is_log_normal_and_clipped():
    sigma = draw_sigma(jax.random.key(0), NoiseConfig(-2.0, 1.5, 1e-8, 1e8), 20_000)
    assert sigma.shape == (20_000,) and sigma.dtype == jnp.float32
    log = np.log(np.asarray(sigma, np.float64))
    assert abs(log.mean() + 2.0) < 4 * 1.5 / np.sqrt(20_000)
    assert abs(log.std() - 1.5) < 4 * 1.5 / np.sqrt(40_000)
    clipped = draw_sigma(jax.random.key(0), NoiseConfig(-2.0, 1.5, 0.05, 0.5), 20_000)
    np.testing.assert_allclose(clipped, np.clip(sigma, 0.05, 0.5), rtol=1e-6)
    assert (clipped == np.float32(0.05)).any() and (clipped == np.float32(0.5)).any()


@pytest.fixture
def silent_network(monkeypatch):
    """A network whose raw output is 0, as a new one's is up to 1e-5."""
    monkeypatch.setattr(denoiser, "apply_network", lambda config, params, x, label, **_: jnp.zeros_like(x[..., :1]))


def _mean_loss(sigma, *, size, count, patches=None):
    patches = patches if patches is not None else 0.3 * jax.random.normal(jax.random.key(1), (count, size, size, 1))
    noise = NoiseConfig(float(np.log(sigma)), 1e-6, sigma / 2, 2 * sigma)
    positions = jnp.zeros((count, size, size, 2))
    return float(denoising_loss(jax.random.key(2), NETWORK, noise, {}, patches, positions))


def test_the_weighted_loss_of_an_untrained_network_is_flat_in_sigma(silent_network):
    """On data of deviation sigma_data, D = c_skip x leaves an error of variance 1/weight: the loss is 1."""
    for sigma in (0.003, 0.3, 30.0):
        assert abs(_mean_loss(sigma, size=8, count=200) - 1) < 0.05


def test_the_loss_is_a_mean_over_pixels(silent_network):
    """The same for small and large patches, so that none dominates; and of the size that arithmetic gives."""
    assert abs(_mean_loss(0.3, size=4, count=800) - _mean_loss(0.3, size=8, count=200)) < 0.05
    # A constant image: D - x = (c_skip - 1) x + c_skip sigma z.
    s, sigma, value = 0.3, 0.5, 0.7
    skip = s**2 / (s**2 + sigma**2)
    expected = ((1 - skip) ** 2 * value**2 + (skip * sigma) ** 2) * (s**2 + sigma**2) / (s * sigma) ** 2
    measured = _mean_loss(sigma, size=8, count=200, patches=jnp.full((200, 8, 8, 1), value))
    assert abs(measured / expected - 1) < 0.05


def test_every_patch_has_its_own_noise_and_level(monkeypatch):
    seen = {}

    def spy(config, params, patches, positions, sigma, *, dropout_key):
        seen.update(patches=patches, sigma=sigma, dropout_key=dropout_key)
        return patches

    monkeypatch.setattr(loss, "denoise_patches", spy)
    patches, positions = jnp.zeros((4, 2, 2, 1)), jnp.zeros((4, 2, 2, 2))
    denoising_loss(jax.random.key(0), NETWORK, NoiseConfig(), {}, patches, positions)
    assert len(np.unique(seen["sigma"])) == 4 and len(np.unique(seen["patches"])) == 16
    assert seen["dropout_key"] is not None
    first = seen["sigma"]
    denoising_loss(jax.random.key(0), NETWORK, NoiseConfig(), {}, patches, positions, train=False)
    assert seen["dropout_key"] is None
    np.testing.assert_array_equal(seen["sigma"], first)  # validation sees the same noise, without dropout


def test_the_weight_is_edms():
    np.testing.assert_allclose(loss_weight(jnp.asarray((0.5, 2.0)), 0.5), (8.0, 4.25), rtol=1e-6)


def test_the_geometric_ladder():
    ladder = geometric_ladder(7, 10.0, 0.003)
    assert ladder.dtype == np.float32 and len(ladder) == 7
    np.testing.assert_allclose(ladder[[0, -1]], (10.0, 0.003), rtol=1e-6)
    np.testing.assert_allclose(ladder[1:] / ladder[:-1], (0.003 / 10.0) ** (1 / 6), rtol=1e-5)


def test_the_edm_ladder():
    ladder = edm_ladder(9, 10.0, 0.003)
    assert ladder.dtype == np.float32 and np.all(np.diff(ladder) < 0)
    np.testing.assert_allclose(ladder[[0, -1]], (10.0, 0.003), rtol=1e-5)
    np.testing.assert_allclose(
        np.diff(ladder.astype(np.float64) ** (1 / 7), 2), 0, atol=1e-6
    )  # linear in sigma^(1/rho)


def test_rho_goes_from_even_steps_to_a_constant_ratio():
    np.testing.assert_allclose(np.diff(edm_ladder(5, 1.0, 0.2, rho=1.0), 2), 0, atol=1e-6)
    np.testing.assert_allclose(edm_ladder(5, 1.0, 0.2, rho=1e4), geometric_ladder(5, 1.0, 0.2), rtol=1e-3)
    np.testing.assert_array_equal(edm_ladder(5, 1.0, 0.2, rho=7.0), edm_ladder(5, 1.0, 0.2))
    with pytest.raises(UserError, match=r"rho is 0.5: it must be at least 1"):
        edm_ladder(5, 1.0, 0.2, rho=0.5)


@pytest.mark.parametrize("ladder", [geometric_ladder, edm_ladder])
def test_a_ladder_of_one_level_is_its_top(ladder):
    np.testing.assert_array_equal(ladder(1, 2.0, 0.5), np.float32([2.0]))


@pytest.mark.parametrize("ladder", [geometric_ladder, edm_ladder])
@pytest.mark.parametrize(
    "arguments, message",
    [
        ((0, 1.0, 0.1), "levels is 0"),
        ((5, 0.1, 1.0), "0 < sigma_min <= sigma_max"),
        ((5, 1.0, 0.0), "0 < sigma_min <= sigma_max"),
        ((5, float("inf"), 0.1), "0 < sigma_min <= sigma_max"),
        ((5, float("nan"), 0.1), "0 < sigma_min <= sigma_max"),
    ],
)
def test_impossible_ladders_are_refused(ladder, arguments, message):
    with pytest.raises(ValueError, match=message):
        ladder(*arguments)


def test_impossible_settings_are_refused():
    with pytest.raises(ValueError, match="log_std"):
        NoiseConfig(log_std=0.0)
    with pytest.raises(ValueError, match="noise.log_mean is nan"):
        NoiseConfig(log_mean=float("nan"))
    with pytest.raises(ValueError, match="0 < sigma_min < sigma_max"):
        NoiseConfig(sigma_min=1.0, sigma_max=0.5)
