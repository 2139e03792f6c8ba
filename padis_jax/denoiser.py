"""EDM preconditioning: from a raw network F to a denoiser D of patches with positions (arXiv 2206.00364, table 1).

    D(x, sigma) = c_skip x + c_out F([c_in x, position], c_noise)
    c_skip = s^2 / (sigma^2 + s^2)      c_out = sigma s / sqrt(sigma^2 + s^2)
    c_in = 1 / sqrt(sigma^2 + s^2)      c_noise = ln(sigma) / 4            s = sigma_data

Positions are neither noised nor scaled (PaDIS, section 3.2). The score follows by Tweedie: (D - x) / sigma^2.
"""

from __future__ import annotations

from collections.abc import Callable

import jax.numpy as jnp
from jax import Array

from padis_jax.fields import single
from padis_jax.unet import NetworkConfig, Params, apply_network


def denoise_patches(
    config: NetworkConfig,
    params: Params,
    patches: Array,
    positions: Array,
    sigma: Array,
    *,
    dropout_key: Array | None = None,
) -> Array:
    """The expected clean patches given noisy ones.

    Args:
      config: the network's config; static under jit.
      params: the network's parameters.
      patches: [b, p, p, c] = clean + sigma * standard normal noise, in image units.
      positions: [b, p, p, 2] from `positions.plane_positions`, cropped with the patches; ignored by a network with
        position_channels = 0. [b, p, p, 3], with z, for one that has 3.
      sigma: [b], noise levels in image units, positive.
      dropout_key: switches dropout on (training).

    Returns:
      [b, p, p, c], float32.

    Raises:
      ValueError: if shapes do not fit each other or the config.
    """
    if patches.ndim != 4:
        raise ValueError(f"patches must be [b, p, p, c], got {patches.shape}")
    patches, positions, sigma = single(patches), single(positions), single(sigma)
    b, *sides, c = patches.shape
    if c != config.image_channels:
        raise ValueError(f"patches have {c} channels, but the network was made for {config.image_channels}")
    seen = max(2, config.position_channels)
    if positions.shape != (b, *sides, seen) or sigma.shape != (b,):
        raise ValueError(
            f"patches {patches.shape} need positions {(b, *sides, seen)} and sigma {(b,)}, "
            f"got {positions.shape} and {sigma.shape}"
        )
    for side in sides:
        config.check_patch(side)

    def network(scaled: Array, label: Array) -> Array:
        x = jnp.concatenate([scaled, positions], axis=-1) if config.position_channels else scaled
        return apply_network(config, params, x, label, dropout_key=dropout_key)

    return preconditioned(network, config.sigma_data, patches, sigma)


def preconditioned(network: Callable[[Array, Array], Array], sigma_data: float, patches: Array, sigma: Array) -> Array:
    """D of any network F.

    Args:
      network: F: (c_in x [b, p, p, c], c_noise [b]) -> [b, p, p, c].
      sigma_data: s, standard deviation of the data, in image units.
      patches: x, noisy, [b, p, p, c] float32.
      sigma: [b].
    """
    s2, d2 = jnp.square(sigma)[:, None, None, None], sigma_data**2
    raw = network(patches / jnp.sqrt(s2 + d2), jnp.log(sigma) / 4)
    return d2 / (s2 + d2) * patches + jnp.sqrt(s2) * sigma_data / jnp.sqrt(s2 + d2) * raw
