"""DiffPIR: half-quadratic splitting along the noise levels (Zhu et al., arXiv 2305.08995, algorithm 1), in the
variance-exploding form.

    D = denoise(x, sigma)
    u = argmin_u  ||y - A u||^2 + rho ||u - D||^2,      rho = max(lambda (s / sigma)^2, floor ||A||^2)
    x = u + sigma_next (sqrt(1 - zeta) (x - u) / sigma + sqrt(zeta) z),     z standard normal

s is the standard deviation of the noise of y. The paper has no floor: without noise its rho is 0, u = D + A+(y - A D)
as in DDNM; with little noise the system's condition number ||A||^2 / rho is large at the high levels. The minimum is
found by CG from D (estimates.proximal), whose steps go with the root of that number, so rho stays above floor ||A||^2:
at the default, 20 steps are within some percent of the minimum in 20-view CT. (A floor of s instead would let rho grow
as sigma falls, until exact data count for little at the last levels.) Against DDS: the solution is meant to be exact,
and the noise that is kept is that of x about u, not about D.

Cost per step: one evaluation, no gradient; cg_steps + 2 pairs of A and A*.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
from jax import Array

from padis_jax.solvers.checks import check_settings
from padis_jax.solvers.estimates import proximal
from padis_jax.solvers.problem import Fit, Problem
from padis_jax.solvers.sampling import Noise
from padis_jax.solvers.transitions import ddim


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class DiffPIR:
    """Settings. The real-valued ones are arguments of the compiled step, so a search over them compiles once.

    Source: Zhu et al., arXiv 2305.08995, algorithm 1: u minimises ||y - A u||^2 + max(weight (noise / sigma)^2,
    floor ||A||^2) ||u - D||^2.

    >>> import padis_jax as pj
    >>> pj.DiffPIR(weight=4.0, zeta=0.0).zeta  # reconstruct(key, y, A, prior, solver=...)
    0.0

    Attributes:
      weight: lambda, trust in D against the data; the paper's are 1 to 25.
      zeta: share of fresh noise in the variance, 0 (deterministic) to 1.
      noise: s, in the units of y.
      floor: smallest rho, relative to ||A||^2; positive.
      cg_steps: CG steps per step.

    Raises:
      ValueError: for a field of another type or outside of its interval: weight (0, inf], zeta [0, 1], noise [0,
        inf], floor (0, inf], cg_steps [1, inf].
    """

    weight: float | Array = 8.0
    zeta: float | Array = 0.3
    noise: float | Array = 0.0
    floor: float | Array = 2e-3
    cg_steps: int = dataclasses.field(default=20, metadata={"static": True})

    def __post_init__(self) -> None:
        check_settings(self, weight="(0, inf]", zeta="[0, 1]", noise="[0, inf]", floor="(0, inf]", cg_steps="[1, inf]")


def step(settings: DiffPIR, problem: Problem, key: Array, x: Array, noise: Noise) -> tuple[Array, Fit]:
    """One noise level; x is a plane [Hp, Wp, C]. Returns the plane at noise.sigma_next and the residual of D."""
    tiling_key, noise_key = jax.random.split(key)
    denoised = problem.denoised(tiling_key, x, noise.sigma)
    least = settings.floor * jnp.square(problem.norm)
    weight = jnp.maximum(settings.weight * jnp.square(settings.noise / noise.sigma), least)
    image, fit = proximal(problem, denoised, weight, settings.cg_steps)
    share = jnp.asarray(settings.zeta)

    def moved(image: Array, x: Array, z: Array) -> Array:
        return ddim(z, x, image, noise, about=image, kept=jnp.sqrt(1 - share), fresh=jnp.sqrt(share))

    return problem.mixed(moved, noise_key, image, x), fit
