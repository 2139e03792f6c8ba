"""Transitions: the next state from the state x, an estimate u of the clean image and noise z, (x, u) -> x'.

    transition  x'                                                     source
    langevin    x + eps/2 (u - x) + sqrt(eps) sigma z                  PaDIS (arXiv 2406.02462, algorithm 1)
    ancestral   x + w (u - x) + t sqrt(w) z,    w = 1 - (t / sigma)^2  Song et al., arXiv 2011.13456, appendix F
    ddim        u + t (k (x - v) / sigma + e z),    k^2 + e^2 = 1      Song et al., arXiv 2010.02502, equation 12
    renoise     u + t z                                                ddim with all noise fresh

with z standard normal, t the next level, eps sigma^2 the alpha of PaDIS, and v the image about which the noise of the
state is taken.

The noise of the state after an ancestral step is that of the next level, however far that is. A Langevin step
settles at its own level only after a few repetitions: on a ladder of few levels the state keeps more noise than the
network is told, and what the network then takes for structure stays in the image. An ancestral step does nothing
between equal levels, so it wants one step per level; its last step (t = 0) gives u.
"""

from __future__ import annotations

from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax import Array

from padis_jax.solvers.sampling import Noise

PriorStep = Literal["langevin", "ancestral"]


def langevin(noise: Noise, eps: float | Array) -> tuple[Array, Array]:
    """The weight of u - x and the deviation of the noise."""
    return jnp.asarray(eps) / 2, jnp.sqrt(eps) * noise.sigma


def ancestral(noise: Noise) -> tuple[Array, Array]:
    """The weight of u - x and the deviation of the noise."""
    weight = 1 - jnp.square(noise.sigma_next / noise.sigma)
    return weight, noise.sigma_next * jnp.sqrt(weight)


def prior_step(settings: Any, noise: Noise) -> tuple[Array, Array]:
    """Either of the two above, by the settings' `prior_step`, `eps` and `last_level_noise`."""
    weight, spread = langevin(noise, settings.eps) if settings.prior_step == "langevin" else ancestral(noise)
    return weight, spread if settings.last_level_noise else jnp.where(noise.final, 0.0, spread)


def towards(key: Array, x: Array, estimate: Array, weight: Array, spread: Array) -> Array:
    """x + weight (u - x) + spread z, planes [Hp, Wp, C]; key is that of z."""
    return x + weight * (estimate - x) + spread * jax.random.normal(key, x.shape, x.dtype)


def ddim(
    z: Array, x: Array, estimate: Array, noise: Noise, *, about: Array, kept: Array, fresh: float | Array
) -> Array:
    """u + t (kept (x - about) / sigma + fresh z), planes [Hp, Wp, C]; z is standard normal."""
    return estimate + noise.sigma_next * (kept * (x - about) / noise.sigma + fresh * z)


def renoise(key: Array, estimate: Array, noise: Noise) -> Array:
    """u + t z, planes [Hp, Wp, C]; key is that of z."""
    return estimate + noise.sigma_next * jax.random.normal(key, estimate.shape, estimate.dtype)
