"""Time of the network: one evaluation of an image, one training step, and three ways to write its normalisation.

    python -m studies.speed.network [--configs configs/head_ct.py ...] [--rounds 3] [--no-training] [--no-norms]

For each config: parameters; the denoiser on the patches of one tiling, which is what a level of DDS costs; a training
step with the largest patch and its batch; work in GFLOP as XLA counts it, and the rate. The forward pass is also timed
with the moments of a group taken by reductions over pixels and channels, and with Flax's GroupNorm, instead of the
matrix-vector products of the package. Seconds are the least of all rounds, which go in turns; the CPU seconds beside
them say which is cheaper even on a machine that does other work too.
"""

from __future__ import annotations

import argparse
import functools
import time
from collections.abc import Callable
from typing import Any
from unittest import mock

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array

from padis_jax import unet
from padis_jax.config import Config, load_config_file
from padis_jax.denoiser import denoise_patches
from padis_jax.loss import DenoisingLoss
from padis_jax.patches import frame_for
from padis_jax.training import init_state, train_step
from padis_jax.unet import init_network, parameter_count

Call = Callable[[], Any]


class ReducedNorm(nn.Module):
    """`unet.GroupNorm` with its moments as reductions over pixels and the channels of a group."""

    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        b, h, w, c = x.shape
        scale = self.param("scale", nn.initializers.ones, (c,))
        bias = self.param("bias", nn.initializers.zeros, (c,))
        groups = x.astype(jnp.float32).reshape(b, h * w, min(32, c // 4), -1)
        mean = jnp.mean(groups, axis=(1, 3), keepdims=True)
        variance = jnp.mean(jnp.square(groups), axis=(1, 3), keepdims=True) - jnp.square(mean)
        normal = (groups - mean) * jax.lax.rsqrt(jnp.maximum(variance, 0.0) + 1e-6)
        return (normal.reshape(x.shape) * scale[None, None, None] + bias[None, None, None]).astype(self.dtype)


class FlaxNorm(nn.Module):
    """Flax's own, with the same parameters under the same names."""

    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        inner = nn.GroupNorm(num_groups=min(32, x.shape[-1] // 4), epsilon=1e-6, dtype=self.dtype)
        nn.share_scope(self, inner)
        return inner(x)


NORMS = {"matrix-vector": unet.GroupNorm, "reduction": ReducedNorm, "flax": FlaxNorm}


def compiled(lowered: Any) -> tuple[Any, str]:
    """(executable, what its compilation took)."""
    wall, cpu = time.perf_counter(), time.process_time()
    executable = lowered.compile()
    return executable, f"compile {time.process_time() - cpu:5.1f} CPU s, {time.perf_counter() - wall:5.1f} s"


def gigaflops(executable: Any) -> float:
    """Work of one call in GFLOP, as XLA counts it."""
    cost = executable.cost_analysis()
    return float((cost[0] if isinstance(cost, list) else cost)["flops"]) / 1e9


def least_times(calls: dict[str, Call], rounds: int) -> dict[str, tuple[float, float]]:
    """(seconds, CPU seconds) of each call: the least of `rounds`, in turns, after one that is not counted."""
    best = dict.fromkeys(calls, (float("inf"), float("inf")))
    for number in range(rounds + 1):
        for name, call in calls.items():
            wall, cpu = time.perf_counter(), time.process_time()
            jax.block_until_ready(call())
            took = time.perf_counter() - wall, time.process_time() - cpu
            if number:
                best[name] = min(best[name][0], took[0]), min(best[name][1], took[1])
    return best


def forward_pass(config: Config, image_shape: tuple[int, int]) -> tuple[Any, tuple[Any, ...]]:
    """The denoiser on one tiling: (lowered, arguments)."""
    network, patch = config.network, config.patches.largest
    count = frame_for(image_shape, patch).patch_count
    params = init_network(jax.random.key(0), network)
    x = jax.random.normal(jax.random.key(1), (count, patch, patch, network.image_channels))
    arguments = (params, x, jnp.zeros((count, patch, patch, 2)), jnp.ones(count))
    return jax.jit(lambda p, x, where, s: denoise_patches(network, p, x, where, s)).lower(*arguments), arguments


def measure_forward(config: Config, image_shape: tuple[int, int], rounds: int, norms: bool) -> None:
    """Prints the forward pass, with all three normalisations if asked."""
    calls: dict[str, Call] = {}
    work = 0.0
    for name in NORMS if norms else ("matrix-vector",):
        with mock.patch.object(unet, "GroupNorm", NORMS[name]):
            lowered, arguments = forward_pass(config, image_shape)
        executable, about = compiled(lowered)
        work = work or gigaflops(executable)  # of the package's own
        calls[name] = functools.partial(executable, *arguments)
        print(f"  forward, {name}: {about}", flush=True)
    count = frame_for(image_shape, config.patches.largest).patch_count
    for name, (seconds, cpu) in least_times(calls, rounds).items():
        rate = work / seconds
        print(
            f"  forward {count} patches, {name:13s} {seconds:7.3f} s ({cpu:.3f} CPU s)  {work:7.1f} GFLOP  "
            f"{rate:5.0f} GFLOP/s",
            flush=True,
        )


def measure_training(config: Config, rounds: int) -> None:
    """Prints a training step with the largest patch."""
    side = config.patches.largest
    batch = config.patches.batch[config.patches.sizes.index(side)]
    state = jax.jit(lambda: init_state(init_network(jax.random.key(0), config.network), config.optimiser))()
    loss, key = DenoisingLoss(config.network, config.noise), jax.random.key(2)
    patches = jax.random.uniform(jax.random.key(1), (batch, side, side, config.network.image_channels))
    positions = jnp.zeros((batch, side, side, 2))
    call, about = compiled(train_step.lower(loss, config.optimiser, config.run.steps, key, state, patches, positions))
    best = float("inf")
    for _ in range(rounds + 1):
        start = time.perf_counter()
        state, metrics = jax.block_until_ready(call(key, state, patches, positions))
        best = min(best, time.perf_counter() - start)
    work = gigaflops(call)
    print(
        f"  training step {batch} patches of {side}  {best:7.3f} s  {work:7.1f} GFLOP  {work / best:5.0f} GFLOP/s  "
        f"({batch / best:.0f} patches/s)  {about}"
    )


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--configs", nargs="+", default=["configs/head_ct.py"])
    parser.add_argument("--size", type=int, default=256, help="side of the images")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--no-training", action="store_true", help="leave the training step out")
    parser.add_argument("--no-norms", action="store_true", help="leave the comparison of normalisations out")
    arguments = parser.parse_args()
    print(f"jax {jax.__version__} on {jax.devices()[0].platform}; least of {arguments.rounds} rounds")
    for path in arguments.configs:
        config = load_config_file(path, Config)
        shapes = jax.eval_shape(lambda network=config.network: init_network(jax.random.key(0), network))
        print(f"{path}: {parameter_count(shapes):,} parameters")
        measure_forward(config, (arguments.size, arguments.size), arguments.rounds, not arguments.no_norms)
        if not arguments.no_training:
            measure_training(config, arguments.rounds)


if __name__ == "__main__":
    main()
