"""Digests: every changed bit shows, and it does not matter where an array lies."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from padis_jax import digest
from padis_jax.digest import digests

ARRAYS = {
    "weights": jnp.asarray(np.random.default_rng(0).standard_normal((3, 4, 5)), jnp.float32),
    "half": jnp.arange(7, dtype=jnp.bfloat16),
    "step": jnp.asarray(12, jnp.int32),
    "flags": jnp.asarray([1, 0, 255], jnp.uint8),
}


def test_the_formula_by_hand():
    found = digests({"a": np.asarray([5, 7, 2**31], np.uint32)})
    assert found == {"['a']": [[3], "uint32", (5 + 3 * 7 + 5 * 2**31) % 2**32]}


@pytest.mark.parametrize("bit", [0, 11, 31])
@pytest.mark.parametrize("index", [0, 17, 59])
def test_every_bit_counts(index, bit):
    words = np.array(ARRAYS["weights"]).ravel().view(np.uint32)
    words[index] ^= np.uint32(1 << bit)
    changed = words.view(np.float32).reshape(3, 4, 5)
    assert digests({"a": changed})["['a']"][2] != digests({"a": ARRAYS["weights"]})["['a']"][2]


def test_exchanged_values_and_other_shapes_show():
    a = np.asarray(ARRAYS["weights"])
    assert digests(a[::-1].copy()) != digests(a)
    assert digests(a.reshape(12, 5)) != digests(a)


@pytest.mark.parametrize("name", ARRAYS)
def test_devices_compute_what_the_host_does(name):
    assert int(digest._on_devices(ARRAYS[name])) == digest._on_host(np.asarray(ARRAYS[name]))
    assert jax.tree.leaves(digests({name: ARRAYS[name]}))[-1] == digest._on_host(np.asarray(ARRAYS[name]))
