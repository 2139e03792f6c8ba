"""RED-diff against its equations, written down again with NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
from linear_problem import FRAME, PLANE, make, relative

from padis_jax.solvers import red_diff
from padis_jax.solvers.sampling import Noise

GAUSSIAN, PROBLEM, _ = make()


def test_three_iterations_follow_the_equations():
    settings, g = red_diff.REDDiff(weight=0.3, learning_rate=0.05), GAUSSIAN
    mean = np.linspace(0, 1, 12)
    state, first, second = red_diff.begin(settings, jnp.asarray(mean.reshape(3, 4, 1), jnp.float32)), 0.0, 0.0
    for i, sigma in enumerate((0.5, 0.2, 0.1)):
        key = jax.random.key(i)
        z = np.asarray(jax.random.normal(jax.random.split(key)[1], PLANE), np.float64).ravel()
        residual = g.y - g.matrix @ mean
        state, fit = red_diff.step(settings, PROBLEM, jax.random.clone(key), state, Noise(jnp.float32(sigma), None))
        np.testing.assert_allclose(fit.residual, np.linalg.norm(residual) / np.linalg.norm(g.y), rtol=1e-4)
        denoised = g.crop @ (g.mean + g.wiener(sigma) @ (g.crop.T @ mean + sigma * z - g.mean))
        gradient = 0.3 * (mean - denoised) - g.matrix.T @ residual / g.norm**2
        first, second = 0.9 * first + 0.1 * gradient, 0.99 * second + 0.01 * gradient**2
        step = (first / (1 - 0.9 ** (i + 1))) / (np.sqrt(second / (1 - 0.99 ** (i + 1))) + 1e-8)
        mean = mean - 0.05 * step
        assert relative(np.asarray(red_diff.image(state)).ravel(), mean) < 1e-4
    assert red_diff.image(state).shape == (*FRAME.image_shape, 1)
