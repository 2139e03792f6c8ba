"""Decomposed diffusion sampling: data consistency by conjugate gradients (Chung et al., arXiv 2303.05754, algorithm 1).

At each noise level

    D = denoise(x, sigma)
    u = a few CG steps from D on  min_u  ||y - A u||^2 + lambda ||u - D||^2,   (A*A + lambda) (u - D) = A*(y - A D)
    x = pad(u) + sigma_next (sqrt(1 - eta^2) (x - D) / sigma + eta z),     z standard normal

The network is not differentiated: a level costs one evaluation, and cg_steps + 2 pairs of A and A*. The few CG steps
act as a regulariser of their own. The clean value outside of the image is known to be 0, so u is padded with zeros.
eta = 1 draws all noise anew, which also forgets the seams of the last tiling; eta = 0 is the deterministic sampler
of DDIM (arXiv 2010.02502).

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

from padis_jax.operators.least_squares import conjugate_gradient
from padis_jax.solvers.problem import Fit, Problem
from padis_jax.solvers.sampling import Noise


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class DDS:
    """Settings. The real-valued ones are arguments of the compiled step, so a search over them compiles once.

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
    """

    consistency: float | Array = 2e-3
    cg_steps: int = dataclasses.field(default=5, metadata={"static": True})
    eta: float | Array = 1.0
    noise: float | Array = 0.0
    kappa: float | Array = 1.0
    nonnegative: bool = dataclasses.field(default=False, metadata={"static": True})

    def __post_init__(self) -> None:
        for name, low, high in (
            ("consistency", 0, float("inf")),
            ("cg_steps", 1, float("inf")),
            ("eta", 0, 1),
            ("noise", 0, float("inf")),
        ):
            value = getattr(self, name)
            if isinstance(value, (int, float)) and not low <= value <= high:
                raise ValueError(f"DDS: {name} is {value}: it must be between {low} and {high}")
        if isinstance(self.kappa, (int, float)) and not self.kappa > 0:
            raise ValueError(f"DDS: kappa is {self.kappa}: it must be positive")


def step(settings: DDS, problem: Problem, key: Array, x: Array, noise: Noise) -> tuple[Array, Fit]:
    """One noise level.

    Args:
      settings: weights and counts.
      problem: operator, measurement, denoiser, frame.
      key: of this step.
      x: [Hp, Wp, C], the state at noise level noise.sigma.
      noise: this level and the next.

    Returns:
      The state at noise level noise.sigma_next, and the residual of D.
    """
    tiling_key, noise_key = jax.random.split(key)
    frame = problem.frame
    denoised = problem.denoise(tiling_key, x, noise.sigma)
    clean = frame.crop(denoised)
    residual = problem.measurement - problem.forward(clean)

    weight = settings.consistency * jnp.square(problem.operator.norm)
    weight = weight + jnp.square(settings.noise / (settings.kappa * noise.sigma))
    update = conjugate_gradient(
        lambda v: problem.normal(v) + weight * v,
        problem.adjoint(residual, clean.shape[-1]),
        jnp.zeros_like(clean),
        settings.cg_steps,
    )
    image = clean + update
    if settings.nonnegative:
        image = jnp.maximum(image, 0)

    fresh = settings.eta * jax.random.normal(noise_key, x.shape, x.dtype)
    kept = jnp.sqrt(1 - jnp.square(settings.eta)) * (x - denoised) / noise.sigma
    return frame.pad(image) + noise.sigma_next * (kept + fresh), problem.fit(residual)
