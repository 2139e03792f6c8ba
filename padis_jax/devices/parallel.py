"""Training on a mesh: where the state and the batch lie, and the step compiled for it.

    batch split, state whole    every device has the parameters; one all-reduce of the gradient per step
    batch split, state split    every device has 1/n of parameters, average and moments, which are gathered where they
                                are used (FSDP, or ZeRO stage 3, arXiv 1910.02054)

The step is the one of a single device, and so is its result, up to the order of sums.
"""

from __future__ import annotations

from typing import Any

import jax
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from padis_jax.batches import Batch, PatchConfig
from padis_jax.devices.mesh import AXIS, put, replicated, split
from padis_jax.errors import UserError
from padis_jax.slab_batches import SlabBatch
from padis_jax.training import TrainState, step

SMALLEST_SPLIT = 4096  # numbers in an array that is worth splitting: smaller ones are kept whole on every device


def state_sharding(shapes: TrainState, mesh: Mesh, *, shard_parameters: bool = False) -> TrainState:
    """Where the state of a run lies: a `TrainState` of shardings.

    Args:
      shapes: from `training.state_shapes`.
      mesh: the devices.
      shard_parameters: split arrays of at least `SMALLEST_SPLIT` numbers along their longest axis that divides evenly.
        Arrays of one shape are split alike, so that the update of a parameter needs no exchange.
    """

    def place(leaf: Any) -> NamedSharding:
        axes = [axis for axis, side in enumerate(leaf.shape) if side % mesh.size == 0]
        if not shard_parameters or not axes or leaf.size < SMALLEST_SPLIT:
            return replicated(mesh)
        longest = max(axes, key=lambda axis: leaf.shape[axis])
        return NamedSharding(mesh, P(*(AXIS if axis == longest else None for axis in range(leaf.ndim))))

    placed: TrainState = jax.tree.map(place, shapes)
    return placed


def put_batch(mesh: Mesh, batch: Batch | SlabBatch) -> Batch | SlabBatch:
    """A batch that every process has drawn whole, split over the devices: each process keeps its own rows."""
    return type(batch)(*put(tuple(batch), (split(mesh),) * len(batch)))


def check_batch(mesh: Mesh, patches: PatchConfig) -> None:
    """Raises UserError unless every batch size divides evenly among the devices."""
    for count in patches.batch:
        if count % mesh.size:
            raise UserError(
                f"patches.batch: {count} patches cannot be split evenly over {mesh.size} devices; give multiples of "
                f"{mesh.size}, or --run.devices with a divisor of {count}"
            )


def step_on_mesh(mesh: Mesh, sharding: TrainState) -> Any:
    """`training.train_step` for the mesh, with the same arguments.

    The state is donated and comes back as it was placed, so that all steps run one program per patch size, the first
    step after a restore included.
    """
    placed = (sharding, replicated(mesh))
    return jax.jit(step, static_argnums=(0, 1, 2), donate_argnums=4, out_shardings=placed)
