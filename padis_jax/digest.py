"""Digests of arrays, the same however an array is spread over devices. With its bits as words b_0, b_1, ... of 32 bits
(shorter types padded), in row-major order,

    digest = sum over i of (2 i + 1) b_i   mod 2^32

A change of one word by d != 0 changes the digest by (2 i + 1) d, which is not 0 because 2 i + 1 is odd; larger damage
goes unnoticed with a chance of about 2^-32. Sums of integers do not depend on their order, so an array that is spread
over devices or processes has the same digest as the whole, and no device needs more than its own part.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

_WORDS = {1: np.uint8, 2: np.uint16, 4: np.uint32}


def digests(tree: Any) -> dict[str, list[Any]]:
    """Shape, type and digest of every array of a pytree: {path: [[sides ...], type, digest]}, fit for JSON.

    Args:
      tree: arrays of types up to 32 bits. All processes must call this together if any array is spread over them.
    """
    found = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        whole = leaf.is_fully_addressable or leaf.is_fully_replicated if isinstance(leaf, jax.Array) else True
        value = _on_host(np.asarray(leaf)) if whole else int(_on_devices(leaf))
        found[jax.tree_util.keystr(path)] = [*described(leaf), value]
    return found


def described(leaf: Any) -> list[Any]:
    """Shape and type of an array, fit for JSON."""
    return [list(leaf.shape), str(leaf.dtype)]


def _on_host(array: np.ndarray) -> int:
    words = np.ravel(array).view(_WORDS[array.dtype.itemsize]).astype(np.uint32)
    weights = np.arange(1, 2 * words.size + 1, 2, dtype=np.uint64).astype(np.uint32)
    return int(np.sum(words * weights, dtype=np.uint32))


@jax.jit
def _on_devices(array: jax.Array) -> jax.Array:
    words = jax.lax.bitcast_convert_type(array, _WORDS[array.dtype.itemsize]).astype(jnp.uint32)
    index, stride = jnp.zeros(array.shape, jnp.uint32), 1
    for axis in reversed(range(array.ndim)):  # no reshape: it would bring the parts together on one device
        index += jax.lax.broadcasted_iota(jnp.uint32, array.shape, axis) * np.uint32(stride % 2**32)
        stride *= array.shape[axis]
    return jnp.sum(words * (2 * index + 1), dtype=jnp.uint32)
