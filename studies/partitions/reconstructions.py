"""DDS with K tilings in each evaluation, with and without less fresh noise for what the tilings add."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.tree_util import Partial

from padis_jax.noise import geometric_ladder
from padis_jax.prior import Prior
from padis_jax.solvers import sampling
from padis_jax.solvers.dds import DDS
from padis_jax.solvers.estimates import proximal
from padis_jax.solvers.problem import Fit, Problem, build_problem
from padis_jax.solvers.transitions import ddim


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Known:
    """The variance that tilings add to a denoised image, by level.

    Attributes:
      log_sigma: [n], rising.
      variance: [n], of one tiling, squared image units; 0 for no correction.
    """

    log_sigma: Array
    variance: Array


def step(
    settings: DDS, known: Known, problem: Problem, key: Array, x: Array, noise: sampling.Noise
) -> tuple[Array, Fit]:
    """A step of DDS (eta = 1) that draws t^2 - v instead of t^2, v the variance that the tilings have added."""
    tiling_key, noise_key = jax.random.split(key)
    denoised = problem.denoised(tiling_key, x, noise.sigma)
    weight = settings.consistency * jnp.square(problem.norm)
    weight = weight + jnp.square(settings.noise / (settings.kappa * noise.sigma))
    image, fit = proximal(problem, denoised, weight, settings.cg_steps)
    added = jnp.interp(jnp.log(noise.sigma), known.log_sigma, known.variance)
    share = added / jnp.maximum(jnp.square(noise.sigma_next), 1e-12)
    fresh = jnp.sqrt(jnp.maximum(1 - share, 0))
    return ddim(problem.drawn(noise_key, x), x, image, noise, about=denoised, kept=jnp.float32(0), fresh=fresh), fit


def reconstructed(
    key: Array,
    y: Array,
    operator: Any,
    prior: Prior,
    start: Array,
    *,
    settings: DDS,
    levels: int,
    sigma_max: float,
    sigma_min: float,
    known: Known,
) -> Array:
    """The image [H, W, C] of one chain, as `reconstruct` draws it but for `known`."""
    problem = build_problem(operator, prior.denoise, y, prior.frame, channels=prior.channels)
    ladder = geometric_ladder(levels, sigma_max, sigma_min)
    start_key, run_key = jax.random.split(jax.random.fold_in(key, 0))
    x = prior.frame.pad(start)
    x = x + ladder[0] * problem.drawn(start_key, x)
    x, _ = sampling.run(run_key, Partial(step, settings, known, problem), x, sampling.noises(ladder))
    return prior.frame.crop(x)


def known_of(rows: list[dict[str, float]], tilings: int, of: int, *, corrected: bool) -> Known:
    """From measured moments, whose variance has the divisor of - 1; of the mean of `tilings` of `of` tilings."""
    log_sigma = np.log([row["sigma"] for row in rows])
    order = np.argsort(log_sigma)
    left = (of - tilings) / (tilings * of) if corrected else 0.0
    variance = np.array([row["variance"] for row in rows]) * left
    return Known(jnp.asarray(log_sigma[order], jnp.float32), jnp.asarray(variance[order], jnp.float32))
