"""Plug-and-play with a linear denoiser ends at the fixed point that its docstring gives in closed form."""

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


@pytest.mark.parametrize("method", ["admm", "red"])
def test_the_fixed_point(method):
    settings = PlugAndPlay(method=method, sigma=0.6, weight=0.05, cg_steps=16)
    wiener = K @ GAUSSIAN.wiener(0.6) @ K.T
    pull = np.linalg.inv(wiener) - np.eye(12) if method == "admm" else np.eye(12) - wiener
    a, mean, rho = GAUSSIAN.matrix, K @ GAUSSIAN.mean, 0.05 * GAUSSIAN.norm**2
    expected = mean + np.linalg.solve(a.T @ a + rho * pull, a.T @ (GAUSSIAN.y - a @ mean))
    result = reconstruct(jax.random.key(0), *ARGUMENTS, solver=settings, levels=300)
    assert relative(result.image.ravel(), expected) < 1e-3
    misfit = np.linalg.norm(GAUSSIAN.y - a @ expected) / np.linalg.norm(GAUSSIAN.y)
    assert float(result.residual[-1]) == pytest.approx(misfit, rel=2e-2)
    assert result.residual.shape == (300,) and result.evaluations == 300


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
    [({"method": "pgd"}, "use one of admm, red"), ({"sigma": 0.0}, "sigma is 0.0"), ({"weight": -1.0}, "weight is -1")],
)
def test_settings_out_of_range_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        PlugAndPlay(**change)
