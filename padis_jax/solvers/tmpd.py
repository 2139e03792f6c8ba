"""Tweedie moment projected diffusions: the denoiser's own derivative as the covariance of its error (Boys et al.,
arXiv 2310.06721, equations 7 and 8).

At each noise level

    D = denoise(x, sigma)
    C = sigma^2 dD/dx                                        the covariance of the clean image given x (Tweedie)
    u = D + C A* (A C A* + s^2)^-1 (y - A D)                 s^2 = noise^2 + (floor ||A|| sigma)^2
    x = pad(u) + sigma_next z                                (transitions.renoise)

The first two moments of the clean image given x are D and C, so u is its mean given x and y wherever the clean images
are Gaussian. DDS and DiffPIR take C for a multiple of the identity; here the network says which changes of the image
are likely, so that a change that y asks for moves whole shapes rather than the pixels that the rays meet. (The paper
replaces C by a diagonal for speed; this is the full C, which it states first.)

The inverse is a few CG steps in the space of y. Each applies C, which is one vector-Jacobian product of the network: C
is symmetric and has no negative eigenvalues, as a covariance; a network's derivative is nearly so, and CG ends where it
is not: at a direction in which A C A* + s^2 is less than s^2 / 2. A level costs one evaluation and cg_steps + 2
vector-Jacobian products, all of them counted as evaluations, and as many pairs of A and A* as products. Few steps also
keep u from following what no covariance explains.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
from jax import Array

from padis_jax.operators.least_squares import conjugate_gradient
from padis_jax.solvers.checks import check_settings
from padis_jax.solvers.problem import Fit, Problem
from padis_jax.solvers.sampling import Noise
from padis_jax.solvers.transitions import renoise


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TMPD:
    """Settings. The real-valued ones are arguments of the compiled step, so a search over them compiles once.

    Source: Boys et al., arXiv 2310.06721, equations 7 and 8: u = D + C A* (A C A* + s^2)^-1 (y - A D), C = sigma^2
    dD/dx.

    >>> import padis_jax as pj
    >>> pj.TMPD(cg_steps=2).cg_steps  # reconstruct(key, y, A, prior, solver=...)
    2

    Attributes:
      noise: standard deviation of the noise of y, in the units of y.
      floor: what of the denoiser's error its derivative does not tell, relative to ||A|| sigma; its square adds to s^2.
      cg_steps: CG steps per level.
      low: u is clipped at this value from below.
      high: and at this from above.

    Raises:
      ValueError: for a field of another type or outside of its interval and unless low is below high: noise [0,
        inf], floor [0, inf], cg_steps [1, inf].
    """

    noise: float | Array = 0.0
    floor: float | Array = 1e-2
    cg_steps: int = dataclasses.field(default=5, metadata={"static": True})
    low: float | Array = -float("inf")
    high: float | Array = float("inf")

    def __post_init__(self) -> None:
        check_settings(self, noise="[0, inf]", floor="[0, inf]", cg_steps="[1, inf]")
        if isinstance(self.low, (int, float)) and isinstance(self.high, (int, float)) and not self.low < self.high:
            raise ValueError(f"TMPD: low is {self.low} and high is {self.high}: low must be below high")


def step(settings: TMPD, problem: Problem, key: Array, x: Array, noise: Noise) -> tuple[Array, Fit]:
    """One noise level; x is a plane [Hp, Wp, C]. Returns the plane at noise.sigma_next and the residual of D."""
    tiling_key, noise_key = jax.random.split(key)
    frame = problem.frame
    denoised, pull = jax.vjp(lambda plane: problem.denoised(tiling_key, plane, noise.sigma), x)
    clean = frame.crop(denoised)
    residual = problem.residual(clean)

    def spread(r: Array) -> Array:  # C A* r
        return jnp.square(noise.sigma) * frame.crop(pull(frame.pad(problem.adjoint(r)))[0])

    variance = jnp.square(settings.noise) + jnp.square(settings.floor * problem.norm * noise.sigma)
    weights = conjugate_gradient(
        lambda r: problem.forward(spread(r)) + variance * r,
        residual,
        jnp.zeros_like(residual),
        settings.cg_steps,
        least=variance / 2,
    )
    image = jnp.clip(clean + spread(weights), settings.low, settings.high)
    return renoise(noise_key, frame.pad(image), noise), problem.fit(residual)
