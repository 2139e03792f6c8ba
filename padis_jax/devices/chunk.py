"""The largest chunk of patches that a device can hold, by what the compiler foretells of the network.

A step needs what is as large as the plane (the state, the operator's work), and what the network needs for the patches
it works on at once: bytes(b) = fixed + b * per patch. Two small programs give both numbers.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from padis_jax.denoiser import denoise_patches
from padis_jax.devices.memory import Memory, analysed, free_memory
from padis_jax.errors import UserError
from padis_jax.unet import NetworkConfig, Params

SHARE = 0.7  # of the free memory that a chunk may take; the rest is for the operator, the compiler and fragmentation
PROBES = (2, 4)  # patches of the two small programs


def compile_network(
    config: NetworkConfig, params: Params, sides: tuple[int, int], count: int, *, gradient: bool
) -> jax.stages.Compiled:
    """The network on `count` patches of `sides` pixels, and its gradient in them if asked.

    Args:
      config: network.
      params: its parameters, or their shapes.
      sides: of a patch.
      count: patches.
      gradient: whether the solver differentiates the network (DPS).

    Returns:
      (params, patches [count, *sides, C], positions [count, *sides, 2], sigma [count]) -> patches or their gradient.
    """

    def denoise(params: Params, x: Array, where: Array, sigma: Array) -> Array:
        return denoise_patches(config, params, x, where, sigma)

    def pull_back(params: Params, x: Array, where: Array, sigma: Array) -> Any:
        clean, transpose = jax.vjp(lambda x: denoise(params, x, where, sigma), x)
        return transpose(clean)

    shape = (count, *sides)
    arrays = [jax.ShapeDtypeStruct((*shape, config.image_channels), jnp.float32)]
    arrays += [jax.ShapeDtypeStruct((*shape, 2), jnp.float32), jax.ShapeDtypeStruct((count,), jnp.float32)]
    shapes = jax.tree.map(lambda a: jax.ShapeDtypeStruct(jnp.shape(a), jnp.result_type(a)), params)
    return jax.jit(pull_back if gradient else denoise).lower(shapes, *arrays).compile()


def network_memory(
    config: NetworkConfig, params: Params, sides: tuple[int, int], count: int, *, gradient: bool
) -> Memory:
    """What `compile_network` takes."""
    return analysed(compile_network(config, params, sides, count, gradient=gradient))


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
    few, more = (network_memory(config, params, sides, b, gradient=gradient).total for b in PROBES)
    one = max(1, (more - few) // (PROBES[1] - PROBES[0]))
    fixed, each = max(0, few - PROBES[0] * one), one * images
    fit = min(count, (limit - fixed) // each)
    if fit < 1:
        raise UserError(
            f"patch_batch: one patch of {sides[0]} x {sides[1]} pixels needs {(fixed + each) / 2**20:.0f} MiB, but "
            f"{limit / 2**20:.0f} MiB may be taken; free memory, or use a smaller network or patch"
        )
    chunks = -(-count // fit)
    fit = -(-count // chunks)  # the prior makes chunks of equal size
    return fit, fixed + fit * each
