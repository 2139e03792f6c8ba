"""Plug-and-play: a denoiser at one fixed noise level takes the role of a regulariser.

    PnP-ADMM (Venkatakrishnan et al., GlobalSIP 2013)
        x <- argmin_x  ||y - A x||^2 + rho ||x - (v - u)||^2           (A*A + rho) x = A*y + rho (v - u)
        v <- D(x + u, sigma)
        u <- u + x - v                                                 the result is v
    PnP-RED, its fixed-point form (Romano et al., SIAM J. Imaging Sci. 10, 1804, 2017)
        x <- argmin_x  ||y - A x||^2 + rho ||x - D(x, sigma)||^2       (A*A + rho) x = A*y + rho D(x, sigma)

with rho = weight ||A||^2, both linear systems by CG from the last x. For a linear symmetric denoiser W the fixed points
are those of  A*(A x - y) + rho (W^-1 - 1) x = 0  (ADMM) and  A*(A x - y) + rho (1 - W) x = 0  (RED).

The denoiser is that of any `Prior`: the patch prior, which draws a tiling per iteration, so that the iteration hovers
about its fixed point, or a plain network (baselines/cnn.py). The margin of the plane is left at 0.

Cost per iteration: one evaluation, no gradient; cg_steps + 2 pairs of A and A*.
"""

from __future__ import annotations

import dataclasses
from typing import Literal

import jax
import jax.numpy as jnp
from jax import Array

from padis_jax.solvers.checks import check_settings
from padis_jax.solvers.estimates import solve_weighted
from padis_jax.solvers.problem import Fit, Problem
from padis_jax.solvers.sampling import Noise


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class PlugAndPlay:
    """Settings. The real-valued ones are arguments of the compiled step, so a search over them compiles once.

    >>> import padis_jax as pj
    >>> pj.PlugAndPlay(method="red", sigma=0.02).method  # reconstruct(key, y, A, prior, solver=...)
    'red'

    Attributes:
      method: "admm" or "red".
      sigma: the denoiser's noise level, in image units.
      weight: rho relative to ||A||^2.
      cg_steps: CG steps per iteration.
    """

    method: Literal["admm", "red"] = dataclasses.field(default="admm", metadata={"static": True})
    sigma: float | Array = 0.03
    weight: float | Array = 0.01
    cg_steps: int = dataclasses.field(default=10, metadata={"static": True})

    def __post_init__(self) -> None:
        check_settings(self, sigma="(0, inf]", weight="(0, inf]", cg_steps="[1, inf]")


def begin(image: Array) -> tuple[Array, Array, Array]:
    """The state (x, v, u) before the first iteration."""
    return image, image, jnp.zeros_like(image)


def image(state: tuple[Array, Array, Array]) -> Array:
    """The result, v."""
    return state[1]


def step(
    settings: PlugAndPlay, problem: Problem, key: Array, state: tuple[Array, Array, Array], noise: Noise
) -> tuple[tuple[Array, Array, Array], Fit]:
    """One iteration on (x, v, u), images [H, W, C]; v is the result (with "red" it is x). Reports the residual of v."""
    x, v, u = state
    if settings.method == "admm":
        x = _nearest(settings, problem, x, v - u)
        v = _denoised(problem, key, x + u, noise.sigma)
        u = u + x - v
    else:
        x = v = _nearest(settings, problem, x, _denoised(problem, key, x, noise.sigma))
    return (x, v, u), problem.fit(problem.residual(v))


def _denoised(problem: Problem, key: Array, image: Array, sigma: Array) -> Array:
    return problem.frame.crop(problem.denoised(key, problem.frame.pad(image), sigma))


def _nearest(settings: PlugAndPlay, problem: Problem, x: Array, target: Array) -> Array:
    """The minimum of ||y - A x||^2 + rho ||x - target||^2, by CG from x."""
    weight = settings.weight * jnp.square(problem.norm)
    right = problem.adjoint(problem.measurement) + weight * target
    return solve_weighted(problem, right, x, weight, settings.cg_steps)
