"""What the closed forms of test_gaussian.py leave out: operators without a pseudo-inverse, floors, refusals."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from linear_problem import PLANE, make, relative

from padis_jax.operators import ParallelBeam, from_functions
from padis_jax.operators.least_squares import least_squares
from padis_jax.patches import Frame
from padis_jax.solvers import daps, ddnm, diffpir, tmpd
from padis_jax.solvers.daps import DAPS
from padis_jax.solvers.ddnm import DDNM
from padis_jax.solvers.diffpir import DiffPIR
from padis_jax.solvers.problem import build_problem
from padis_jax.solvers.sampling import Noise

GAUSSIAN, PROBLEM, PRIOR = make()
X = 0.5 + 0.7 * jax.random.normal(jax.random.key(6), PLANE)
NOISE = Noise(jnp.float32(0.7), jnp.float32(0.3))


def same_key():
    return jax.random.key(4)  # a new one each time: these tests draw the same again on purpose


class Bare:
    """An operator of the user's own: no pytree, images [H, W], and no pseudo-inverse."""

    norm = GAUSSIAN.norm

    def __call__(self, image):
        return jnp.asarray(GAUSSIAN.matrix, jnp.float32) @ image.reshape(12)

    def T(self, y):
        return (jnp.asarray(GAUSSIAN.matrix, jnp.float32).T @ y).reshape(3, 4)


class Inverted(Bare):
    """The same with a pseudo-inverse of its own, told apart by a factor."""

    def pinv(self, y):
        return 2 * (jnp.asarray(np.linalg.pinv(GAUSSIAN.matrix), jnp.float32) @ y).reshape(3, 4)


def test_the_operators_own_pseudo_inverse_is_used_and_otherwise_converged_cg():
    expected = (np.linalg.pinv(GAUSSIAN.matrix) @ GAUSSIAN.y).reshape(3, 4, 1)
    for operator, factor in ((Bare(), 1), (Inverted(), 2)):
        problem = build_problem(operator, PRIOR.denoise, GAUSSIAN.y, PRIOR.frame, channels=1)
        assert relative(jax.jit(lambda p: p.pinv(p.measurement, tolerance=1e-6))(problem), factor * expected) < 1e-4


@pytest.mark.parametrize("sigma", [0.2, 0.015, 0.005])
def test_the_levels_of_the_ode_of_daps_fall(sigma):
    seen = []

    def denoise(key, plane, level):
        jax.debug.callback(lambda at: seen.append(float(at)), level, ordered=True)
        return plane / 2

    problem = dataclasses.replace(PROBLEM, denoise=denoise)
    daps.flow(DAPS(ode_steps=4, ode_end=0.01), problem, same_key(), X, jnp.float32(sigma))
    jax.effects_barrier()
    assert len(seen) == 4 and seen[0] == pytest.approx(sigma) and all(a > b > 0 for a, b in itertools.pairwise(seen))
    assert seen[-1] == pytest.approx(min(0.01, sigma / 2))


@pytest.mark.slow
def test_cg_for_the_pseudo_inverse_stops_at_a_tolerance_of_the_measurement():
    """Fewer iterations for a residual that is small beside y, none for one below the tolerance, and A A+ A = A."""
    scan = ParallelBeam(image_shape=(16, 16), angles=np.linspace(0, 2, 6), detector_count=24)
    y = scan(jax.random.uniform(same_key(), (16, 16)))
    limit = 1e-5 * jnp.linalg.norm(scan.T(y))
    counts = [int(least_squares(scan, scan.T, share * y, limit=limit)[1]) for share in (1.0, 1e-2, 1e-6)]
    assert counts[0] > 1.5 * counts[1] > 0 == counts[2]
    problem = build_problem(scan, PRIOR.denoise, y, Frame((16, 16), 8, (3, 3)), channels=1)
    exact = scan.pinv(y)
    for tolerance, bound in ((1e-2, 0.3), (1e-5, 1e-3)):
        x = jax.jit(lambda p, t: p.pinv(p.measurement, tolerance=t))(problem, tolerance)[..., 0]
        gradient = jnp.linalg.norm(scan.T(y - scan(x))) / jnp.linalg.norm(scan.T(y))
        assert gradient <= 1.01 * tolerance + 1e-6 and relative(scan(x), np.asarray(y)) < bound
        again = jax.jit(lambda p, r, t: p.pinv(r, tolerance=t))(problem, scan(x), tolerance)[..., 0]
        assert relative(scan(again), np.asarray(scan(x))) < bound  # A A+ A = A
    assert relative(x, np.asarray(exact)) < 0.1  # white noise has much where A is small
    assert float(jnp.linalg.norm(x)) <= 1.001 * float(jnp.linalg.norm(exact))  # of least norm: it stays in A*'s range


def test_a_few_cg_steps_in_place_of_the_pseudo_inverse():
    """One step from 0 on A'A u = A'r is steepest descent with exact line search."""
    d = np.asarray(PRIOR.frame.crop(PROBLEM.denoise(same_key(), X, NOISE.sigma)), np.float64).ravel()
    r = GAUSSIAN.y - GAUSSIAN.matrix @ d
    gradient = GAUSSIAN.matrix.T @ r
    expected = d + gradient @ gradient / np.sum((GAUSSIAN.matrix @ gradient) ** 2) * gradient
    still = Noise(jnp.float32(0.7), jnp.float32(0.0), jnp.bool_(True))  # eps 2 without noise: x becomes D'
    got, _ = ddnm.step(DDNM(eps=2.0, cg_steps=1, last_level_noise=False), PROBLEM, same_key(), X, still)
    assert relative(PRIOR.frame.crop(got).ravel(), expected) < 1e-4


def test_ddnm_inverts_to_its_tolerance():
    """With eps 2 and no noise x becomes D + A+ r; the measurement, of 7 numbers, is met but for the tolerance."""
    problem = build_problem(Bare(), PRIOR.denoise, 100 * GAUSSIAN.y, PRIOR.frame, channels=1)  # far from D
    last = Noise(jnp.float32(0.7), jnp.float32(0.0), jnp.bool_(True))
    gradient = []
    for tolerance in (0.3, 1e-5):
        got, _ = ddnm.step(DDNM(eps=2.0, tolerance=tolerance, last_level_noise=False), problem, same_key(), X, last)
        rest = problem.measurement - problem.forward(PRIOR.frame.crop(got))
        gradient.append(float(jnp.linalg.norm(Bare().T(rest)) / jnp.linalg.norm(Bare().T(problem.measurement))))
    assert 1e-3 < gradient[0] < 0.3 and gradient[1] < 1e-4


@pytest.mark.parametrize(
    ("module", "settings"),
    [(ddnm, DDNM()), (diffpir, DiffPIR()), (daps, DAPS(ode_steps=1, sampler="cg")), (tmpd, tmpd.TMPD())],
)
def test_the_reported_residual_is_that_of_the_denoised_image(module, settings):
    d = np.asarray(PRIOR.frame.crop(PROBLEM.denoise(same_key(), X, NOISE.sigma)), np.float64).ravel()
    _, fit = module.step(settings, PROBLEM, same_key(), X, NOISE)
    misfit = np.linalg.norm(GAUSSIAN.y - GAUSSIAN.matrix @ d) / np.linalg.norm(GAUSSIAN.y)
    assert float(fit.residual) == pytest.approx(misfit, rel=1e-4)


def test_diffpir_takes_the_floor_where_there_is_no_noise():
    """rho = floor ||A||^2 at every level; any operator's unit gives the same image."""
    given = DiffPIR(weight=8.0, noise=0.7 * np.sqrt(0.2 / 8) * GAUSSIAN.norm, floor=1e-9)
    one, _ = diffpir.step(DiffPIR(floor=0.2), PROBLEM, same_key(), X, NOISE)
    two, _ = diffpir.step(given, PROBLEM, same_key(), X, NOISE)
    np.testing.assert_allclose(one, two, atol=1e-5)
    low = Noise(jnp.float32(0.01), jnp.float32(0.0))
    d = np.asarray(PRIOR.frame.crop(PROBLEM.denoise(same_key(), X, low.sigma)), np.float64).ravel()
    a, rho = GAUSSIAN.matrix, 0.2 * GAUSSIAN.norm**2
    expected = np.linalg.solve(a.T @ a + rho * np.eye(12), a.T @ GAUSSIAN.y + rho * d)
    got, _ = diffpir.step(DiffPIR(floor=0.2), PROBLEM, same_key(), X, low)
    assert relative(PRIOR.frame.crop(got).ravel(), expected) < 1e-4
    _, thousand, _ = make(scale=1000.0)
    three, _ = diffpir.step(DiffPIR(floor=0.2), thousand, same_key(), X, NOISE)
    np.testing.assert_allclose(one, three, atol=1e-4)
    other, _ = diffpir.step(DiffPIR(floor=0.4), PROBLEM, same_key(), X, NOISE)
    assert float(jnp.abs(other - one).max()) > 1e-3


@pytest.mark.parametrize(
    ("kind", "change", "message"),
    [
        (DDNM, {"eps": 0.0}, "DDNM: eps is 0.0: it must be above 0 and at most 4"),
        (DDNM, {"tolerance": 0.0}, "tolerance is 0.0"),
        (DDNM, {"prior_step": "ddim"}, "DDNM: prior_step is 'ddim': use one of langevin, ancestral"),
        (DDNM, {"cg_steps": -1}, "cg_steps is -1: it must be at least 0"),
        (DiffPIR, {"zeta": 1.5}, "zeta is 1.5"),
        (DiffPIR, {"weight": 0.0}, "weight is 0.0"),
        (DiffPIR, {"floor": 0.0}, "floor is 0.0"),
        (DAPS, {"ode_steps": 0}, "ode_steps is 0"),
        (DAPS, {"step": 2.5}, "step is 2.5"),
        (DAPS, {"sampler": "hmc"}, "use one of langevin, cg"),
        (DAPS, {"noise": float("nan")}, "noise is nan"),
        (tmpd.TMPD, {"noise": -1.0}, "TMPD: noise is -1.0"),
        (tmpd.TMPD, {"cg_steps": 0}, "cg_steps is 0: it must be at least 1"),
        (tmpd.TMPD, {"low": 1.0, "high": 1.0}, "low must be below high"),
    ],
)
def test_settings_out_of_range_are_refused(kind, change, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(kind(), **change)


def test_tmpd_clips_what_it_is_told_to():
    free, _ = tmpd.step(tmpd.TMPD(), PROBLEM, same_key(), X, Noise(NOISE.sigma, jnp.float32(0.0)))
    low, high = (float(jnp.quantile(PRIOR.frame.crop(free), q)) for q in (0.3, 0.6))
    bound, _ = tmpd.step(tmpd.TMPD(low=low, high=high), PROBLEM, same_key(), X, Noise(NOISE.sigma, jnp.float32(0.0)))
    np.testing.assert_allclose(PRIOR.frame.crop(bound), jnp.clip(PRIOR.frame.crop(free), low, high), atol=1e-6)


def test_tmpd_stays_near_the_image_where_the_denoisers_derivative_is_no_covariance():
    """Of -1/2 in one direction, where A C A* + s^2 is then s^2 / 1000, and of 1/2 in all others."""
    wrong = jnp.zeros((3, 4, 1)).at[1, 2, 0].set(1.0)

    def denoise(_, x, sigma):
        return 0.5 * x - jnp.vdot(PRIOR.frame.pad(wrong), x) * PRIOR.frame.pad(wrong)

    sigma = float(NOISE.sigma)
    operator, y = from_functions(lambda image: image, image_shape=(3, 4, 1)), jnp.ones((3, 4, 1))
    problem = build_problem(operator, denoise, y, PRIOR.frame, channels=1)
    settings = tmpd.TMPD(noise=sigma * np.sqrt(0.5 / 0.999), floor=0.0, cg_steps=12)
    got, _ = tmpd.step(settings, problem, same_key(), X, Noise(NOISE.sigma, jnp.float32(0.0)))
    clean = PRIOR.frame.crop(denoise(same_key(), X, NOISE.sigma))
    assert float(jnp.linalg.norm(PRIOR.frame.crop(got) - clean)) <= 2 * float(jnp.linalg.norm(y - clean))
