"""Decomposed diffusion sampling: data consistency by conjugate gradients (Chung et al., arXiv 2303.05754, algorithm 1).

At each noise level

    D = denoise(x, sigma)
    u = a few CG steps from D on  min_u  ||y - A u||^2 + lambda ||u - D||^2             (estimates.proximal)
    x = u + sigma_next (sqrt(1 - eta^2) (x - D) / sigma + eta z),   z standard normal   (transitions.ddim)

The network is not differentiated: a level costs one evaluation, and cg_steps + 2 pairs of A and A*. The few CG steps
act as a regulariser of their own. eta = 1 draws all noise afresh, which also forgets the seams of the last tiling;
eta = 0 is the deterministic sampler of DDIM (arXiv 2010.02502).

    lambda = consistency ||A||^2 + (noise / (kappa sigma))^2

The second term is Bayes' rule: with white noise of deviation s in y and an error of deviation tau in D, the most
probable u minimises ||y - A u||^2 / (2 s^2) + ||u - D||^2 / (2 tau^2), so lambda = (s / tau)^2, and tau = kappa
sigma. It matters at the low levels, where D becomes reliable and fitting y further would fit its noise.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
from jax import Array

from padis_jax.solvers.checks import check_settings, renamed
from padis_jax.solvers.estimates import proximal
from padis_jax.solvers.problem import Fit, Problem
from padis_jax.solvers.sampling import Noise
from padis_jax.solvers.transitions import ddim


@renamed(churn="eta")
@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class DDS:
    """Settings. The real-valued ones are arguments of the compiled step, so a search over them compiles once.

    Source: Chung et al., arXiv 2303.05754, algorithm 1; the weight lambda = consistency ||A||^2 + (noise / (kappa
    sigma))^2 is Bayes' rule (the module's text).

    >>> import padis_jax as pj
    >>> pj.DDS(consistency=1e-3, eta=0.85).consistency  # reconstruct(key, y, A, prior, solver=...)
    0.001

    Attributes:
      consistency: lambda relative to ||A||^2.
      cg_steps: CG steps per level.
      eta: share of fresh noise, 0 to 1.
      noise: standard deviation of the noise of y, in the units of y; 0 leaves lambda constant.
      kappa: error of the denoised image relative to sigma; used with `noise`.
      nonnegative: clip u at 0.

    Raises:
      ValueError: for a field of another type or outside of its interval: consistency [0, inf], cg_steps [1, inf],
        eta [0, 1], noise [0, inf], kappa (0, inf].
    """

    consistency: float | Array = 2e-3
    cg_steps: int = dataclasses.field(default=5, metadata={"static": True})
    eta: float | Array = 1.0
    noise: float | Array = 0.0
    kappa: float | Array = 1.0
    nonnegative: bool = dataclasses.field(default=False, metadata={"static": True})

    def __post_init__(self) -> None:
        check_settings(
            self, consistency="[0, inf]", cg_steps="[1, inf]", eta="[0, 1]", noise="[0, inf]", kappa="(0, inf]"
        )


def step(settings: DDS, problem: Problem, key: Array, x: Array, noise: Noise) -> tuple[Array, Fit]:
    """One noise level; x is a plane [Hp, Wp, C]. Returns the plane at noise.sigma_next and the residual of D."""
    tiling_key, noise_key = jax.random.split(key)
    denoised = problem.denoised(tiling_key, x, noise.sigma)
    weight = settings.consistency * jnp.square(problem.norm)
    weight = weight + jnp.square(settings.noise / (settings.kappa * noise.sigma))
    image, fit = proximal(problem, denoised, weight, settings.cg_steps)
    if settings.nonnegative:
        image = jnp.maximum(image, 0)
    kept = jnp.sqrt(1 - jnp.square(settings.eta))

    def moved(image: Array, x: Array, denoised: Array, z: Array) -> Array:
        return ddim(z, x, image, noise, about=denoised, kept=kept, fresh=settings.eta)

    return problem.mixed(moved, noise_key, image, x, denoised), fit
