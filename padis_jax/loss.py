"""The training loss: weighted denoising error of patches with positions (PaDIS, equation 9; EDM weight).

    L = mean over patches, pixels and channels of  weight(sigma) (D(x + sigma z, position, sigma) - x)^2

A mean over pixels, so that large patches do not dominate small ones.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array

from padis_jax.denoiser import denoise_patches
from padis_jax.fields import single
from padis_jax.noise import NoiseConfig, draw_sigma, loss_weight
from padis_jax.unet import NetworkConfig, Params


def denoising_loss(
    key: Array,
    network: NetworkConfig,
    noise: NoiseConfig,
    params: Params,
    patches: Array,
    positions: Array,
    *,
    train: bool = True,
    kept: Array | None = None,
) -> Array:
    """The loss of one batch.

    Args:
      key: draws the noise levels, the noise and the dropout.
      network: network config; static under jit.
      noise: how noise levels are drawn.
      params: network parameters.
      patches: [b, p, p, c], clean, in image units.
      positions: [b, p, p, 2], or 3 for a network that sees z.
      train: whether dropout is on.
      kept: [b, c], 1 for the channels that count and 0 for slices beyond the ends of a volume; None for all.

    Returns:
      A scalar.
    """

    def denoise(noisy: Array, sigma: Array, dropout_key: Array) -> Array:
        return denoise_patches(network, params, noisy, positions, sigma, dropout_key=dropout_key if train else None)

    return denoising_error(key, denoise, network.sigma_data, noise, patches, kept=kept)


def denoising_error(
    key: Array,
    denoise: Callable[[Array, Array, Array], Array],
    sigma_data: float,
    noise: NoiseConfig,
    patches: Array,
    *,
    kept: Array | None = None,
) -> Array:
    """The loss of one batch under any denoiser.

    Args:
      key: as of `denoising_loss`.
      denoise: (noisy [b, p, p, c], sigma [b], key of dropout) -> clean.
      sigma_data: standard deviation of the data, in image units.
      noise: how noise levels are drawn.
      patches: [b, p, p, c], clean.
      kept: as of `denoising_loss`.
    """
    patches = single(patches)
    sigma_key, noise_key, dropout_key = jax.random.split(key, 3)
    sigma = draw_sigma(sigma_key, noise, patches.shape[0])
    noisy = patches + sigma[:, None, None, None] * jax.random.normal(noise_key, patches.shape, jnp.float32)
    clean = denoise(noisy, sigma, dropout_key)
    weight = loss_weight(sigma, sigma_data)[:, None, None, None]
    error = weight * jnp.square(clean - patches)
    if kept is None:
        return jnp.mean(error)
    counted = jnp.broadcast_to(kept[:, None, None, :], error.shape)
    return jnp.sum(counted * error) / jnp.maximum(jnp.sum(counted), 1)


@dataclasses.dataclass(frozen=True)
class DenoisingLoss:
    """`denoising_loss` of a network and a distribution of noise levels, for `training.step`."""

    network: NetworkConfig
    noise: NoiseConfig = NoiseConfig()

    def __call__(self, params: Params, key: Array, patches: Array, positions: Array, *kept: Array) -> Array:
        """(params, key, patches [b, p, p, c], positions [b, p, p, 2], of slabs kept [b, c]) -> scalar."""
        if kept:
            return denoising_loss(key, self.network, self.noise, params, patches, positions, kept=kept[0])
        return denoising_loss(key, self.network, self.noise, params, patches, positions)
