"""Images from the prior alone: for a Gaussian prior their mean and covariance follow a recursion."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from linear_problem import PLANE, make

from padis_jax.solvers.generate import generate

GAUSSIAN, _, PRIOR = make()


def test_images_are_distributed_as_the_recursion_says():
    levels, runs, eps = 120, 6000, 0.8
    sigmas = np.geomspace(3.0, 0.01, levels)
    n = len(GAUSSIAN.mean)
    mean, covariance = np.zeros(n), 9.0 * np.eye(n)
    for sigma in sigmas:
        wiener = GAUSSIAN.wiener(sigma)
        f = (1 - eps / 2) * np.eye(n) + eps / 2 * wiener
        noise = eps * sigma**2 if sigma > sigmas[-1] else 0.0
        mean = f @ mean + eps / 2 * (np.eye(n) - wiener) @ GAUSSIAN.mean
        covariance = f @ covariance @ f.T + noise * np.eye(n)
    k = GAUSSIAN.crop
    mean, covariance = k @ mean, k @ covariance @ k.T
    images = jax.vmap(lambda key: generate(key, PRIOR, levels=levels, sigma_max=3.0, sigma_min=0.01, eps=eps))(
        jax.random.split(jax.random.key(0), runs)
    )
    found = np.asarray(images, np.float64).reshape(runs, -1)
    assert np.sum((found.mean(0) - mean) ** 2) < 3 * np.trace(covariance) / runs
    spread = (np.trace(covariance) ** 2 + np.sum(covariance**2)) / runs
    assert np.sum((np.cov(found.T) - covariance) ** 2) < 2 * spread
    # What comes out is the prior, up to the finite number of steps.
    prior = k @ GAUSSIAN.covariance @ k.T
    assert np.linalg.norm(covariance - prior) < 0.25 * np.linalg.norm(prior)


@pytest.mark.parametrize("inner", [1, 2])
def test_the_last_level_moves_by_eps_over_two_and_adds_no_noise(inner):
    """One level: from sigma z straight towards D, as often as there are steps; a step reports the size of x - D."""
    key, sigma, eps, seen = jax.random.key(3), 2.0, 0.8, []
    x = np.asarray(sigma * jax.random.normal(jax.random.split(jax.random.clone(key))[0], PLANE), np.float64).ravel()
    options = {"levels": 1, "inner": inner, "sigma_max": sigma, "sigma_min": 0.5, "eps": eps}
    got = generate(key, PRIOR, **options, progress=lambda *c: seen.append(c[2].noise))
    for step in range(inner):
        away = (np.eye(len(x)) - GAUSSIAN.wiener(sigma)) @ (x - GAUSSIAN.mean)
        assert float(seen[step]) == pytest.approx(np.sqrt(np.mean(away**2)) / sigma, rel=1e-4)
        x = x - eps / 2 * away
    np.testing.assert_allclose(np.ravel(got), GAUSSIAN.crop @ x, atol=1e-5)


def test_progress_reports_the_noise_and_bad_settings_are_refused():
    seen = []
    image = generate(jax.random.key(1), PRIOR, levels=20, sigma_max=50.0, progress=lambda *c: seen.append(c))
    assert image.shape == (3, 4, 1) and bool(jnp.all(jnp.isfinite(image)))
    assert seen[-1][:2] == (20, 20) and 0.6 < float(seen[0][2].noise) < 1.5
    with pytest.raises(ValueError, match="eps is 4.0"):
        generate(jax.random.key(1), PRIOR, eps=4.0)
