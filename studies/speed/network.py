"""Time of the network on the patches of one tiling, with other ways to write its normalisation and convolutions.

    python -m studies.speed.network
    python -m studies.speed.network --config configs/smoke.py --rounds 2

Prints the parameters, the work in GFLOP as XLA counts it, and the forward pass with the moments of a group taken by
matrix-vector products (the package's), by reductions over pixels and channels, and by Flax's GroupNorm, and with
convolutions that are all direct: the least of all rounds, which go in turns. CPU seconds show which is cheaper even on
a shared machine. With --training, the gradient in the parameters instead.
"""

from __future__ import annotations

import argparse
import contextlib
import time
from typing import Any
from unittest import mock

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from padis_jax import convolution, unet
from padis_jax.config import Config, load_config_file
from padis_jax.denoiser import denoise_patches
from padis_jax.patches import frame_for
from padis_jax.unet import init_network, parameter_count
from studies.speed.throughput import PLAIN, flops_of

SIDE = 256  # of the image


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


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default="configs/head_ct.py")
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--training", action="store_true")
    arguments = parser.parse_args()
    config = load_config_file(arguments.config, Config)
    network, patch = config.network, config.patches.largest
    count, rng = frame_for((SIDE, SIDE), patch).patch_count, np.random.default_rng(0)
    shapes = jax.eval_shape(lambda: init_network(jax.random.key(0), network))
    params = jax.tree.map(lambda leaf: jnp.asarray(0.1 * rng.standard_normal(leaf.shape), leaf.dtype), shapes)
    x = jax.random.normal(jax.random.key(1), (count, patch, patch, network.image_channels))
    inputs = (params, x, jnp.zeros((count, patch, patch, 2)), jnp.ones(count))
    patches, positions, sigma = inputs[1:]

    def forward(params: Any) -> Array:
        return denoise_patches(network, params, patches, positions, sigma)

    def training(params: Any) -> Any:
        return jax.grad(lambda params: jnp.mean(jnp.square(forward(params))))(params)

    call = training if arguments.training else forward
    norms = {"reductions": ReducedNorm, "Flax": FlaxNorm}
    ways: dict[str, contextlib.AbstractContextManager[Any]] = {
        "the package's": contextlib.nullcontext(),
        "direct convolutions": mock.patch.object(convolution, "_on_cpu", PLAIN),
        **{name: mock.patch.object(unet, "GroupNorm", norm) for name, norm in norms.items()},
    }
    calls, best, compiling = {}, {}, {}
    for name, way in ways.items():
        with way:
            begin = time.process_time()
            calls[name] = jax.jit(lambda params: call(params)).lower(params).compile()  # traced again
            compiling[name], best[name] = time.process_time() - begin, (np.inf, np.inf)
    work = flops_of(call, params) / 1e9
    print(f"jax {jax.__version__} on {jax.devices()[0].platform}; least of {arguments.rounds} rounds")
    print(f"{arguments.config}: {parameter_count(params):,} parameters, {count} patches, {work:.1f} GFLOP", flush=True)
    for _ in range(arguments.rounds):
        for name, compiled in calls.items():
            wall, cpu = time.perf_counter(), time.process_time()
            jax.block_until_ready(compiled(params))
            took = time.perf_counter() - wall, time.process_time() - cpu
            best[name] = min(best[name][0], took[0]), min(best[name][1], took[1])
    for name, (wall, cpu) in best.items():
        speed = f"{work / wall:.0f} GFLOP/s; {compiling[name]:.1f} CPU s to compile"
        print(f"{name}: {wall:.3f} s, {cpu:.3f} CPU s, {speed}")


if __name__ == "__main__":
    main()
