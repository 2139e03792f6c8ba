"""What tilings do to a trained prior: variance over tilings, and the error that averaging takes away."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from padis_jax.patches import tile, untile
from padis_jax.positions import plane_positions
from padis_jax.prior import Prior
from padis_jax.tilings import Tilings


class Moments(NamedTuple):
    """Of one noise level, squared image units per pixel, means over images and draws.

    Attributes:
      sigma: the level.
      one: mean squared error of the denoised image of one tiling.
      average: of the mean over the tilings that were computed.
      variance: of one tiling's denoised image over the tilings, unbiased.
    """

    sigma: float
    one: float
    average: float
    variance: float


def offsets_of(prior: Prior, count: int | None, seed: int) -> np.ndarray:
    """Offsets [T, 2] of all tilings, or of `count` different ones."""
    rows, columns = (max(1, m) for m in prior.frame.margin)
    every = np.stack(np.divmod(np.arange(rows * columns), columns), -1)
    return every if count is None else np.random.default_rng(seed).choice(every, count, replace=False)


@jax.jit
def each_tiling(prior: Prior, offsets: Array, image: Array, sigma: Array) -> Array:
    """The denoised images [T, H, W, C] of a noisy plane [Hp, Wp, C], one for each offset."""
    tilings = prior.denoise
    assert isinstance(tilings, Tilings)
    positions = jnp.asarray(plane_positions(prior.frame.padded_shape))

    def one(offset: Array) -> Array:
        patches = tile(prior.frame, image, offset)
        where = tile(prior.frame, positions, offset)
        clean = tilings.denoise(patches, where, jnp.broadcast_to(sigma, patches.shape[:1]))
        return prior.frame.crop(untile(prior.frame, clean, offset))

    return jax.lax.map(one, offsets)


def moments(
    prior: Prior, images: np.ndarray, sigmas: Sequence[float], *, seeds: Sequence[int] = (0,), count: int | None = None
) -> list[Moments]:
    """Of images [n, H, W, C], each with fresh noise for each seed.

    Args:
      prior: of random tilings.
      images: clean.
      sigmas: noise levels.
      seeds: of the noise, and of the offsets where not all are taken.
      count: tilings for each noisy image, at least 2; None for all.
    """
    found = []
    for sigma in sigmas:
        errors = []
        for seed in seeds:
            offsets = jnp.asarray(offsets_of(prior, count, seed))
            for index, image in enumerate(images):
                clean = prior.frame.pad(jnp.asarray(image))
                key = jax.random.fold_in(jax.random.key(seed), index)
                noisy = clean + sigma * jax.random.normal(key, clean.shape)
                each = np.asarray(each_tiling(prior, offsets, noisy, jnp.float32(sigma)), np.float64)
                mean = each.mean(0)
                errors.append(
                    (np.mean((each - image) ** 2), np.mean((mean - image) ** 2), np.mean(each.var(0, ddof=1)))
                )
        one, average, variance = np.mean(errors, axis=0)
        found.append(Moments(float(sigma), float(one), float(average), float(variance)))
    return found
