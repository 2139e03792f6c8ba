"""Pseudo-inverse guidance (PiGDM; Song et al., ICLR 2023, section 3), in the variance-exploding form.

    D = denoise(x, sigma),   r^2 = sigma^2 tau^2 / (sigma^2 + tau^2),   w = max(s^2 / r^2, floor ||A||^2)
    g = (A*A + w)^-1 A* (y - A D) = r^2 A* (r^2 A A* + s^2)^-1 (y - A D)     where the floor is not reached
    u = D + (sigma^2 / r^2) J_D* pad(g)
    x = u + sigma_next (sqrt(1 - eta^2) (x - D) / sigma + eta z),   z standard normal   (transitions.ddim)

The clean image given x is taken for Gaussian with mean D and covariance r^2 I. That is right for white images of
deviation tau, of which u is the mean given x and y; the paper's have tau = 1, in [-1, 1]. Against DPS the residual is
weighted by its covariance; against TMPD that covariance is no derivative of the network. Without noise and floor g is
A+ (y - A D), which gives the method its name. CG on A*A from 0 solves the system, so any linear operator may be given.

Cost per level: one evaluation and one gradient through it; cg_steps + 2 pairs of A and A*.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
from jax import Array

from padis_jax.solvers.checks import check_settings
from padis_jax.solvers.estimates import solve_weighted
from padis_jax.solvers.problem import Fit, Problem
from padis_jax.solvers.sampling import Noise
from padis_jax.solvers.transitions import ddim


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class PiGDM:
    """Settings. The real-valued ones are arguments of the compiled step, so a search over them compiles once.

    Source: Song et al., ICLR 2023, section 3: g = (A*A + w)^-1 A* (y - A D), differentiated through the network.

    >>> import padis_jax as pj
    >>> pj.PiGDM(spread=0.3).spread  # reconstruct(key, y, A, prior, solver=...)
    0.3

    Attributes:
      spread: tau, the deviation of the clean images, in image units.
      eta: share of fresh noise, 0 to 1.
      noise: s, the standard deviation of the noise of y, in the units of y.
      floor: smallest w, relative to ||A||^2.
      cg_steps: CG steps per level.

    Raises:
      ValueError: for a field of another type or outside of its interval: spread (0, inf], eta [0, 1], noise [0,
        inf], floor [0, inf], cg_steps [1, inf].
    """

    spread: float | Array = 0.5
    eta: float | Array = 1.0
    noise: float | Array = 0.0
    floor: float | Array = 2e-3
    cg_steps: int = dataclasses.field(default=10, metadata={"static": True})

    def __post_init__(self) -> None:
        check_settings(self, spread="(0, inf]", eta="[0, 1]", noise="[0, inf]", floor="[0, inf]", cg_steps="[1, inf]")


def step(settings: PiGDM, problem: Problem, key: Array, x: Array, noise: Noise) -> tuple[Array, Fit]:
    """One noise level; x is a plane [Hp, Wp, C]. Returns the plane at noise.sigma_next and the residual of D."""
    tiling_key, noise_key = jax.random.split(key)
    frame, ratio = problem.frame, jnp.square(noise.sigma / settings.spread)
    denoised, pull = jax.vjp(lambda plane: problem.denoised(tiling_key, plane, noise.sigma), x)
    residual = problem.residual(frame.crop(denoised))
    weight = jnp.square(settings.noise / noise.sigma) * (1 + ratio)
    weight = jnp.maximum(weight, settings.floor * jnp.square(problem.norm))
    gradient = problem.adjoint(residual)
    guidance = solve_weighted(problem, gradient, jnp.zeros_like(gradient), weight, settings.cg_steps)
    estimate = denoised + (1 + ratio) * pull(frame.pad(guidance))[0]
    estimate = frame.pad(frame.crop(estimate))
    kept = jnp.sqrt(1 - jnp.square(settings.eta))

    def moved(estimate: Array, x: Array, denoised: Array, z: Array) -> Array:
        return ddim(z, x, estimate, noise, about=denoised, kept=kept, fresh=settings.eta)

    return problem.mixed(moved, noise_key, estimate, x, denoised), problem.fit(residual)
