"""Random keys: what a user may give as one."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from padis_jax.errors import UserError


def root_key(key: Array | int) -> Array:
    """The key itself, or jax.random.key of an int, of which it takes the lower 32 bits, in JAX's 64-bit mode too.

    Raises:
      UserError: for neither, several keys, and an int of more than 64 bits.
    """
    if isinstance(key, (int, np.integer)) and not isinstance(key, bool):
        if not -(2**63) <= key < 2**64:
            raise UserError(f"the seed {str(key)[:40]} has more than 64 bits: take a smaller one")
        return jax.random.key(np.uint32(int(key) % 2**32))
    if not isinstance(key, (jax.Array, np.ndarray)):
        raise UserError(f"key is a {type(key).__name__}: give jax.random.key(seed), or the seed")
    shape, typed = tuple(key.shape), jnp.issubdtype(key.dtype, jax.dtypes.prng_key)
    words = shape[-1:] if not typed and key.dtype == np.uint32 else ()  # of jax.random.PRNGKey
    if not typed and not words:
        raise UserError(f"key has shape {shape} and type {key.dtype}: give jax.random.key(seed), or the seed")
    if shape != words:
        raise UserError(f"key has shape {shape}: one image takes one key; use jax.vmap over keys for several")
    return key if isinstance(key, jax.Array) else jnp.asarray(key)
