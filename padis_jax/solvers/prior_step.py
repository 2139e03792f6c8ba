"""What the prior does to the state in a step: towards D = denoise(x, sigma), with fresh noise z.

    x <- x + w (D - x) + s z

    kind        w                  s                       source
    langevin    eps / 2            sqrt(eps) sigma         alpha = eps sigma^2 of PaDIS (arXiv 2406.02462, algorithm 1)
    ancestral   1 - (t / sigma)^2  t sqrt(1 - (t/sigma)^2) t the next level (Song et al., arXiv 2011.13456, appendix F)

The noise of the state after an ancestral step is that of the next level, however far that is. A Langevin step
settles at its own level only after a few repetitions: on a ladder of few levels the state keeps more noise than the
network is told, and what the network then takes for structure stays in the image. An ancestral step does nothing
between equal levels, so it wants one step per level; its last step (t = 0) gives D.
"""

from __future__ import annotations

from typing import Literal

import jax
import jax.numpy as jnp
from jax import Array

from padis_jax.solvers.sampling import Noise

PriorStep = Literal["langevin", "ancestral"]
PRIOR_STEPS = ("langevin", "ancestral")


def check_prior_step(method: str, kind: str) -> None:
    """Raises ValueError for an unknown kind."""
    if kind not in PRIOR_STEPS:
        raise ValueError(f"{method}: prior_step is {kind!r}: use one of {', '.join(PRIOR_STEPS)}")


def towards(kind: PriorStep, eps: float | Array, noise: Noise) -> Array:
    """w of the table above."""
    if kind == "langevin":
        return jnp.asarray(eps) / 2
    return 1 - jnp.square(noise.sigma_next / noise.sigma)


def prior_step(
    key: Array,
    x: Array,
    denoised: Array,
    noise: Noise,
    *,
    kind: PriorStep = "langevin",
    eps: float | Array = 1.0,
    last_level_noise: bool = True,
) -> Array:
    """One step of the table above.

    Args:
      key: of z.
      x: plane [Hp, Wp, C].
      denoised: D, likewise.
      noise: this level and the next.
      kind: "langevin" or "ancestral".
      eps: of "langevin".
      last_level_noise: whether the lowest level of the ladder adds noise.

    Returns:
      The next plane.
    """
    weight = towards(kind, eps, noise)
    return x + weight * (denoised - x) + fresh_noise(key, x, noise, kind, eps, last_level_noise)


def fresh_noise(
    key: Array, x: Array, noise: Noise, kind: PriorStep, eps: float | Array, last_level_noise: bool
) -> Array:
    """s z of the table above, of the shape of x."""
    if kind == "langevin":
        spread = jnp.sqrt(eps) * noise.sigma
    else:
        spread = noise.sigma_next * jnp.sqrt(towards(kind, eps, noise))
    if not last_level_noise:
        spread = jnp.where(noise.final, 0.0, spread)
    return spread * jax.random.normal(key, x.shape, x.dtype)
