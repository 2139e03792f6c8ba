"""The largest chunk of patches that a device can hold, by the estimated memory of the network.

A step needs what is as large as the plane (the state, the operator's work), and what the network needs for the patches
it works on at once. As that is a maximum of straight lines in their number b, a chord is never below it:

    bytes(b) <= bytes(1) + (b - 1) (bytes(n) - bytes(1)) / (n - 1),    1 <= b <= n.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from padis_jax.denoiser import denoise_patches
from padis_jax.devices.footprint import footprint
from padis_jax.devices.memory import free_memory
from padis_jax.errors import UserError
from padis_jax.unet import NetworkConfig, Params

# Of the free memory that a chunk may take. The estimate is good to a quarter, XLA's convolutions take up to another
# quarter (docs/performance.md); the rest is for the operator and fragmentation.
SHARE = 0.6


def network_call(
    config: NetworkConfig, params: Params, sides: tuple[int, int], count: int, *, gradient: bool
) -> tuple[Callable[..., Any], tuple[Any, ...]]:
    """The network on patches of `sides` pixels, or its gradient in them, and the shapes of its arguments.

    Args:
      config: network.
      params: its parameters, or their shapes.
      sides: of a patch.
      count: patches.
      gradient: whether the solver differentiates the network (DPS).

    Returns:
      (params, patches [count, *sides, C], positions [count, *sides, 2 or 3], sigma [count]) -> patches or their
      gradient; shapes of these four.
    """

    def denoise(params: Params, x: Array, where: Array, sigma: Array) -> Array:
        return denoise_patches(config, params, x, where, sigma)

    def pull_back(params: Params, x: Array, where: Array, sigma: Array) -> Any:
        clean, transpose = jax.vjp(lambda x: denoise(params, x, where, sigma), x)
        return transpose(clean)

    seen = max(2, config.position_channels)
    sizes = ((count, *sides, config.image_channels), (count, *sides, seen), (count,))
    shapes = jax.tree.map(lambda a: jax.ShapeDtypeStruct(jnp.shape(a), jnp.result_type(a)), params)
    return pull_back if gradient else denoise, (shapes, *(jax.ShapeDtypeStruct(size, jnp.float32) for size in sizes))


def network_memory(config: NetworkConfig, params: Params, sides: tuple[int, int], count: int, *, gradient: bool) -> int:
    """Bytes of a `network_call`, estimated."""
    f, shapes = network_call(config, params, sides, count, gradient=gradient)
    return footprint(f, *shapes).total


def choose_patch_batch(
    config: NetworkConfig,
    params: Params,
    sides: tuple[int, int],
    count: int,
    *,
    gradient: bool,
    images: int = 1,
    limit: int | None = None,
) -> tuple[int, int]:
    """The most patches at a time that fit.

    Args:
      config: network.
      params: its parameters, or their shapes.
      sides: of a patch.
      count: patches in one call of the prior; more are never needed at a time.
      gradient: whether the solver differentiates the network (DPS).
      images: images that are worked on side by side, each with as many patches at a time.
      limit: bytes; None for `SHARE` of `free_memory()`.

    Returns:
      (patches at a time, estimated bytes of the network's part).

    Raises:
      UserError: if not even one patch fits.
    """
    limit = int(SHARE * free_memory()) if limit is None else limit
    most = max(2, count)
    one, all_of_them = (network_memory(config, params, sides, b, gradient=gradient) for b in (1, most))
    each = (all_of_them - one) // (most - 1)
    fixed, each = max(0, one - each), each * images
    fit = min(count, (limit - fixed) // each)
    if fit < 1:
        raise UserError(
            f"patch_batch: one patch of {sides[0]} x {sides[1]} pixels needs {(fixed + each) / 2**20:.0f} MiB, but "
            f"{limit / 2**20:.0f} MiB may be taken; free memory, or use a smaller network or patch"
        )
    chunks = -(-count // fit)
    fit = -(-count // chunks)  # the prior makes chunks of equal size
    return fit, fixed + fit * each
