"""DDS: the CG step minimises what its docstring says, and noise is kept as it says."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from linear_problem import FRAME, PLANE, make, relative

from padis_jax.solvers import dds
from padis_jax.solvers.dds import DDS
from padis_jax.solvers.sampling import Noise

GAUSSIAN, PROBLEM, _ = make()
X = 0.5 + 0.7 * jax.random.normal(jax.random.key(6), PLANE)
NOISE = Noise(jnp.float32(0.7), jnp.float32(0.0))
STEP = jax.jit(dds.step)


def same_key():
    return jax.random.key(4)  # a new one each time: these tests draw the same again on purpose


def denoised():
    return PROBLEM.denoise(same_key(), X, NOISE.sigma)


@pytest.mark.parametrize("settings", [DDS(cg_steps=24, consistency=0.05), DDS(cg_steps=24, noise=3.0, kappa=0.5)])
def test_image_minimises_the_weighted_least_squares(settings):
    d = np.asarray(FRAME.crop(denoised()), np.float64).ravel()
    a, y = GAUSSIAN.matrix, GAUSSIAN.y
    weight = settings.consistency * GAUSSIAN.norm**2 + (settings.noise / (settings.kappa * 0.7)) ** 2
    expected = np.linalg.solve(a.T @ a + weight * np.eye(len(d)), a.T @ y + weight * d)
    x, info = STEP(settings, PROBLEM, same_key(), X, NOISE)
    assert relative(FRAME.crop(x).ravel(), expected) < 1e-5
    assert float(info.residual) == pytest.approx(np.linalg.norm(y - a @ d) / np.linalg.norm(y), rel=1e-5)


def test_few_cg_steps_start_from_the_denoised_image():
    """One CG step is one step of steepest descent from D with exact line search."""
    d = np.asarray(FRAME.crop(denoised()), np.float64).ravel()
    a, weight = GAUSSIAN.matrix, 2e-3 * GAUSSIAN.norm**2
    normal = a.T @ a + weight * np.eye(len(d))
    r = a.T @ (GAUSSIAN.y - a @ d)
    x, _ = STEP(DDS(cg_steps=1), PROBLEM, same_key(), X, NOISE)
    assert relative(FRAME.crop(x).ravel(), d + (r @ r) / (r @ normal @ r) * r) < 1e-5


def test_eta_mixes_old_and_fresh_noise():
    """With eta 0 the noise is the one that was there; with eta 1 it is all new; its level is sigma_next."""
    noise = NOISE._replace(sigma_next=jnp.float32(0.5))
    clean = STEP(DDS(), PROBLEM, same_key(), X, NOISE)[0]
    old = (X - denoised()) / NOISE.sigma
    fresh = jax.random.normal(jax.random.split(same_key())[1], PLANE)
    for eta in (0.0, 0.6, 1.0):
        got = STEP(DDS(eta=eta), PROBLEM, same_key(), X, noise)[0] - clean
        np.testing.assert_allclose(got, 0.5 * (np.sqrt(1 - eta**2) * old + eta * fresh), atol=2e-6)


def test_after_the_last_level_the_margin_is_zero():
    x, _ = STEP(DDS(), PROBLEM, same_key(), X, NOISE)
    np.testing.assert_array_equal(x, FRAME.pad(FRAME.crop(x)))


def test_nonnegative_clips():
    low = dataclasses.replace(PROBLEM, measurement=-PROBLEM.measurement)
    free, clipped = (STEP(DDS(nonnegative=flag), low, same_key(), X, NOISE)[0] for flag in (False, True))
    assert float(free.min()) < 0
    np.testing.assert_array_equal(clipped, jnp.maximum(free, 0))


def test_a_perfect_fit_is_left_alone():
    exact = dataclasses.replace(PROBLEM, measurement=PROBLEM.forward(FRAME.crop(denoised())))
    x, info = STEP(DDS(), exact, same_key(), X, NOISE)
    np.testing.assert_allclose(FRAME.crop(x), FRAME.crop(denoised()), atol=1e-5)
    silent = dataclasses.replace(PROBLEM, measurement=jnp.zeros_like(PROBLEM.measurement))
    zero = dataclasses.replace(silent, denoise=jax.tree_util.Partial(lambda key, x, sigma: 0 * x))
    x, info = STEP(DDS(), zero, same_key(), X, NOISE)
    np.testing.assert_array_equal(x, 0)
    assert float(info.residual) == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"consistency": -1.0}, "consistency is -1"),
        ({"cg_steps": 0}, "cg_steps is 0"),
        ({"eta": 1.5}, "eta is 1.5"),
        ({"noise": -0.1}, "noise is -0.1"),
        ({"kappa": 0.0}, "kappa is 0"),
    ],
)
def test_settings_out_of_range_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        DDS(**change)
