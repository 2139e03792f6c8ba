"""Devices: one mesh with one Auto axis over all devices of all processes, and arrays that lie on it.

Auto means that a program is written as for one device, and XLA's partitioner places the collectives that the shardings
of its arguments and results imply. Random numbers do not depend on shardings (JAX's partitionable Threefry).
"""

from __future__ import annotations

import os
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from padis_jax.errors import UserError, cut

AXIS = "data"


def check_devices() -> None:
    """To be called before JAX computes, and after the processes have come together (cluster.py).

    Raises:
      UserError: if there is no device of the kind that JAX_PLATFORMS names.
    """
    try:
        jax.devices()
    except (RuntimeError, AssertionError) as error:  # the latter of a kind that JAX knows and has no plugin for
        named, why = os.environ.get("JAX_PLATFORMS", ""), cut(error) or "its plugin is not installed"
        raise UserError(
            f"JAX_PLATFORMS={named}: JAX finds no such device here: {why}; unset it, or install JAX for that device "
            "(README.md)"
        ) from error


def is_leader() -> bool:
    """Whether this process is the one that writes logs, pictures and weights."""
    return jax.process_index() == 0


def make_mesh(count: int = 0, *, local: bool = False) -> Mesh:
    """The mesh of the first `count` devices, or of all for 0; `local`: of this process only.

    Raises:
      UserError: if there are not so many, or some processes would be left without a device.
    """
    devices = jax.local_devices() if local else jax.devices()
    if count > len(devices):
        raise UserError(f"devices is {count}, but there are {len(devices)} here; give at most that")
    if not local and jax.process_count() > 1 and count not in (0, len(devices)):
        raise UserError(f"devices is {count}: with several processes all {len(devices)} take part; leave it at 0")
    chosen = devices[: count or len(devices)]
    return jax.make_mesh((len(chosen),), (AXIS,), axis_types=(AxisType.Auto,), devices=chosen)


def replicated(mesh: Mesh) -> NamedSharding:
    """The whole array on every device."""
    return NamedSharding(mesh, P())


def split(mesh: Mesh) -> NamedSharding:
    """The leading axis split evenly over the devices."""
    return NamedSharding(mesh, P(AXIS))


def put(tree: Any, shardings: Any) -> Any:
    """Arrays that every process has whole -> arrays on the mesh, of which every process keeps its part."""

    def place(leaf: Any, sharding: NamedSharding) -> jax.Array:
        host = np.asarray(leaf)
        return jax.make_array_from_callback(host.shape, sharding, lambda index: host[index])

    return jax.tree.map(place, tree, shardings)


def on_host(tree: Any) -> Any:
    """The whole arrays in the memory of every process. All processes must call this together."""
    return jax.device_get(tree) if jax.process_count() == 1 else multihost_utils.process_allgather(tree, tiled=True)
