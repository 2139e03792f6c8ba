"""What a run will take, before it begins: one evaluation of the network is compiled and timed, the rest is counting.

    seconds = evaluations x seconds of one,   bytes = parameters and arguments + temporary arrays of one

Compilation is not in the estimate; neither are the operator and the total variation, small beside a network.
"""

from __future__ import annotations

import time
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from padis_jax.config import Config
from padis_jax.devices.chunk import compile_network
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
      seconds: of all of them on this machine as it is loaded now.
      bytes: of arrays at the peak.
      device: what they run on.
    """

    parameters: int
    evaluations: int
    seconds: float
    bytes: int
    device: str

    def text(self) -> str:
        """For people."""
        minutes = f"{self.seconds / 60:.1f} min" if self.seconds >= 90 else f"{self.seconds:.1f} s"
        return (
            f"network of {self.parameters} parameters; {self.evaluations} evaluations; about {minutes} and "
            f"{self.bytes / 1e6:.0f} MB of arrays, on {self.device}"
        )


def plan_sampling(
    network: NetworkConfig, params: Params, frame: Frame, *, evaluations: int, patch_batch: int, gradient: bool
) -> Estimate:
    """Of a reconstruction.

    Args:
      network: its config.
      params: its parameters.
      frame: says how many patches an image has.
      evaluations: of the whole image.
      patch_batch: patches per call, 0 for all.
      gradient: whether each evaluation is differentiated (DPS).
    """
    count = min(patch_batch or frame.patch_count, frame.patch_count)
    calls = -(-frame.patch_count // count)

    side = (count, *frame.tile_shape)
    arguments = (params, jnp.zeros((*side, network.image_channels)), jnp.zeros((*side, 2)), jnp.ones(count))
    compiled = compile_network(network, params, frame.tile_shape, count, gradient=gradient)
    seconds = _seconds(compiled, *arguments)
    return _estimate(parameter_count(params), evaluations, evaluations * calls * seconds, compiled)


def plan_training(config: Config, steps: int) -> Estimate:
    """Of a training run: the step of most pixels is timed, the others are taken to be in proportion to theirs.

    Args:
      config: the run's.
      steps: that are left.
    """
    patches = config.patches
    state = state_shapes(config.network, config.optimiser)
    params = jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), state.params)
    work = [batch * size**2 for batch, size in zip(patches.batch, patches.sizes, strict=True)]
    largest = max(range(len(work)), key=work.__getitem__)
    side = (patches.batch[largest], patches.sizes[largest], patches.sizes[largest])

    def gradient(params: Params, clean: Array, positions: Array) -> Params:
        key = jax.random.key(0)
        return jax.grad(lambda p: denoising_loss(key, config.network, config.noise, p, clean, positions))(params)

    arguments = (params, jnp.zeros((*side, config.network.image_channels)), jnp.zeros((*side, 2)))
    compiled = jax.jit(gradient).lower(*arguments).compile()
    share = sum(p * w for p, w in zip(patches.probabilities, work, strict=True)) / work[largest]
    found = _estimate(parameter_count(params), steps, steps * share * _seconds(compiled, *arguments), compiled)
    held = sum(a.size * a.dtype.itemsize for a in jax.tree.leaves(state))  # parameters, average and two moments
    return found._replace(bytes=found.bytes + held)


def _seconds(compiled: jax.stages.Compiled, *arguments: object) -> float:
    times = []
    for _ in range(2):
        start = time.perf_counter()
        jax.block_until_ready(compiled(*arguments))
        times.append(time.perf_counter() - start)
    return min(times)


def _estimate(parameters: int, evaluations: int, seconds: float, compiled: jax.stages.Compiled) -> Estimate:
    return Estimate(parameters, evaluations, seconds, analysed(compiled).total, jax.devices()[0].device_kind)
