"""Closed form: with a Gaussian prior every linear step maps Gaussians to Gaussians, x' = F x + c + G z.

Each solver's F, c and G are written down here from the equations in its docstring, compared with the step applied to
basis vectors, and their recursion for mean and covariance, m' = F m + c and S' = F S F' + G G', with an ensemble.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial
from linear_problem import PLANE, affine_map, make, relative

from padis_jax.solvers import daps, ddnm, dds, diffpir, dps, langevin, pigdm, sampling, tmpd
from padis_jax.solvers.sampling import Noise

GAUSSIAN, PROBLEM, PRIOR = make()
N = len(GAUSSIAN.mean)
EYE = np.eye(N)

DDS_SETTINGS = dds.DDS(consistency=0.03, cg_steps=24, eta=0.8, noise=0.1, kappa=0.7)
DPS_SETTINGS = dps.DPS(zeta=0.6, eps=0.4)
LANGEVIN_SETTINGS = langevin.Langevin(zeta=0.6, eps=0.4)
DDNM_SETTINGS = ddnm.DDNM(eps=0.7)
ANCESTRAL = {
    "dps_ancestral": dps.DPS(zeta=0.6, prior_step="ancestral", noise=1.3),
    "langevin_ancestral": langevin.Langevin(zeta=0.6, prior_step="ancestral", noise=1.3),
    "ddnm_ancestral": ddnm.DDNM(prior_step="ancestral"),
}
DIFFPIR_SETTINGS = diffpir.DiffPIR(weight=3.0, zeta=0.4, noise=2.7, cg_steps=24)
DAPS_SETTINGS = daps.DAPS(ode_steps=3, ode_end=0.1, mcmc_steps=3, step=0.4, noise=0.4)
DAPS_CG_SETTINGS = daps.DAPS(ode_steps=1, sampler="cg", cg_steps=24, floor=0.3)
PIGDM_SETTINGS = pigdm.PiGDM(spread=0.7, eta=0.6, noise=1.5, floor=1e-3, cg_steps=24)
TMPD_SETTINGS = tmpd.TMPD(noise=1.5, floor=0.2, cg_steps=24)


def dds_matrices(sigma, sigma_next):
    s, g, k = DDS_SETTINGS, GAUSSIAN, GAUSSIAN.crop
    weight = s.consistency * g.norm**2 + (s.noise / (s.kappa * sigma)) ** 2
    solve = np.linalg.inv(g.matrix.T @ g.matrix + weight * np.eye(len(k)))
    wiener = g.wiener(sigma)
    offset = g.mean - wiener @ g.mean  # D = W x + offset
    kept = sigma_next * np.sqrt(1 - s.eta**2) / sigma
    f = k.T @ solve @ (weight * k @ wiener) + kept * (EYE - wiener)
    c = k.T @ solve @ (g.matrix.T @ g.y + weight * k @ offset) - kept * offset
    return f, c, sigma_next * s.eta * EYE


def prior_parts(s, sigma, sigma_next):
    """w and the deviation of the noise in x + w (D - x) + noise: Langevin's, or those that leave noise sigma_next.

    Ancestral: of noise sigma the share (1 - w) = (sigma_next / sigma)^2 stays, and what the variance lacks is drawn.
    """
    if s.prior_step == "langevin":
        return s.eps / 2, np.sqrt(s.eps) * sigma
    kept = sigma_next**2 / sigma**2
    return 1 - kept, np.sqrt(sigma_next**2 - kept**2 * sigma**2)


def towards_denoised(s, sigma, sigma_next):
    """x + w (D - x) + noise."""
    wiener = GAUSSIAN.wiener(sigma)
    w, deviation = prior_parts(s, sigma, sigma_next)
    return (1 - w) * EYE + w * wiener, w * (EYE - wiener) @ GAUSSIAN.mean, deviation * EYE


def dps_matrices(sigma, sigma_next, s=DPS_SETTINGS):
    g = GAUSSIAN
    f, c, noise = towards_denoised(s, sigma, sigma_next)
    wiener = g.wiener(sigma)
    back = s.zeta / (g.norm**2 + (s.noise / sigma) ** 2) * (g.matrix @ g.crop @ wiener).T  # J_D' crop' A'
    f = f - back @ g.matrix @ g.crop @ wiener
    c = c + back @ (g.y - g.matrix @ g.crop @ (g.mean - wiener @ g.mean))
    return f, c, noise


def langevin_matrices(sigma, sigma_next, s=LANGEVIN_SETTINGS):
    g = GAUSSIAN
    parts = towards_denoised(s, sigma, sigma_next)
    back = s.zeta / (g.norm**2 + (s.noise / sigma) ** 2) * (g.matrix @ g.crop).T
    data = EYE - back @ g.matrix @ g.crop
    return data @ parts[0], data @ parts[1] + back @ g.y, data @ parts[2]


def ddnm_matrices(sigma, sigma_next, s=DDNM_SETTINGS):
    """D + K' A+ (y - A K D) with K the crop, then the prior's step towards it."""
    g = GAUSSIAN
    w, deviation = prior_parts(s, sigma, sigma_next)
    wiener, k = g.wiener(sigma), g.crop
    inverse = k.T @ np.linalg.pinv(g.matrix)
    null = EYE - inverse @ g.matrix @ k
    f = (1 - w) * EYE + w * null @ wiener
    c = w * (null @ (EYE - wiener) @ g.mean + inverse @ g.y)
    return f, c, deviation * EYE


def diffpir_matrices(sigma, sigma_next):
    s, g, k = DIFFPIR_SETTINGS, GAUSSIAN, GAUSSIAN.crop
    weight = s.weight * (s.noise / sigma) ** 2
    solve = k.T @ np.linalg.inv(g.matrix.T @ g.matrix + weight * np.eye(len(k)))
    wiener = g.wiener(sigma)
    f = weight * solve @ k @ wiener  # u = f x + c
    c = solve @ (g.matrix.T @ g.y + weight * k @ (EYE - wiener) @ g.mean)
    kept = sigma_next * np.sqrt(1 - s.zeta) / sigma
    return f + kept * (EYE - f), c - kept * c, sigma_next * np.sqrt(s.zeta) * EYE


def daps_flow(settings, sigma):
    """The end of the ODE, c = f x + o."""
    f, o = EYE, np.zeros(N)
    n = settings.ode_steps
    end = min(settings.ode_end, sigma / 2)
    levels = [(sigma ** (1 / 7) + k / max(n - 1, 1) * (end ** (1 / 7) - sigma ** (1 / 7))) ** 7 for k in range(n)] + [0]
    for now, after in zip(levels, levels[1:], strict=False):
        one = g_mix(GAUSSIAN.wiener(now), after / now)
        f, o = one @ f, one @ o + (EYE - one) @ GAUSSIAN.mean
    return f, o


def g_mix(wiener, ratio):
    """D + ratio (x - D) as a matrix on x - mean."""
    return wiener + ratio * (EYE - wiener)


def daps_matrices(sigma, sigma_next):
    """u <- u_j + eta (A'(y - A u_j) / s^2 + (c - u_j) / sigma^2) + sqrt(2 eta) e_j from c, as the paper has it."""
    s, g, k = DAPS_SETTINGS, GAUSSIAN, GAUSSIAN.crop
    flow, offset = daps_flow(s, sigma)
    precision = g.matrix.T @ g.matrix / s.noise**2
    eta = s.step / (g.norm**2 / s.noise**2 + 1 / sigma**2)
    move = np.eye(len(k)) - eta * (precision + np.eye(len(k)) / sigma**2)
    of_center, fixed, spread = np.eye(len(k)), np.zeros(len(k)), np.zeros((len(k), 0))
    for _ in range(s.mcmc_steps):
        of_center = move @ of_center + eta / sigma**2 * np.eye(len(k))
        fixed = move @ fixed + eta * g.matrix.T @ g.y / s.noise**2
        spread = np.concatenate([move @ spread, np.sqrt(2 * eta) * np.eye(len(k))], 1)
    f, c = k.T @ of_center @ k @ flow, k.T @ (of_center @ k @ offset + fixed)
    return f, c, np.concatenate([k.T @ spread, sigma_next * EYE], 1)


def daps_normals(key):
    _, chain, last = jax.random.split(key, 3)
    inner = [jax.random.normal(jax.random.fold_in(chain, j), (3, 4, 1)) for j in range(DAPS_SETTINGS.mcmc_steps)]
    return [*inner, jax.random.normal(last, PLANE)]


def daps_cg_matrices(sigma, sigma_next):
    s, g, k = DAPS_CG_SETTINGS, GAUSSIAN, GAUSSIAN.crop
    flow, offset = daps_flow(s, sigma)
    weight = (s.floor * g.norm / sigma) ** 2
    solve = k.T @ np.linalg.inv(g.matrix.T @ g.matrix + weight * np.eye(len(k)))
    return weight * solve @ k @ flow, solve @ (g.matrix.T @ g.y + weight * k @ offset), sigma_next * EYE


def tmpd_matrices(sigma, sigma_next):
    """u = K D + K C K' A' (A K C K' A' + v)^-1 (y - A K D), C = sigma^2 W, v = s^2 + (floor ||A|| sigma)^2."""
    s, g, k = TMPD_SETTINGS, GAUSSIAN, GAUSSIAN.crop
    wiener = g.wiener(sigma)
    spread = k @ (sigma**2 * wiener) @ k.T @ g.matrix.T
    variance = s.noise**2 + (s.floor * g.norm * sigma) ** 2
    gain = spread @ np.linalg.inv(g.matrix @ spread + variance * np.eye(len(g.y)))
    keep = np.eye(len(k)) - gain @ g.matrix  # u = keep K D + gain y
    return k.T @ keep @ k @ wiener, k.T @ (keep @ k @ (EYE - wiener) @ g.mean + gain @ g.y), sigma_next * EYE


def pigdm_matrices(sigma, sigma_next):
    """u = K'K (D + (sigma^2 / r^2) W K' g), g = r^2 A' (r^2 A A' + s^2)^-1 (y - A K D), with DDIM's noise about D."""
    s, g, k = PIGDM_SETTINGS, GAUSSIAN, GAUSSIAN.crop
    wiener, offset = g.wiener(sigma), (EYE - g.wiener(sigma)) @ g.mean
    r2 = 1 / (1 / sigma**2 + 1 / s.spread**2)
    assert s.noise**2 / r2 > s.floor * g.norm**2
    gain = r2 * g.matrix.T @ np.linalg.inv(r2 * g.matrix @ g.matrix.T + s.noise**2 * np.eye(len(g.y)))
    back = sigma**2 / r2 * k.T @ k @ wiener.T @ k.T @ gain
    kept, fresh = sigma_next * np.sqrt(1 - s.eta**2) / sigma, sigma_next * s.eta
    f = (k.T @ k - back @ g.matrix @ k) @ wiener + kept * (EYE - wiener)
    return f, (k.T @ k - back @ g.matrix @ k) @ offset + back @ g.y - kept * offset, fresh * EYE


def second_normal(key):
    return [jax.random.normal(jax.random.split(key)[1], PLANE)]


NORMALS = {"daps": daps_normals, "daps_cg": lambda key: [jax.random.normal(jax.random.split(key, 3)[2], PLANE)]}
CASES = {
    "ddnm": (Partial(ddnm.step, DDNM_SETTINGS, PROBLEM), ddnm_matrices),
    "diffpir": (Partial(diffpir.step, DIFFPIR_SETTINGS, PROBLEM), diffpir_matrices),
    "daps": (Partial(daps.step, DAPS_SETTINGS, PROBLEM), daps_matrices),
    "daps_cg": (Partial(daps.step, DAPS_CG_SETTINGS, PROBLEM), daps_cg_matrices),
    "tmpd": (Partial(tmpd.step, TMPD_SETTINGS, PROBLEM), tmpd_matrices),
    "pigdm": (Partial(pigdm.step, PIGDM_SETTINGS, PROBLEM), pigdm_matrices),
    "dds": (Partial(dds.step, DDS_SETTINGS, PROBLEM), dds_matrices),
    "dps": (Partial(dps.step, DPS_SETTINGS, PROBLEM), dps_matrices),
    "langevin": (Partial(langevin.step, LANGEVIN_SETTINGS, PROBLEM), langevin_matrices),
    **{
        name: (Partial(module.step, ANCESTRAL[name], PROBLEM), functools.partial(matrices, s=ANCESTRAL[name]))
        for name, module, matrices in (
            ("dps_ancestral", dps, dps_matrices),
            ("langevin_ancestral", langevin, langevin_matrices),
            ("ddnm_ancestral", ddnm, ddnm_matrices),
        )
    },
}


SLOW = ("tmpd", "pigdm", "diffpir", "daps_cg")


@pytest.mark.parametrize("name", CASES)
def test_one_step_is_the_affine_map_of_its_equations(name):
    step, matrices = CASES[name]
    key = jax.random.key(5)
    z = np.concatenate(
        [np.asarray(a, np.float64).ravel() for a in NORMALS.get(name, second_normal)(jax.random.clone(key))]
    )
    for sigma, sigma_next in ((1.5, 0.9), (0.05, 0.02)):
        f, c, g = matrices(sigma, sigma_next)
        got_f, got_c = affine_map(step, jax.random.clone(key), Noise(jnp.float32(sigma), jnp.float32(sigma_next)))
        assert relative(got_f, f) < 1e-5
        assert relative(got_c, c + g @ z) < 1e-5


@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.slow) if n in SLOW else n for n in CASES])
def test_mean_and_covariance_of_many_runs_follow_the_recursion(name):
    step, matrices = CASES[name]
    noises = sampling.noises(np.geomspace(1.0, 0.05, 8), inner=1 if name in ANCESTRAL else 2)
    mean, covariance = np.zeros(N), np.eye(N)
    for sigma, sigma_next in zip(np.asarray(noises.sigma), np.asarray(noises.sigma_next), strict=True):
        f, c, g = matrices(float(sigma), float(sigma_next))
        mean, covariance = f @ mean + c, f @ covariance @ f.T + g @ g.T

    def one(key):
        start, rest = jax.random.split(key)
        return sampling.run(rest, step, jax.random.normal(start, PLANE), noises)[0]

    runs = 20_000
    states = np.asarray(jax.vmap(one)(jax.random.split(jax.random.key(0), runs)), np.float64).reshape(runs, N)
    # The error of the mean of n runs has the covariance S / n, that of the sample covariance the expected square
    # ((tr S)^2 + ||S||^2) / n.
    assert np.sum((states.mean(0) - mean) ** 2) < 3 * np.trace(covariance) / runs
    spread = (np.trace(covariance) ** 2 + np.sum(covariance**2)) / runs
    assert np.sum((np.cov(states.T) - covariance) ** 2) < 2 * spread
    # The same figures tell other settings apart: without noise or without data they would be far out.
    assert np.sum(covariance**2) > 100 * spread
    assert np.linalg.norm(mean - GAUSSIAN.mean) > 10 * np.sqrt(np.trace(covariance) / runs)


def test_tmpd_without_a_floor_is_the_mean_given_state_and_measurement():
    """Bayes' rule for x0 ~ N(mean, K' S K), x = x0 + sigma e and y = A K x0 + s n, on the image's 12 pixels."""
    g, k, sigma, s = GAUSSIAN, GAUSSIAN.crop, 0.8, 0.6
    x = np.random.default_rng(3).normal(size=N)
    prior = np.linalg.inv(k @ g.covariance @ k.T)
    precision = prior + np.eye(len(k)) / sigma**2 + g.matrix.T @ g.matrix / s**2
    expected = np.linalg.solve(precision, prior @ k @ g.mean + k @ x / sigma**2 + g.matrix.T @ g.y / s**2)
    last = Noise(jnp.float32(sigma), jnp.float32(0.0))
    settings = tmpd.TMPD(noise=s, floor=0.0, cg_steps=24)
    got, _ = tmpd.step(settings, PROBLEM, jax.random.key(0), jnp.asarray(x.reshape(PLANE), jnp.float32), last)
    assert relative(np.asarray(PRIOR.frame.crop(got), np.float64).ravel(), expected) < 1e-4


def test_pigdm_is_the_mean_given_state_and_measurement_for_white_images():
    """x0 ~ N(0, tau^2) on the image's pixels, for which D = x tau^2 / (sigma^2 + tau^2) and C = r^2 are exact."""
    g, k, sigma, s, tau = GAUSSIAN, GAUSSIAN.crop, 0.8, 0.6, 0.4
    x = k.T @ np.random.default_rng(3).normal(size=len(k))
    precision = np.eye(len(k)) * (1 / tau**2 + 1 / sigma**2) + g.matrix.T @ g.matrix / s**2
    expected = np.linalg.solve(precision, k @ x / sigma**2 + g.matrix.T @ g.y / s**2)
    white = dataclasses.replace(PROBLEM, denoise=lambda key, plane, sigma: plane * tau**2 / (sigma**2 + tau**2))
    settings, last = pigdm.PiGDM(tau, noise=s, floor=0.0, cg_steps=24), Noise(jnp.float32(sigma), jnp.float32(0.0))
    got, _ = pigdm.step(settings, white, jax.random.key(0), jnp.asarray(x.reshape(PLANE), jnp.float32), last)
    assert relative(np.asarray(PRIOR.frame.crop(got), np.float64).ravel(), expected) < 1e-4
