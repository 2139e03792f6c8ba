"""Plug-and-play with a linear denoiser: fixed points in closed form, and iterations on falling levels by hand."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from linear_problem import FRAME, make, relative

from padis_jax.solvers.plug_and_play import PlugAndPlay
from padis_jax.solvers.reconstruct import reconstruct

GAUSSIAN, PROBLEM, PRIOR = make()
K = GAUSSIAN.crop
ARGUMENTS = (PROBLEM.measurement, PROBLEM.operator, PRIOR)


@pytest.mark.parametrize("momentum", [0.0, 0.4])
@pytest.mark.parametrize(("method", "damping"), [("admm", 1.0), ("admm", 0.5), ("admm", 0.0), ("red", 1.0)])
def test_the_fixed_point(method, damping, momentum):
    settings = PlugAndPlay(method=method, sigma=0.6, weight=0.05, damping=damping, momentum=momentum, cg_steps=16)
    wiener = K @ GAUSSIAN.wiener(0.6) @ K.T
    pull = np.linalg.inv(wiener) - np.eye(12) if method == "admm" else np.eye(12) - wiener
    a, mean, rho = GAUSSIAN.matrix, K @ GAUSSIAN.mean, 0.05 * GAUSSIAN.norm**2
    apart = np.eye(12) + (1 - damping) * pull  # x of v
    expected = mean + np.linalg.solve(a.T @ a @ apart + rho * pull, a.T @ (GAUSSIAN.y - a @ mean))
    result = reconstruct(jax.random.key(0), *ARGUMENTS, solver=settings, levels=300)
    assert relative(result.image.ravel(), expected) < 1e-3
    misfit = np.linalg.norm(GAUSSIAN.y - a @ expected) / np.linalg.norm(GAUSSIAN.y)
    assert float(result.residual[-1]) == pytest.approx(misfit, rel=2e-2)
    assert result.residual.shape == (300,) and result.evaluations == 300


@pytest.mark.parametrize("momentum", [0.0, 0.6])
@pytest.mark.parametrize(("method", "damping"), [("admm", 0.7), ("red", 1.0)])
def test_iterations_on_falling_levels_are_the_equations(method, damping, momentum):
    settings = PlugAndPlay(method=method, weight=0.02, power=1.5, damping=damping, momentum=momentum, cg_steps=16)
    start, options = jnp.full((3, 4, 1), 0.4), {"levels": 3, "sigma_max": 0.8, "sigma_min": 0.2}
    got = reconstruct(0, *ARGUMENTS, solver=settings, start=start, **options)
    np.testing.assert_allclose(got.sigmas, [0.8, 0.4, 0.2], rtol=1e-6)
    a, mean = GAUSSIAN.matrix, K @ GAUSSIAN.mean
    x = v = last = np.full(12, 0.4)
    u = np.zeros(12)

    def denoised(z, sigma):
        return mean + K @ GAUSSIAN.wiener(sigma) @ K.T @ (z - mean)

    for sigma, following in ((0.8, 0.4), (0.4, 0.2), (0.2, 0.0)):
        rho = 0.02 * GAUSSIAN.norm**2 / sigma**1.5
        given = x + momentum * (x - last)
        target, last = (v - u, last) if method == "admm" else (denoised(given, sigma), x)
        x = np.linalg.solve(a.T @ a + rho * np.eye(12), a.T @ GAUSSIAN.y + rho * target)
        if method == "red":
            v = x
            continue
        given, scale = x + u + momentum * (x + u - last), (following / sigma) ** 1.5
        last = x + scale * u
        v = denoised(given, sigma)
        u = damping * scale * (given - v)
    assert relative(got.image.ravel(), v) < 1e-3


def test_momentum_comes_nearer_in_as_many_iterations():
    """To the fixed point, from afar, with a weight so large that plain iterations are slow."""
    settings = PlugAndPlay(sigma=0.6, weight=2.0, cg_steps=16)
    start, runs = jnp.full((3, 4, 1), 0.4), {}
    for momentum, levels in ((0.0, 20), (0.5, 20), (0.0, 1000)):
        chosen = dataclasses.replace(settings, momentum=momentum)
        runs[momentum, levels] = reconstruct(0, *ARGUMENTS, solver=chosen, levels=levels, start=start).image
    plain, fast = (float(jnp.linalg.norm(runs[m, 20] - runs[0.0, 1000])) for m in (0.0, 0.5))
    assert fast < 0.7 * plain


@pytest.mark.parametrize("method", ["admm", "red"])
@pytest.mark.parametrize("momentum", [0.0, 0.5])
@pytest.mark.parametrize("averaging", [0.6, 1.0])
def test_averaging_weighs_the_images_of_all_iterations(method, momentum, averaging):
    """Those of runs that end earlier; the iterations are the same."""
    settings = PlugAndPlay(method=method, sigma=0.6, weight=0.05, momentum=momentum, cg_steps=16)
    start = jnp.full((3, 4, 1), 0.4)

    def run(levels, averaging=0.0):
        chosen = dataclasses.replace(settings, averaging=averaging)
        return reconstruct(0, *ARGUMENTS, solver=chosen, levels=levels, start=start)

    each = np.stack([run(levels).image for levels in (1, 2, 3, 4)])
    weights = averaging ** np.arange(3, -1, -1)
    got = run(4, averaging)
    np.testing.assert_allclose(got.image, np.tensordot(weights / weights.sum(), each, 1), rtol=1e-5, atol=1e-6)
    assert relative(got.image, each[-1]) > 1e-3
    misfit = GAUSSIAN.y - GAUSSIAN.matrix @ np.asarray(got.image, np.float64).ravel()
    assert float(got.residual[-1]) == pytest.approx(np.linalg.norm(misfit) / np.linalg.norm(GAUSSIAN.y), rel=1e-4)


@pytest.mark.parametrize("method", ["admm", "red"])
def test_spectral_noise_has_the_covariance_of_its_equation(method):
    """Of W s sigma (1 - rho (A*A + rho)^-1) w, W the linear denoiser; with "red" after the data step."""
    settings = PlugAndPlay(method=method, sigma=0.6, weight=0.3, cg_steps=16)
    start = jnp.full((3, 4, 1), 0.4)

    def run(spectral, key):
        chosen = dataclasses.replace(settings, spectral=spectral)
        return reconstruct(key, *ARGUMENTS, solver=chosen, levels=1, start=start).image.ravel()

    keys = jax.random.split(jax.random.key(0), 4000)
    noise = np.asarray(jax.jit(jax.vmap(lambda key: run(0.7, key)))(keys)) - np.asarray(run(0.0, 1))
    a, rho = GAUSSIAN.matrix, 0.3 * GAUSSIAN.norm**2
    left = rho * np.linalg.inv(a.T @ a + rho * np.eye(12))
    through = K @ GAUSSIAN.wiener(0.6) @ K.T if method == "admm" else left @ K @ GAUSSIAN.wiener(0.6) @ K.T
    factor = 0.7 * 0.6 * through @ (np.eye(12) - left)
    assert relative(np.cov(noise.T), factor @ factor.T) < 0.08
    assert np.abs(np.mean(noise, 0)).max() < 0.05 * np.sqrt(np.trace(factor @ factor.T))


def test_a_level_of_the_settings_stays_and_zero_is_the_ladder():
    def run(sigma, sigma_max):
        settings = PlugAndPlay(sigma=sigma, weight=0.05, cg_steps=16)
        return reconstruct(0, *ARGUMENTS, solver=settings, levels=2, sigma_max=sigma_max, sigma_min=0.2)

    np.testing.assert_array_equal(run(0.6, 0.8).image, run(0.6, 0.5).image)
    np.testing.assert_array_equal(run(0.6, 0.8).sigmas, np.float32([0.6, 0.6]))
    assert relative(run(0.0, 0.8).image, run(0.0, 0.5).image) > 1e-3


def test_the_start_is_used_and_one_iteration_is_the_equations():
    start = jnp.full((3, 4, 1), 0.4)
    settings = PlugAndPlay(method="red", sigma=0.6, weight=0.05, cg_steps=16)
    got = reconstruct(jax.random.key(0), *ARGUMENTS, solver=settings, levels=1, start=start).image
    d = np.asarray(FRAME.crop(PRIOR.denoise(jax.random.key(0), FRAME.pad(start), jnp.float32(0.6))), np.float64).ravel()
    a, rho = GAUSSIAN.matrix, 0.05 * GAUSSIAN.norm**2
    expected = np.linalg.solve(a.T @ a + rho * np.eye(12), a.T @ GAUSSIAN.y + rho * d)
    assert relative(got.ravel(), expected) < 1e-3


def test_it_reports_the_residual_of_its_image_and_counts_every_tiling():
    twice = dataclasses.replace(PRIOR, tilings=2)
    settings = PlugAndPlay(sigma=0.6, weight=0.05, cg_steps=16)
    start = jnp.full((3, 4, 1), 0.4)
    got = reconstruct(jax.random.key(0), *ARGUMENTS[:2], twice, solver=settings, levels=2, start=start)
    misfit = GAUSSIAN.y - GAUSSIAN.matrix @ np.asarray(got.image, np.float64).ravel()
    assert float(got.residual[-1]) == pytest.approx(np.linalg.norm(misfit) / np.linalg.norm(GAUSSIAN.y), rel=1e-4)
    assert got.evaluations == 4


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"method": "pgd"}, "use one of admm, red"),
        ({"sigma": -0.1}, "sigma is -0.1"),
        ({"damping": 1.1}, "damping is 1.1"),
        ({"momentum": -0.1}, "momentum is -0.1"),
        ({"averaging": 1.5}, "averaging is 1.5"),
        ({"spectral": -0.5}, "spectral is -0.5"),
        ({"weight": -1.0}, "weight is -1"),
    ],
)
def test_settings_out_of_range_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        PlugAndPlay(**change)
