"""VE-DDNM: the denoised image is replaced by its nearest neighbour that explains the data (Wang et al., DDNM,
arXiv 2212.00490; in the variance-exploding form of PaDIS, arXiv 2406.02462).

    u = A+ y + (I - A+ A) D = D + A+ (y - A D)               D = denoise(x, sigma)      (estimates.projection)
    x <- x + alpha/2 (u - x) / sigma^2 + sqrt(alpha) z       alpha = eps sigma^2

The second line may be an ancestral step instead, which needs fewer levels (transitions.py).

A+ is the pseudo-inverse: the operator's own `pinv` where that has a closed form, else conjugate gradients from zero
until the data's gradient ||A*(y - A (D + u))|| is `tolerance` of ||A* y||. The data are fitted (to that), and so is
their noise, amplified where A has small singular values: a method for measurements without noise. A few CG steps
(`cg_steps`) instead of A+ fit less and regularise.

Cost per step: one evaluation, no gradient; one A and one A+, which for an operator without a closed form (CT) is an
iteration of its own: the fewer the nearer D is to the data.
"""

from __future__ import annotations

import dataclasses

import jax
from jax import Array

from padis_jax.solvers.checks import check_settings
from padis_jax.solvers.estimates import projection
from padis_jax.solvers.problem import Fit, Problem
from padis_jax.solvers.sampling import Noise
from padis_jax.solvers.transitions import PriorStep, prior_step, towards


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class DDNM:
    """Settings. The real-valued ones are arguments of the compiled step, so a search over them compiles once.

    Source: Wang et al., arXiv 2212.00490: u = D + A+ (y - A D), in the variance-exploding form of PaDIS, arXiv
    2406.02462.

    >>> import padis_jax as pj
    >>> pj.DDNM(cg_steps=10).cg_steps  # reconstruct(key, y, A, prior, solver=...)
    10

    Attributes:
      eps: Langevin step, alpha = eps sigma^2; the paper takes 1. Not used by "ancestral".
      prior_step: "langevin" or "ancestral".
      cg_steps: CG steps on A*A u = A* (y - A D) from 0 instead of A+; 0 for A+ itself.
      tolerance: of the CG for A+, where that has no closed form.
      last_level_noise: whether the lowest level of the ladder adds noise.

    Raises:
      ValueError: for a field of another type or outside of its interval: eps (0, 4], tolerance (0, 1], cg_steps [0,
        inf].
    """

    eps: float | Array = 1.0
    prior_step: PriorStep = dataclasses.field(default="langevin", metadata={"static": True})
    tolerance: float | Array = 1e-5
    cg_steps: int = dataclasses.field(default=0, metadata={"static": True})
    last_level_noise: bool = dataclasses.field(default=True, metadata={"static": True})

    def __post_init__(self) -> None:
        check_settings(self, eps="(0, 4]", tolerance="(0, 1]", cg_steps="[0, inf]")


def step(settings: DDNM, problem: Problem, key: Array, x: Array, noise: Noise) -> tuple[Array, Fit]:
    """One step at noise level noise.sigma; x is a plane [Hp, Wp, C]. Returns the next plane and the residual of D."""
    tiling_key, noise_key = jax.random.split(key)
    denoised = problem.denoised(tiling_key, x, noise.sigma)
    image, fit = projection(problem, denoised, settings.cg_steps, settings.tolerance)
    return towards(noise_key, x, image, *prior_step(settings, noise)), fit
