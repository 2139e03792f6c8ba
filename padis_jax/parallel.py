"""Devices: one mesh with one axis over all devices of all processes, and where arrays lie on it.

    training      batch split, state whole: every device has the parameters, one all-reduce of the gradient per step
    training      batch split, state split: every device has 1/n of parameters, average and moments (FSDP; ZeRO stage 3,
                  arXiv 1910.02054), which are gathered where they are used
    sampling      images split (solvers/batch.py), or the patches of one image (prior.patch_prior)

The axis is an Auto axis: a program is written as for one device, and XLA's partitioner places the collectives that the
shardings of its arguments and results imply. Random numbers do not depend on the shardings. So the result is that of
one device up to the order of sums.
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from padis_jax.batches import Batch, PatchConfig
from padis_jax.config import Config
from padis_jax.errors import UserError
from padis_jax.training import TrainState, init_state, step

AXIS = "data"
SMALLEST_SPLIT = 4096  # numbers in an array that is worth splitting: below, gathering it costs more than keeping it


def is_leader() -> bool:
    """Whether this process is the one that writes logs, pictures and weights."""
    return jax.process_index() == 0


def make_mesh(count: int = 0) -> Mesh:
    """The mesh of the first `count` devices, or of all for 0.

    Raises:
      UserError: if there are not so many, or some processes would be left without a device.
    """
    devices = jax.devices()
    if count > len(devices):
        raise UserError(
            f"devices is {count}, but there are {len(devices)} ({devices[0].device_kind}); give at most that"
        )
    if count and jax.process_count() > 1 and count != len(devices):
        raise UserError(
            f"devices is {count}: with several processes all {len(devices)} devices take part; leave it at 0"
        )
    chosen = devices[: count or len(devices)]
    return jax.make_mesh((len(chosen),), (AXIS,), axis_types=(AxisType.Auto,), devices=chosen)


def replicated(mesh: Mesh) -> NamedSharding:
    """The whole array on every device."""
    return NamedSharding(mesh, P())


def state_sharding(mesh: Mesh, state: Any, *, shard_parameters: bool) -> Any:
    """A sharding for every array of a state (or of its `jax.eval_shape`).

    Args:
      mesh: from `make_mesh`.
      state: parameters, average, moments, counts.
      shard_parameters: split arrays of at least `SMALLEST_SPLIT` numbers along their longest axis that divides evenly.
        Arrays of the same shape are split alike, so that an update needs no exchange.
    """

    def place(leaf: Any) -> NamedSharding:
        axes = [axis for axis, side in enumerate(leaf.shape) if side % mesh.size == 0]
        if not shard_parameters or not axes or leaf.size < SMALLEST_SPLIT:
            return replicated(mesh)
        longest = max(axes, key=lambda axis: leaf.shape[axis])
        return NamedSharding(mesh, P(*(AXIS if axis == longest else None for axis in range(leaf.ndim))))

    return jax.tree.map(place, state)


def put(tree: Any, shardings: Any) -> Any:
    """Arrays that every process has whole -> arrays on the mesh, of which every process keeps its part."""

    def place(leaf: Any, sharding: NamedSharding) -> jax.Array:
        host = np.asarray(leaf)
        return jax.make_array_from_callback(host.shape, sharding, lambda index: host[index])

    return jax.tree.map(place, tree, shardings)


def put_batch(mesh: Mesh, batch: Batch) -> Batch:
    """A training batch, drawn whole by every process, split over the devices; each keeps its own rows."""
    split = NamedSharding(mesh, P(AXIS))
    return put(batch, Batch(split, split))


def on_host(tree: Any) -> Any:
    """The whole arrays in the memory of every process. All processes must call this together."""
    return jax.device_get(tree) if jax.process_count() == 1 else multihost_utils.process_allgather(tree, tiled=True)


def check_batch(mesh: Mesh, patches: PatchConfig) -> None:
    """Raises UserError unless every batch size divides evenly among the devices."""
    for count in patches.batch:
        if count % mesh.size:
            raise UserError(
                f"patches.batch: {count} patches cannot be split evenly over {mesh.size} devices; give multiples of "
                f"{mesh.size}, or --run.devices with a divisor of {count}"
            )


@functools.lru_cache(maxsize=8)
def step_function(config: Config, mesh: Mesh) -> Any:
    """`training.step` compiled for the mesh: (config, state, patches, positions) -> (state, metrics).

    The state is donated and comes back as it was placed, so that every step runs the same program, the first one after
    a restore included.
    """
    placed = (sharding_of(config, mesh), replicated(mesh))
    return jax.jit(step, static_argnums=0, donate_argnums=1, out_shardings=placed)


def sharding_of(config: Config, mesh: Mesh) -> TrainState:
    """Where the state of a run lies."""
    shapes = jax.eval_shape(lambda: init_state(config))
    return state_sharding(mesh, shapes, shard_parameters=config.run.shard_parameters)
