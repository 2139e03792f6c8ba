"""DAPS, decoupled annealing posterior sampling (Zhang et al., arXiv 2407.01521, algorithm 1).

At each noise level sigma

    c = the end of the probability-flow ODE from x, a few Euler steps s_0 = sigma > s_1 > ... > 0 of
        x <- D(x, s_k) + s_{k+1} / s_k (x - D(x, s_k)),     s_k evenly spaced in s^(1/7) from sigma to
                                                    min(ode_end, sigma / 2), then 0
    u ~ exp(-||u - c||^2 / (2 sigma^2) - ||y - A u||^2 / (2 s^2))             s: the noise of y
    x = u + sigma_next z                                                      (transitions.renoise)

The paper takes sigma for the error of c, and so do we. u by one of

    langevin   u <- u + eta (A*(y - A u) / s^2 + (c - u) / sigma^2) + sqrt(2 eta) z, from c, some steps:  the paper's
    cg         the most probable u, by CG from c (estimates.proximal with c for D), without noise:                ours

eta = step / (||A||^2 / s^2 + 1 / sigma^2), stable for step < 2 whatever the units (the paper tunes eta for each problem
and lets it fall with the level). As few Langevin steps as the paper takes do not mix where A sees nothing: u stays near
c there, which the method relies on, for a full sample would add noise of deviation sigma to that of the next level.
Where s is given as 0, or is very small, s = floor ||A|| takes its place.

Cost per step: `ode_steps` evaluations, no gradient; mcmc_steps + 1 A and mcmc_steps A* (cg: cg_steps + 2 of each).
"""

from __future__ import annotations

import dataclasses
from typing import Literal

import jax
import jax.numpy as jnp
from jax import Array, lax

from padis_jax.solvers.checks import check_settings
from padis_jax.solvers.estimates import proximal
from padis_jax.solvers.problem import Fit, Problem
from padis_jax.solvers.sampling import Noise
from padis_jax.solvers.transitions import renoise

RHO = 7.0


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class DAPS:
    """Settings. The real-valued ones are arguments of the compiled step, so a search over them compiles once.

    Source: Zhang et al., arXiv 2407.01521, algorithm 1: the end of the ODE, then u ~ exp(-||u - c||^2 / (2 sigma^2)
    - ||y - A u||^2 / (2 s^2)).

    >>> import padis_jax as pj
    >>> pj.DAPS(sampler="cg", ode_steps=2).ode_steps  # reconstruct(key, y, A, prior, solver=...)
    2

    Attributes:
      ode_steps: Euler steps from a noise level to 0; with 1, c is D.
      ode_end: the last level of the ODE before 0, in image units; at most half the first.
      sampler: "langevin" or "cg"; see above.
      step: Langevin step relative to the largest curvature, below 2.
      mcmc_steps: Langevin steps per level.
      cg_steps: CG steps per level.
      noise: s, in the units of y.
      floor: smallest s, relative to ||A||; positive.

    Raises:
      ValueError: for a field of another type or outside of its interval: ode_steps [1, inf], mcmc_steps [1, inf],
        cg_steps [1, inf], ode_end (0, inf], step (0, 2], noise [0, inf], floor (0, inf].
    """

    ode_steps: int = dataclasses.field(default=5, metadata={"static": True})
    ode_end: float | Array = 0.01
    sampler: Literal["langevin", "cg"] = dataclasses.field(default="langevin", metadata={"static": True})
    step: float | Array = 0.5
    mcmc_steps: int = dataclasses.field(default=100, metadata={"static": True})
    cg_steps: int = dataclasses.field(default=20, metadata={"static": True})
    noise: float | Array = 0.0
    floor: float | Array = 0.01

    def __post_init__(self) -> None:
        check_settings(self, ode_steps="[1, inf]", mcmc_steps="[1, inf]", cg_steps="[1, inf]")
        check_settings(self, ode_end="(0, inf]", step="(0, 2]", noise="[0, inf]", floor="(0, inf]")


def step(settings: DAPS, problem: Problem, key: Array, x: Array, noise: Noise) -> tuple[Array, Fit]:
    """One noise level; x is a plane [Hp, Wp, C]. Returns the plane at noise.sigma_next and the residual of c."""
    ode_key, chain_key, noise_key = jax.random.split(key, 3)
    center = flow(settings, problem, ode_key, x, noise.sigma)
    deviation = jnp.maximum(settings.noise, settings.floor * problem.norm)
    weight = jnp.square(deviation / noise.sigma)
    if settings.sampler == "cg":
        image, fit = proximal(problem, center, weight, settings.cg_steps)
    else:
        image, fit = chain(settings, problem, chain_key, center, deviation, weight)
    return renoise(noise_key, image, noise), fit


def flow(settings: DAPS, problem: Problem, key: Array, x: Array, sigma: Array) -> Array:
    """The plane at the end of the probability-flow ODE from the plane x at level sigma."""
    n = settings.ode_steps
    end = jnp.minimum(settings.ode_end, sigma / 2)
    root = sigma ** (1 / RHO) + jnp.arange(n, dtype=jnp.float32) / max(n - 1, 1) * (
        end ** (1 / RHO) - sigma ** (1 / RHO)
    )
    levels = jnp.append(root**RHO, 0.0)
    keys = jax.random.split(key, n)

    def euler(k: Array, x: Array) -> Array:
        denoised = problem.denoised(jax.random.clone(keys[k]), x, levels[k])  # a clone: key checks take keys for one
        return denoised + levels[k + 1] / levels[k] * (x - denoised)

    return lax.fori_loop(0, n, euler, x)


def chain(
    settings: DAPS, problem: Problem, key: Array, plane: Array, deviation: Array, weight: Array
) -> tuple[Array, Fit]:
    """The Langevin chain from the plane of c, and the residual of c; eta and the forces are multiplied out by s^2."""
    center = problem.frame.crop(plane)
    eta = settings.step / (jnp.square(problem.norm) + weight)  # eta / s^2
    spread = jnp.sqrt(2 * eta) * deviation

    def move(j: Array, u: Array) -> Array:
        force = problem.adjoint(problem.residual(u)) + weight * (center - u)
        return u + eta * force + spread * jax.random.normal(jax.random.fold_in(key, j), u.shape, u.dtype)

    image = lax.fori_loop(0, settings.mcmc_steps, move, center)
    return problem.frame.pad(image), problem.fit(problem.residual(center))
