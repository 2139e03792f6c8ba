"""Memory of a reconstruction, foretold by the compiler, and the largest chunk of patches that a device can hold.

A step needs what is as large as the plane (the state, the operator's work), and what the network needs for the patches
it works on at once: bytes(b) = fixed + b * per patch. Two small programs give both numbers; the chosen program is then
compiled, and its own analysis is what is printed.
"""

from __future__ import annotations

import dataclasses
import os
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from padis_jax.denoiser import denoise_patches
from padis_jax.errors import UserError
from padis_jax.unet import NetworkConfig, Params

SHARE = 0.7  # of the free memory that a chunk may take; the rest is for the operator, the compiler and fragmentation
PROBES = (2, 4)  # patches of the two small programs


@dataclasses.dataclass(frozen=True)
class Memory:
    """What XLA foretells for one call of a compiled program, in bytes.

    Attributes:
      temporary: buffers that live during the call.
      arguments: what it is given.
      results: what it returns.
    """

    temporary: int
    arguments: int
    results: int

    @property
    def total(self) -> int:
        """All of it."""
        return self.temporary + self.arguments + self.results


def analysed(compiled: Any) -> Memory:
    """The analysis of a compiled program (`jax.jit(f).lower(...).compile()`).

    Raises:
      UserError: where the backend has none.
    """
    found = compiled.memory_analysis()
    if found is None:
        raise UserError("this backend does not tell the memory of a program: give --patch-batch a number")
    return Memory(found.temp_size_in_bytes, found.argument_size_in_bytes, found.output_size_in_bytes)


def free_memory() -> int:
    """Bytes that the first device of this process can still hold; for the CPU, what the machine has available."""
    device = jax.local_devices()[0]
    stats = device.memory_stats()
    if stats and "bytes_limit" in stats:
        return int(stats["bytes_limit"] - stats.get("bytes_in_use", 0))
    try:
        return _available()
    except (OSError, ValueError, AttributeError) as error:
        raise UserError(
            f"the free memory of {device.device_kind} is not known here ({error}): give --patch-batch a number"
        ) from error


def network_memory(config: NetworkConfig, params: Params, patch: int, count: int, *, gradient: bool) -> Memory:
    """The network on `count` patches of `patch` pixels, and its gradient in them if asked; compiled, not run."""

    def denoise(params: Params, x: Array, where: Array, sigma: Array) -> Array:
        return denoise_patches(config, params, x, where, sigma)

    def pull_back(params: Params, x: Array, where: Array, sigma: Array) -> Any:
        clean, transpose = jax.vjp(lambda x: denoise(params, x, where, sigma), x)
        return transpose(clean)

    shape = (count, patch, patch)
    arrays = [jax.ShapeDtypeStruct((*shape, config.image_channels), jnp.float32)]
    arrays += [jax.ShapeDtypeStruct((*shape, 2), jnp.float32), jax.ShapeDtypeStruct((count,), jnp.float32)]
    shapes = jax.tree.map(lambda a: jax.ShapeDtypeStruct(jnp.shape(a), jnp.result_type(a)), params)
    return analysed(jax.jit(pull_back if gradient else denoise).lower(shapes, *arrays).compile())


def choose_patch_batch(
    config: NetworkConfig,
    params: Params,
    patch: int,
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
      patch: side of a patch.
      count: patches in one call of the prior; more are never needed at a time.
      gradient: whether the solver differentiates the network (DPS).
      images: images that are worked on side by side, each with as many patches at a time.
      limit: bytes; None for `SHARE` of `free_memory()`.

    Returns:
      (patches at a time, foretold bytes of the network's part).

    Raises:
      UserError: if not even one patch fits.
    """
    limit = int(SHARE * free_memory()) if limit is None else limit
    few, more = (network_memory(config, params, patch, b, gradient=gradient).total for b in PROBES)
    one = max(1, (more - few) // (PROBES[1] - PROBES[0]))
    fixed, each = max(0, few - PROBES[0] * one), one * images
    fit = min(count, (limit - fixed) // each)
    if fit < 1:
        raise UserError(
            f"patch_batch: one patch of {patch} pixels needs {(fixed + each) / 2**20:.0f} MiB, but {limit / 2**20:.0f} "
            "MiB may be taken; free memory, or use a smaller network or patch"
        )
    chunks = -(-count // fit)
    fit = -(-count // chunks)  # the prior makes chunks of equal size
    return fit, fixed + fit * each


def _available() -> int:
    with open("/proc/meminfo", encoding="ascii") as lines:
        for line in lines:
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES")
