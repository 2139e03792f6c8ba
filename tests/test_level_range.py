"""First and last level from the errors that a run itself makes."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from linear_problem import make

from padis_jax.operators import Inpaint
from padis_jax.patches import frame_for
from padis_jax.prior import Prior
from padis_jax.solvers import auto, level_range
from padis_jax.solvers.auto import choose
from padis_jax.solvers.level_range import Errors, bootstrap_errors, range_of
from padis_jax.solvers.plug_and_play import PlugAndPlay
from padis_jax.solvers.presets import Plan
from padis_jax.solvers.reconstruct import reconstruct

_, PROBLEM, PRIOR = make()
Y, A = np.asarray(PROBLEM.measurement), PROBLEM.operator
PLAN = Plan("pnp_admm", PlugAndPlay(weight=0.05, cg_steps=16), 4, sigma_max=0.8, sigma_min=0.2, start="noise")


def test_levels_of_errors_are_within_bounds_and_descend():
    assert range_of(Errors(0.02, 0.01)) == pytest.approx((0.08, 0.01))
    assert range_of(Errors(9.0, 1e-9)) == pytest.approx((4.0, 0.001))
    assert range_of(Errors(0.001, 0.2)) == pytest.approx((0.22, 0.2))


@pytest.mark.parametrize("told", [0.3, None])
def test_errors_are_those_of_the_same_run_on_its_own_image(told):
    def solved(y):
        options = PLAN.options() | {"noise_std": told}
        return np.asarray(reconstruct(0, y, A, PRIOR, solver=PLAN.settings, **options).image)

    image = solved(Y)  # the denoiser draws nothing, so that keys do not matter
    clean = np.asarray(PROBLEM.forward(jnp.asarray(image)))
    spread = np.sqrt(np.mean((Y - clean) ** 2)) if told is None else told
    noise_key = jax.random.split(jax.random.fold_in(jax.random.key(0), 1))[0]
    again = solved(clean + spread * np.asarray(jax.random.normal(noise_key, clean.shape)))
    found = bootstrap_errors(0, Y, A, PRIOR, PLAN, noise_std=told)
    expected = [np.sqrt(np.mean(image**2)), np.sqrt(np.mean((again - image) ** 2))]  # the start is 0
    np.testing.assert_allclose(found, expected, rtol=1e-3)


def test_noise_that_is_not_known_is_that_of_what_is_measured():
    """Of a mask, whose missing pixels have no residual."""
    mask = np.arange(576).reshape(24, 24) % 3 == 0
    operator = Inpaint(mask=mask)
    truth = np.full((24, 24, 1), 0.5, np.float32)
    y = np.asarray(operator(jnp.asarray(truth))) + 0.1 * mask[..., None].astype(np.float32)
    prior = Prior(lambda key, plane, sigma: plane, frame_for((24, 24), 8))
    problem = level_range.problem_of(operator, prior, y, None, "pnp_admm")
    assert float(level_range._spread(problem, problem.forward(jnp.asarray(truth)))) == pytest.approx(0.1, rel=1e-4)


@pytest.mark.parametrize("sigma", [0.0, 0.3])
def test_the_search_has_the_levels_of_the_rule_if_it_is_told_to(sigma, monkeypatch):
    monkeypatch.setattr(auto, "bootstrap_errors", lambda *args, **about: Errors(0.15, 0.1))
    plan = PLAN._replace(settings=dataclasses.replace(PLAN.settings, sigma=sigma))
    choice = choose(0, Y, A, PRIOR, plan, noise_std=0.3, levels=True)
    assert choice.levels == pytest.approx((0.6, 0.1)) and choice.plan.settings.sigma == 0
    assert (choice.plan.sigma_max, choice.plan.sigma_min) == choice.levels
    assert choice.text.startswith("auto: levels 0.6 to 0.1, weight ")
    assert choice.evaluations == sum(trial.levels for trial in choice.trials) + 2 * plan.levels
    kept = choose(0, Y, A, PRIOR, plan, noise_std=0.3)
    assert kept.levels is None and kept.plan.settings.sigma == sigma and kept.plan.sigma_max == 0.8
    assert "levels" not in kept.text
