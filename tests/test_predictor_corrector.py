"""Predictor-corrector: every line of its equations in float64, both correctors, the last level."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from linear_problem import PLANE, make, relative

from padis_jax.solvers import predictor_corrector
from padis_jax.solvers.predictor_corrector import PredictorCorrector
from padis_jax.solvers.sampling import Noise

GAUSSIAN, PROBLEM, _ = make()
X = np.asarray(0.5 + 0.7 * jax.random.normal(jax.random.key(6), PLANE), np.float64).ravel()
STEP = jax.jit(predictor_corrector.step)


def same_key():
    return jax.random.key(4)  # a new one each time: these tests draw the same again on purpose


def score(x, sigma):
    g = GAUSSIAN
    return (g.mean + g.wiener(sigma) @ (x - g.mean) - x) / sigma**2


def data(x, level=1.0, noise=0.0, zeta=0.6, form="squared"):
    """The table in solvers/langevin.py."""
    g = GAUSSIAN
    matrix = g.matrix @ g.crop
    r = g.y - matrix @ x
    length = np.linalg.norm(r)
    squared = 1 / (g.norm**2 + (noise / level) ** 2)
    scale = {"squared": squared, "norm": 1 / (g.norm * length), "paper": 1 / length}[form]
    return x + zeta * scale * matrix.T @ r


def normals():
    keys = jax.random.split(same_key(), 4)
    return [np.asarray(jax.random.normal(keys[i], PLANE), np.float64).ravel() for i in (1, 3)]


CASES = [
    ("squared", "song", 1.5, 0.9, 0.0),
    ("squared", "paper", 1.5, 0.9, 2.0),
    ("squared", "song", 0.3, 0.3, 0.0),
    ("norm", "song", 1.5, 0.9, 2.0),
    ("paper", "paper", 0.3, 0.3, 0.0),
]


@pytest.mark.parametrize(("form", "corrector", "s", "t", "of_y"), CASES)
def test_one_step_is_its_equations(form, corrector, s, t, of_y):
    z, z2 = normals()
    x = data(X + (s**2 - t**2) * score(X, s) + np.sqrt(s**2 - t**2) * z, s, of_y, form=form)
    ratio = 0.16 * np.linalg.norm(z2) / np.linalg.norm(score(x, t))
    e = 2 * ratio**2 if corrector == "song" else 2 * ratio
    expected = data(x + e * score(x, t) + np.sqrt(2 * e) * z2, t, of_y, form=form)
    settings = PredictorCorrector(zeta=0.6, corrector=corrector, step_form=form, noise=of_y)
    noise = Noise(jnp.float32(s), jnp.float32(t))
    got, fit = STEP(settings, PROBLEM, same_key(), jnp.asarray(X, jnp.float32).reshape(PLANE), noise)
    assert relative(got.ravel(), expected) < 2e-4
    denoised = X + s**2 * score(X, s)
    misfit = np.linalg.norm(GAUSSIAN.y - GAUSSIAN.matrix @ GAUSSIAN.crop @ denoised) / np.linalg.norm(GAUSSIAN.y)
    assert float(fit.residual) == pytest.approx(misfit, rel=1e-4)


def test_the_ancestral_predictor_leaves_the_noise_of_the_next_level():
    s, t = 1.5, 0.3
    z, z2 = normals()
    x = data(X + (s**2 - t**2) * score(X, s) + t * np.sqrt(1 - (t / s) ** 2) * z, s)
    e = 2 * (0.16 * np.linalg.norm(z2) / np.linalg.norm(score(x, t))) ** 2
    expected = data(x + e * score(x, t) + np.sqrt(2 * e) * z2, t)
    settings = PredictorCorrector(zeta=0.6, predictor="ancestral")
    noise = Noise(jnp.float32(s), jnp.float32(t))
    got, _ = STEP(settings, PROBLEM, same_key(), jnp.asarray(X, jnp.float32).reshape(PLANE), noise)
    assert relative(got.ravel(), expected) < 2e-4


def test_after_the_last_level_the_state_is_denoised():
    expected = data(X + 0.7**2 * score(X, 0.7))
    noise = Noise(jnp.float32(0.7), jnp.float32(0.0))
    got, _ = STEP(PredictorCorrector(zeta=0.6), PROBLEM, same_key(), jnp.asarray(X, jnp.float32).reshape(PLANE), noise)
    assert relative(got.ravel(), expected) < 2e-4


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"snr": 0.0}, "snr is 0.0: it must be above 0"),
        ({"corrector": "other"}, "use one of song, paper"),
        ({"predictor": "other"}, "use one of reverse_diffusion, ancestral"),
    ],
)
def test_settings_out_of_range_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        PredictorCorrector(**change)
