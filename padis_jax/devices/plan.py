"""What a run will take, before it begins: one evaluation of the network is traced, or compiled and timed.

    bytes = parameters and arguments + temporary arrays of one,   seconds = evaluations x seconds of one

A trace takes seconds and gives the bytes within a quarter (footprint.py); compiled, they are XLA's own. Compilation is
not in the time; neither are the operator and the total variation, small beside a network.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from padis_jax.config import Config
from padis_jax.devices.chunk import network_call
from padis_jax.devices.footprint import footprint
from padis_jax.devices.memory import analysed
from padis_jax.loss import denoising_loss
from padis_jax.patches import Frame
from padis_jax.training import state_shapes
from padis_jax.unet import NetworkConfig, Params, parameter_count


class Estimate(NamedTuple):
    """Of a whole run.

    Attributes:
      parameters: of the network.
      evaluations: network evaluations of an image, or training steps.
      seconds: of all of them on this machine as it is loaded now; None where only traced.
      bytes: of arrays at the peak.
      device: what they run on.
    """

    parameters: int
    evaluations: int
    seconds: float | None
    bytes: int
    device: str

    def text(self) -> str:
        """For people."""
        text = f"network of {self.parameters} parameters; {self.evaluations} evaluations; about "
        if self.seconds is not None:
            text += (f"{self.seconds / 60:.1f} min" if self.seconds >= 90 else f"{self.seconds:.1f} s") + " and "
        return f"{text}{self.bytes / 1e6:.0f} MB of arrays, on {self.device}"


def plan_sampling(
    network: NetworkConfig,
    params: Params,
    frame: Frame,
    *,
    evaluations: int,
    patch_batch: int,
    gradient: bool,
    images: int = 1,
    timed: bool = False,
) -> Estimate:
    """Of a reconstruction.

    Args:
      network: its config.
      params: its parameters.
      frame: says how many patches an image has.
      evaluations: of whole images, all of them.
      patch_batch: patches of an image per call, 0 for all.
      gradient: whether each evaluation is differentiated (DPS, TMPD).
      images: side by side.
      timed: whether to compile and time an evaluation.
    """
    count = min(patch_batch or frame.patch_count, frame.patch_count)
    calls = -(-frame.patch_count // count)
    f, shapes = network_call(network, params, frame.tile_shape, count * images, gradient=gradient)
    seconds, size = _measured(f, shapes, timed)
    rounds = -(-evaluations // images) * calls
    return _estimate(parameter_count(params), evaluations, seconds and rounds * seconds, size)


def plan_training(config: Config, frame: Frame, steps: int, *, timed: bool = False) -> Estimate:
    """Of a training run: the step of most pixels is measured, the others are taken to be in proportion to theirs.

    Args:
      config: the run's.
      frame: of the images, whose tile is a patch of size 0 (whole images).
      steps: that are left.
      timed: whether to compile and time a step.
    """
    patches = config.patches
    state = state_shapes(config.network, config.optimiser)
    batches = [
        (count, *((size, size) if size else frame.tile_shape))
        for count, size in zip(patches.batch, patches.sizes, strict=True)
    ]
    work = [math.prod(batch) for batch in batches]
    largest = max(batches, key=math.prod)

    f, shapes = training_call(config, state.params, largest)
    seconds, size = _measured(f, shapes, timed)
    share = sum(p * w for p, w in zip(patches.probabilities, work, strict=True)) / max(work)
    held = sum(a.size * a.dtype.itemsize for a in jax.tree.leaves(state._replace(params=())))  # average, two moments
    return _estimate(parameter_count(state.params), steps, seconds and steps * share * seconds, size + held)


def training_call(
    config: Config, params: Params, batch: tuple[int, int, int]
) -> tuple[Callable[..., Params], tuple[Any, ...]]:
    """(params, patches [*batch, C], positions [*batch, 2 or 3]) -> the loss's gradient; and their shapes."""

    def gradient(params: Params, clean: Array, positions: Array) -> Params:
        key = jax.random.key(0)
        return jax.grad(lambda p: denoising_loss(key, config.network, config.noise, p, clean, positions))(params)

    channels = (config.network.image_channels, max(2, config.network.position_channels))
    shapes = (jax.ShapeDtypeStruct((*batch, c), jnp.float32) for c in channels)
    return gradient, (params, *shapes)


def _measured(f: Callable[..., Any], arguments: tuple[Any, ...], timed: bool) -> tuple[float | None, int]:
    """Seconds and bytes of a call."""
    if not timed:
        return None, footprint(f, *arguments).total
    compiled = jax.jit(f).lower(*arguments).compile()
    arrays = jax.tree.map(lambda a: jnp.ones(a.shape, a.dtype), arguments)
    times = []
    for _ in range(2):
        start = time.perf_counter()
        jax.block_until_ready(compiled(*arrays))
        times.append(time.perf_counter() - start)
    return min(times), analysed(compiled).total


def _estimate(parameters: int, evaluations: int, seconds: float | None, size: int) -> Estimate:
    return Estimate(parameters, evaluations, seconds, size, jax.devices()[0].device_kind)
