"""Images from the prior alone, by annealed Langevin dynamics without a measurement (PaDIS, arXiv 2406.02462).

    x_0 = sigma_max z
    x <- x + alpha/2 (D - x) / sigma^2 + sqrt(alpha) z      D = denoise(x, sigma),   alpha = eps sigma^2

along a ladder of noise levels; the last level adds no noise. It takes many small steps, some 300: with few, the seams
of the tilings stay.

Cost per step: one evaluation, no gradient.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.tree_util import Partial

from padis_jax.fields import check_count, check_real, single
from padis_jax.keys import root_key
from padis_jax.noise import geometric_ladder
from padis_jax.prior import Prior
from padis_jax.solvers import sampling
from padis_jax.solvers.checks import check_prior
from padis_jax.solvers.sampling import Noise
from padis_jax.solvers.transitions import langevin, towards


class Removed(NamedTuple):
    """What a step reports.

    Attributes:
      noise: ||x - D|| / (sigma sqrt(n)): about 1 while x holds the noise that its level says.
    """

    noise: Array


def step(
    eps: Array, denoise: Callable[[Array, Array, Array], Array], key: Array, x: Array, noise: Noise
) -> tuple[Array, Removed]:
    """One step at noise level noise.sigma; x is a plane [Hp, Wp, C]."""
    tiling_key, noise_key = jax.random.split(key)
    denoised = single(denoise(tiling_key, x, noise.sigma))
    removed = jnp.sqrt(jnp.mean(jnp.square(x - denoised))) / noise.sigma
    weight, spread = langevin(noise, eps)
    return towards(noise_key, x, denoised, weight, jnp.where(noise.final, 0.0, spread)), Removed(removed)


def generate(
    key: Array | int,
    prior: Prior,
    *,
    levels: int = 300,
    inner: int = 1,
    sigma_max: float = 10.0,
    sigma_min: float = 0.003,
    eps: float = 1.0,
    progress: sampling.Progress | None = None,
) -> Array:
    """One image from the prior. For several use `vmap`, or fold_in(key, index) one after the other.

    >>> import padis_jax as pj
    >>> from padis_jax.patches import frame_for
    >>> from padis_jax.prior import Prior
    >>> prior = Prior(lambda key, plane, sigma: plane / (1 + sigma**2), frame_for((8, 8), 4))  # of white images
    >>> pj.generate(0, prior, levels=5).shape
    (8, 8, 1)

    Args:
      key: root key of this image, or an int for jax.random.key(int).
      prior: whole-image denoiser and frame.
      levels: noise levels, geometric from sigma_max to sigma_min.
      inner: steps per level.
      sigma_max: first noise level, in image units.
      sigma_min: last noise level.
      eps: Langevin step, alpha = eps sigma^2, below 4.
      progress: called with (steps done, steps in all, info).

    Returns:
      [H, W, C], in the prior's image units, not clipped.

    Raises:
      ValueError: if a setting is out of range.
    """
    check_prior(prior)
    check_count("inner", inner)
    check_real("eps", eps)
    if not 0 < eps < 4:
        raise ValueError(f"generate: eps is {eps}: it must be above 0 and below 4")
    noises = sampling.noises(geometric_ladder(levels, sigma_max, sigma_min), inner)
    start_key, run_key = jax.random.split(root_key(key))
    x = sigma_max * jax.random.normal(start_key, (*prior.frame.padded_shape, prior.channels), jnp.float32)
    x, _ = sampling.run(run_key, Partial(step, jnp.float32(eps), prior.denoise), x, noises, progress=progress)
    return prior.frame.crop(x)
