"""What a volume that is solved as a whole takes, before anything is built: evaluations, and bytes at the peak.

    peak = network of one slab at a time + state + y + data step

in volumes V [D, H, W] and padded volumes P [Dp, Hp, Wp] of float32, m that of a measurement. The state is overwritten,
so that it counts once. XLA's plan for a CPU hardly shares memory between the network and the data step:

    method                   state                data step
    plug-and-play            3 to 5 V             P + 4 V of conjugate gradients, a projection
    DDS, DiffPIR, PiGDM      P                    P + 5 V, a projection
    DPS                      P                    2 P, a projection              D and the gradient
    the others               P                    6 P + 3 V, a projection        their noise is drawn at once

Plug-and-play keeps one volume more for `momentum`, one for `averaging`, and two for `spectral`. A projection is that of
the operator: `working_memory` of a cone beam; of slices one by one V + 2 m. A trial of --auto holds its start besides
(V) and, where a part of the measurement is held out, the weights that say which and what is left of
y (2 m).

`host_bytes` is of any volume: what its results take when they are written.
"""

from __future__ import annotations

import math

from padis_jax.devices.memory import available, free_memory
from padis_jax.devices.plan import Estimate, plan_sampling
from padis_jax.errors import UserError
from padis_jax.operators.working_memory import BYTES, working_memory
from padis_jax.runs.config import Experiment
from padis_jax.runs.volume import Volume
from padis_jax.slabs import VolumeFrame
from padis_jax.solvers.presets import Plan
from padis_jax.weights import Weights

# (padded volumes, volumes) of the data step without its projection
STEPS = {"dds": (1, 5), "pigdm": (1, 5), "diffpir": (1, 5), "dps": (2, 0), "pnp_admm": (1, 4), "pnp_red": (1, 4)}
OTHERS = (6, 3)


def estimate_whole(
    config: Experiment,
    plan: Plan,
    weights: Weights,
    frame: VolumeFrame,
    measured: tuple[int, ...],
    *,
    cone: bool,
    timed: bool = False,
) -> tuple[Estimate, int]:
    """(network: of one slab at a time, all evaluations; bytes at the peak of the solver).

    Args:
      config: of the run.
      plan: how the solver runs.
      weights: of the network.
      frame: of the volume.
      measured: of the measurement.
      cone: whether that is of a cone beam.
      timed: whether to compile and time an evaluation.
    """
    runs = config.samples / plan.average if config.samples else 1
    size = config.patch_batch if isinstance(config.patch_batch, int) else 0
    found = plan_sampling(
        weights.network,
        weights.params,
        frame.plane,
        evaluations=round(runs * slab_evaluations(frame, plan)),
        patch_batch=size,
        gradient=plan.row.gradient,
        timed=timed,
    )
    trial = trial_bytes(frame, measured) if config.auto else 0
    return found, found.bytes + data_bytes(plan, frame, measured, cone=cone) + trial


def data_bytes(plan: Plan, frame: VolumeFrame, measured: tuple[int, ...], *, cone: bool) -> int:
    """Bytes at the peak of the solver without those of the network: state, measurement, data step.

    Args:
      plan: how the solver runs.
      frame: of the volume.
      measured: of the measurement.
      cone: whether that is of a cone beam, else slice by slice.
    """
    volume, padded, rays = (BYTES * math.prod(shape) for shape in (frame.image_shape, frame.padded_shape, measured))
    kept = sum(bool(getattr(plan.settings, name, 0.0)) for name in ("momentum", "averaging"))
    kept += 2 * bool(getattr(plan.settings, "spectral", 0.0))  # what is drawn, and its part that is left out
    state = padded if plan.row.begin is None else (3 + kept) * volume
    wide, narrow = STEPS.get(plan.method, OTHERS)
    projection = max(working_memory(frame.image_shape, measured)) if cone else volume + 2 * rays
    return state + rays + wide * padded + narrow * volume + projection


def trial_bytes(frame: VolumeFrame, measured: tuple[int, ...]) -> int:
    """Bytes that a trial of --auto holds beside those of its run: at most, whatever the rule."""
    return BYTES * (math.prod(frame.image_shape) + 2 * math.prod(measured))


def slab_evaluations(frame: VolumeFrame, plan: Plan) -> int:
    """Evaluations of one slab's patches, all levels together."""
    apart = plan.levels // 2 if frame.skip > 1 else 0
    slabs = apart * frame.tiles_of(frame.skip)[0] + (plan.levels - apart) * frame.tiles[0]
    return slabs * plan.evaluations // plan.levels


def check_room(volume: Volume, needed: int) -> None:
    """Refuses a volume beyond the memory that is free, before anything is built.

    Raises:
      UserError: with the estimate.
    """
    try:
        room = free_memory()
    except UserError:  # a device that does not tell
        return
    if needed > room:
        shape = " x ".join(map(str, volume.source.images.shape[:3]))
        raise UserError(
            f"{volume.path}: a volume of {shape} voxels takes about {needed / 1e9:.3g} GB of memory to be solved, and "
            f"{room / 1e9:.3g} GB are free: take fewer slices, or larger voxels with weights of smaller slices"
        )


def host_bytes(config: Experiment, volume: Volume) -> int:
    """Of the machine's memory when the volumes are written: as read and in their unit, and what is encoded."""
    arrays = 3 + len(config.classical) + volume.truth + 2 * bool(config.samples)  # start, TV, solver ...
    return 4 * math.prod(volume.source.images.shape) * (2 * arrays + 4)


def check_host(config: Experiment, volume: Volume, more: int = 0) -> None:
    """Refuses volumes that the machine's memory cannot hold in the end, with `more` bytes beside them."""
    try:
        room = available()
    except (OSError, ValueError, AttributeError):  # a system that does not tell
        return
    if (needed := host_bytes(config, volume) + more) > room:
        flag = volume.choice.split()[0]
        raise UserError(
            f"{volume.path}: writing {len(volume.numbers)} slices takes about {needed / 1e9:.3g} GB of memory, and "
            f"{room / 1e9:.3g} GB are free; choose fewer with {flag}"
        )
