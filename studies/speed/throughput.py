"""How fast a device runs a network: seconds of a call, FLOP per second, and their share of the peak.

FLOP are XLA's count of the program before it is optimised, which leaves out products with padding; beside it stands
the count by hand (network_cost.py), which has them, and whose traffic gives the time of the roofline. `studies.gpu`
runs it.
"""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Callable
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np

from padis_jax import convolution
from padis_jax.config import Config
from padis_jax.denoiser import denoise_patches
from padis_jax.loss import DenoisingLoss
from padis_jax.training import Loss, init_state, train_step
from padis_jax.unet import init_network, parameter_count
from studies.speed import network_cost
from studies.speed.network_cost import Cost
from studies.speed.peaks import Peak

AIMS = {"inference": 0.5, "training step": 0.4}  # of the peak
PATCHES = 64  # of an inference
PLAIN = lambda _, plain, *arrays: plain(*arrays)  # noqa: E731 (instead of `convolution._on_cpu`)
Made = Callable[[Config], tuple[Callable[[], Any], float, Cost]]


def measured(name: str, config: Config, of: Made, peak: Peak | None, seconds: float) -> dict[str, Any]:
    """Seconds of a call, FLOP per second, their share of the peak, and the time of the roofline.

    Args:
      name: of `AIMS`.
      config: of the network.
      of: `inference` or `training_step`.
      peak: of the device, or None.
      seconds: that this may take, as far as the first call, which compiles, leaves any.
    """
    call, flops, work = of(config)
    begin = time.perf_counter()
    jax.block_until_ready(call())
    first = time.perf_counter() - begin
    each = seconds_of(call, max(min(seconds - first, 30.0), 0.0))
    share = flops / each / peak.flops if peak else None
    return {
        "seconds_of_a_call": each,
        "seconds_of_the_first": first,
        "flops": flops,
        "flops_by_hand": work.flops,
        "tflops": flops / each / 1e12,
        "share_of_peak": share,
        "aim": AIMS[name],
        "reached": None if share is None else share >= AIMS[name],
        "roofline_seconds": peak.seconds(work) if peak else None,
    }


def seconds_of(call: Callable[[], Any], seconds: float) -> float:
    """Of a call, in the quickest of rounds of several, which the device is given at once; three rounds at least."""
    count, begin = 1, time.perf_counter()
    found: list[float] = []
    while len(found) < 3 or time.perf_counter() - begin < seconds:
        start = time.perf_counter()
        jax.block_until_ready([call() for _ in range(count)][-1])
        took = time.perf_counter() - start
        found.append(took / count)
        count = max(1, min(50, round(0.5 / max(found[-1], 1e-9))))
    return min(found)


def _network(config: Config) -> tuple[Any, Any]:
    network = dataclasses.replace(config.network, dtype="bfloat16")
    return network, init_network(jax.random.key(0), network)


def inference(config: Config) -> tuple[Callable[[], Any], float, Cost]:
    """(call, its FLOP, work by hand) of the network on PATCHES patches of the largest size."""
    network, params = _network(config)
    side = config.patches.largest
    shape = (PATCHES, side, side)
    patches = jax.random.normal(jax.random.key(1), (*shape, network.image_channels))
    where, sigma = jnp.zeros((*shape, 2)), jnp.full(PATCHES, 0.1)
    run = jax.jit(functools.partial(denoise_patches, network))
    flops = flops_of(functools.partial(denoise_patches, network), params, patches, where, sigma)
    return lambda: run(params, patches, where, sigma), flops, network_cost.forward(network, side, PATCHES)


def training_step(config: Config) -> tuple[Callable[[], Any], float, Cost]:
    """(call, its FLOP, work by hand) of a training step on the largest patches, with Adam and the average."""
    network, params = _network(config)
    largest = int(np.argmax(config.patches.sizes))
    side, count = config.patches.sizes[largest], config.patches.batch[largest]
    patches = jax.random.normal(jax.random.key(1), (count, side, side, network.image_channels))
    batch = patches, jnp.zeros((count, side, side, 2))
    loss, key = DenoisingLoss(network, config.noise), jax.random.key(2)
    held = [init_state(params, config.optimiser)]

    def call() -> Any:
        held[0], metrics = train_step(loss, config.optimiser, 10**6, key, held[0], *batch)
        return metrics

    flops = flops_of(gradient(loss), params, key, *batch)
    once, update = network_cost.forward(network, side, count), 9 * 4 * parameter_count(params)
    return call, flops, Cost(3 * once.flops, 3 * once.bytes + update)


def gradient(loss: Loss) -> Callable[..., Any]:
    """(params, *rest) -> (value, gradient), new each time, so that nothing compiled is shared."""
    return lambda params, *rest: jax.value_and_grad(loss)(params, *rest)


def flops_of(function: Callable[..., Any], *args: Any) -> float:
    """FLOP of a program as XLA counts them before it is optimised; on the CPU, which every JAX can ask.

    Convolutions count as such, not as the products that they become on the CPU.
    """
    shapes = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype), args)
    with mock.patch.object(convolution, "_on_cpu", PLAIN), jax.default_device(jax.local_devices(backend="cpu")[0]):
        analysis: Any = jax.jit(lambda *args: function(*args)).lower(*shapes).cost_analysis()  # traced again
    return float(analysis["flops"])
