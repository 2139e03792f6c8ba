"""VE-DPS: its gradient, its forms of the data step and the table that converts them, and the authors' variants."""

import dataclasses
from typing import get_args

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from linear_problem import FRAME, PLANE, make

from padis_jax.patches import frame_for
from padis_jax.prior import tiled_prior
from padis_jax.solvers import dps
from padis_jax.solvers.dps import DPS
from padis_jax.solvers.problem import Problem
from padis_jax.solvers.sampling import Noise

_, PROBLEM, _ = make()
X = 0.5 + 0.7 * jax.random.normal(jax.random.key(6), PLANE)
NOISE = Noise(jnp.float32(0.7), jnp.float32(0.5))
STEP = jax.jit(dps.step)


def same_key(seed=4):
    return jax.random.key(seed)  # a new one each time: these tests draw the same again on purpose


def nonlinear(key, plane, sigma):
    """A denoiser with a full, nonlinear Jacobian."""
    return jnp.tanh(plane + 0.3 * jnp.roll(plane, 1, 0) * jnp.roll(plane, 1, 1)) / (1 + sigma**2)


CURVED = dataclasses.replace(PROBLEM, denoise=jax.tree_util.Partial(nonlinear))


def data_step(settings, problem=CURVED, noise=NOISE):
    """What the data term adds: the step less the same step with a vanishing zeta."""
    tiny = dataclasses.replace(settings, zeta=1e-30)
    return STEP(settings, problem, same_key(), X, noise)[0] - STEP(tiny, problem, same_key(), X, noise)[0]


def length_and_gradient():
    """||r|| and grad 1/2 ||r||^2 by plain autodiff."""

    def half_square(x):
        r = CURVED.measurement - CURVED.forward(FRAME.crop(nonlinear(same_key(), x, NOISE.sigma)))
        return 0.5 * jnp.sum(r**2)

    value, gradient = jax.value_and_grad(half_square)(X)
    return jnp.sqrt(2 * value), gradient


@pytest.mark.parametrize("form", get_args(dps.Form))
def test_data_step_is_the_gradient_in_each_form(form):
    length, g = length_and_gradient()
    norm = CURVED.operator.norm
    expected = {"squared": g / norm**2, "norm": g / (norm * length), "paper": 2 * g / length, "authors": g / length}
    got = data_step(DPS(zeta=0.3, step_form=form))
    np.testing.assert_allclose(got, -0.3 * expected[form], atol=2e-6)


def test_the_noise_of_y_shortens_the_step_by_bayes_rule():
    """zeta = 1: a first step down ||y - A u||^2 + (s/sigma)^2 ||u - D||^2, as long as its curvature allows."""
    _, g = length_and_gradient()
    norm, s = float(CURVED.operator.norm), 2.5
    got = data_step(DPS(zeta=1.0, noise=s))
    np.testing.assert_allclose(got, -g / (norm**2 + (s / 0.7) ** 2), atol=2e-6)
    other = data_step(DPS(zeta=1.0, noise=s, step_form="norm"))
    np.testing.assert_array_equal(other, data_step(DPS(zeta=1.0, step_form="norm")))


def test_the_table_converts_zeta():
    length, _ = length_and_gradient()
    n = float(CURVED.operator.norm)
    zeta = 0.3
    theirs = data_step(DPS(zeta=zeta, step_form="authors"))
    for form, same in (("squared", zeta * n**2 / length), ("norm", zeta * n), ("paper", zeta / 2)):
        np.testing.assert_allclose(data_step(DPS(zeta=same, step_form=form)), theirs, atol=2e-6)


def test_prior_step_is_langevin_with_the_score_before_the_update():
    settings = DPS(zeta=1e-30, eps=0.3)
    z = jax.random.normal(jax.random.split(same_key())[1], PLANE)
    alpha = 0.3 * NOISE.sigma**2
    score = (nonlinear(same_key(), X, NOISE.sigma) - X) / NOISE.sigma**2
    got, _ = STEP(settings, CURVED, same_key(), X, NOISE)
    np.testing.assert_allclose(got, X + alpha / 2 * score + jnp.sqrt(alpha) * z, atol=1e-6)


def test_the_network_is_evaluated_once():
    calls = []

    def counting(key, plane, sigma):
        calls.append(1)
        return plane / (1 + sigma**2)

    jax.make_jaxpr(dps.step)(
        DPS(), dataclasses.replace(PROBLEM, denoise=jax.tree_util.Partial(counting)), same_key(), X, NOISE
    )
    assert len(calls) == 1


@pytest.mark.parametrize("form", get_args(dps.Form))
def test_a_perfect_fit_is_left_alone(form):
    """Where the residual is 0, its norm has no gradient; the step must be 0, not NaN."""
    problem = dataclasses.replace(CURVED, measurement=CURVED.forward(FRAME.crop(nonlinear(same_key(), X, NOISE.sigma))))
    exact = dataclasses.replace(problem, measurement=jnp.zeros_like(problem.measurement))
    x, _ = STEP(DPS(zeta=1.0, step_form=form), exact, same_key(), jnp.zeros_like(X), NOISE)
    assert bool(jnp.all(jnp.isfinite(x)))
    still, _ = STEP(DPS(zeta=1e-30, step_form=form), exact, same_key(), jnp.zeros_like(X), NOISE)
    np.testing.assert_array_equal(x, still)


def test_last_level_noise_can_be_left_out():
    final = NOISE._replace(final=jnp.asarray(True))
    quiet, loud = DPS(last_level_noise=False), DPS()
    np.testing.assert_array_equal(
        STEP(quiet, PROBLEM, same_key(), X, final)[0], STEP(quiet, PROBLEM, same_key(99), X, final)[0]
    )
    assert not np.allclose(STEP(loud, PROBLEM, same_key(), X, final)[0], STEP(loud, PROBLEM, same_key(99), X, final)[0])
    before = NOISE._replace(final=jnp.asarray(False))
    np.testing.assert_array_equal(
        STEP(quiet, PROBLEM, same_key(), X, before)[0], STEP(loud, PROBLEM, same_key(), X, before)[0]
    )


def test_zero_ring_pulls_the_margin_to_zero_and_leaves_the_image():
    ring, free = DPS(zero_ring=True), DPS()
    a, b = (STEP(s, CURVED, same_key(), X, NOISE)[0] for s in (ring, free))
    np.testing.assert_allclose(FRAME.crop(a), FRAME.crop(b), atol=1e-6)
    denoised = nonlinear(same_key(), X, NOISE.sigma)
    margin = denoised - FRAME.pad(FRAME.crop(denoised))
    np.testing.assert_allclose(b - a, ring.eps / 2 * margin, atol=1e-6)


def test_patches_in_chunks_give_the_same_step():
    frame = frame_for((9, 10), 4)
    x = jax.random.normal(same_key(), (*frame.padded_shape, 1))
    operator = make()[1].operator
    matrix = jax.random.normal(jax.random.key(8), (5, 90))
    operator = dataclasses.replace(
        operator,
        forward=lambda image: matrix @ image.ravel(),
        adjoint=lambda r: (matrix.T @ r).reshape(9, 10, 1),
        image_shape=(9, 10, 1),
        measurement_shape=(5,),
    )

    def patch_denoise(patches, positions, sigma):
        return jnp.tanh(patches + 0.2 * jnp.roll(patches, 1, 1) + positions[..., :1]) / (1 + sigma[0] ** 2)

    outs = []
    for batch in (None, 4):
        prior = tiled_prior(patch_denoise, frame, patch_batch=batch)
        problem = Problem(operator, prior.denoise, jnp.ones(5), frame)
        outs.append(STEP(DPS(), problem, same_key(), x, NOISE)[0])
    np.testing.assert_allclose(*outs, atol=1e-5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"zeta": 0.0}, "zeta is 0"),
        ({"eps": -1.0}, "eps is -1"),
        ({"step_form": "sq"}, "use one of"),
        ({"prior_step": "ddim"}, "use one of langevin"),
    ],
)
def test_settings_out_of_range_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        DPS(**change)
