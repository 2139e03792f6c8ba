"""Annealed Langevin dynamics, with a data step that does not go through the network (PaDIS, arXiv 2406.02462).

    x <- x + alpha/2 (D - x) / sigma^2 + sqrt(alpha) z        D = denoise(x, sigma),   alpha = eps sigma^2
    x <- x + step(pad(A* r))                                  r = y - A crop(x),       x of the line above

step(d), and the zeta of "squared" that makes the same step at the same residual:

    form       step(d)               as "squared"
    squared    zeta d / M            zeta                   the default: free of the operator's units
    norm       zeta d / (||A|| ||r||)  zeta ||A|| / ||r||   the paper's, made free of the operator's units
    paper      zeta d / ||r||        zeta ||A||^2 / ||r||   the paper's, with zeta = 0.3

M = ||A||^2 + (s / sigma)^2 with s the noise of y, 0 unless it is given; see dps.py. The first line may be an ancestral
step instead, which needs fewer levels (transitions.py).

Cost per step: one evaluation, no gradient; two A (one of them for the report) and one A*.
"""

from __future__ import annotations

import dataclasses
from typing import Literal

import jax
from jax import Array

from padis_jax.solvers.checks import check_settings
from padis_jax.solvers.dps import data_scale
from padis_jax.solvers.problem import Fit, Problem
from padis_jax.solvers.sampling import Noise
from padis_jax.solvers.transitions import PriorStep, prior_step, towards

Form = Literal["squared", "norm", "paper"]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Langevin:
    """Settings. The real-valued ones are arguments of the compiled step, so a search over them compiles once.

    Source: PaDIS, arXiv 2406.02462: a Langevin step, then a data step along A* (y - A x) that does not go through
    the network.

    >>> import padis_jax as pj
    >>> pj.Langevin(zeta=0.3, step_form="paper").step_form  # reconstruct(key, y, A, prior, solver=...)
    'paper'

    Attributes:
      zeta: data step, in the units of `step_form`; "squared" is stable below 2.
      eps: Langevin step, alpha = eps sigma^2; the paper takes 1. Not used by "ancestral".
      prior_step: "langevin" or "ancestral".
      step_form: "squared", "norm" or "paper"; see the table above.
      noise: s, in the units of y; used by "squared".
      last_level_noise: whether the lowest level of the ladder adds noise.

    Raises:
      ValueError: for a field of another type or outside of its interval: zeta (0, inf], eps (0, inf], noise [0,
        inf].
    """

    zeta: float | Array = 1.0
    eps: float | Array = 1.0
    prior_step: PriorStep = dataclasses.field(default="langevin", metadata={"static": True})
    step_form: Form = dataclasses.field(default="squared", metadata={"static": True})
    noise: float | Array = 0.0
    last_level_noise: bool = dataclasses.field(default=True, metadata={"static": True})

    def __post_init__(self) -> None:
        check_settings(self, zeta="(0, inf]", eps="(0, inf]", noise="[0, inf]")


def step(settings: Langevin, problem: Problem, key: Array, x: Array, noise: Noise) -> tuple[Array, Fit]:
    """One step at noise level noise.sigma; x is a plane [Hp, Wp, C]. Returns the next plane and the residual of D."""
    tiling_key, noise_key = jax.random.split(key)
    denoised = problem.denoised(tiling_key, x, noise.sigma)
    x = towards(noise_key, x, denoised, *prior_step(settings, noise))
    x = data_step(problem, x, settings.zeta, settings.step_form, settings.noise / noise.sigma)
    return x, problem.fit(problem.residual(problem.frame.crop(denoised)))


def data_step(problem: Problem, x: Array, zeta: float | Array, form: Form, ratio: float | Array) -> Array:
    """x + step(pad(A* r)) with the `form` of the table above and s / sigma = `ratio`; x is a plane [Hp, Wp, C]."""
    residual = problem.residual(problem.frame.crop(x))
    scale = zeta * data_scale(problem, residual, form, ratio)
    return x + problem.frame.pad(scale * problem.adjoint(residual))
