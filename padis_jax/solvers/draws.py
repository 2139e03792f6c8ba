"""Standard normal noise of a volume, a part of its slices at a time.

`jax.random.normal` counts all numbers before it draws: with threefry, on a CPU, six arrays of the shape of the result,
more than the data step of a volume takes. But threefry's bits of a number depend on the key and its place alone,

    bits(key, i) = a XOR b,   (a, b) = threefry_2x32(key, (i >> 32, i mod 2^32))        (jax_threefry_partitionable)

so that slices can be drawn one after the other and are the same numbers, bit for bit.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.extend.random import threefry_2x32

PARTS = 16  # of the slices, one after the other

Mix = Callable[..., Array]  # (volumes, standard normal z) -> a volume; voxel by voxel


def in_parts(key: Array, volume: Array) -> bool:
    """Whether noise of a volume [slices, ...] can be drawn in parts: with threefry, for float32, of several slices."""
    counted = str(jax.random.key_impl(key)) == "threefry2x32" and jax.config.jax_threefry_partitionable  # type: ignore[attr-defined]
    return counted and volume.dtype == jnp.float32 and len(volume) > 1 and volume.size < 2**32


@functools.partial(jax.jit, static_argnums=1)
def normal(key: Array, shape: tuple[int, ...]) -> Array:
    """`jax.random.normal(key, shape)`, float32, where `in_parts` is true."""
    return mixed(lambda _, z: z, key, jnp.zeros(shape, jnp.float32))


def mixed(mix: Mix, key: Array, volume: Array, *others: Array) -> Array:
    """mix(volume, *others, z) where the volume is, z being `jax.random.normal(key, volume.shape)`.

    Args:
      mix: of as many slices as it is given.
      key: for which `in_parts` is true.
      volume: [slices, ...], float32.
      others: likewise.
    """
    words, slices, each = jax.random.key_data(key), volume.shape[0], math.prod(volume.shape[1:])
    size = -(-slices // PARTS)
    count = -(-slices // size)

    def part(k: Array, done: Array) -> Array:
        # The last part begins where it still fits: its first slices are done already, and are left as they are.
        first = jnp.minimum(k * size, slices - size)
        place = first.astype(jnp.uint32) * np.uint32(each) + jnp.arange(size * each, dtype=jnp.uint32)
        found = threefry_2x32(tuple(words), jnp.concatenate([jnp.zeros_like(place), place]))
        z = _normal(found[: size * each] ^ found[size * each :]).reshape(size, *volume.shape[1:])
        own, *given = (lax.dynamic_slice_in_dim(a, first, size) for a in (done, *others))
        old = (jnp.arange(size) < k * size - first).reshape(size, *(1,) * (volume.ndim - 1))
        return lax.dynamic_update_slice_in_dim(done, jnp.where(old, own, mix(own, *given, z)), first, 0)

    return lax.fori_loop(0, count, part, volume)


def _normal(bits: Array) -> Array:
    """As `jax.random.normal` makes of bits: uniform in (-1, 1), then the inverse of the error function."""
    low, high = np.nextafter(np.float32(-1), np.float32(0)), np.float32(1)
    mantissa = lax.bitcast_convert_type((bits >> np.uint32(9)) | np.uint32(0x3F800000), jnp.float32)
    uniform = jnp.maximum(low, (mantissa - np.float32(1)) * (high - low) + low)
    return np.float32(np.sqrt(2)) * lax.erf_inv(uniform)
