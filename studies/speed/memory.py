"""Peak memory and time of one DPS step against the side of the image: patches in chunks, all at once, whole image.

    python -m studies.speed.memory                              sides 256, 512, 1024 and 2048; 4096 is compiled only
    python -m studies.speed.memory --sides 64 128 --compiled 256 --patch-batch 4

DPS differentiates the network, which is what takes memory. The operator is a mask of pixels, which takes none. The
network is a small one (`CONFIG`), so that everything ends in minutes on two cores. Each case runs in a process of its
own. Its cell of the table: the MiB that the compiled step adds by XLA's estimate (temporary arrays and results), the
MiB by which the resident set of the process grows at its peak while the step runs (Linux), seconds of a second step. A
case whose estimate exceeds what is available is not run. "no network" is the same step with a denoiser that computes
next to nothing: what is left grows with the plane.
"""

from __future__ import annotations

import argparse
import time
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.tree_util import Partial

from padis_jax.batches import PatchConfig
from padis_jax.config import Config
from padis_jax.denoiser import denoise_patches
from padis_jax.devices.memory import Growth, analysed, free_memory
from padis_jax.operators.linear import from_functions
from padis_jax.patches import frame_for
from padis_jax.positions import plane_positions
from padis_jax.prior import Prior, patch_prior, tiled_prior
from padis_jax.solvers import dps
from padis_jax.solvers.problem import build_problem
from padis_jax.solvers.sampling import Noise
from padis_jax.unet import NetworkConfig, init_network

CONFIG = Config(
    network=NetworkConfig(model_channels=8, channel_mult=(1, 2), num_blocks=1, dropout=0.0, sigma_data=0.3),
    patches=PatchConfig(sizes=(64,), probabilities=(1.0,), batch=(8,)),
)
MODES = ("patches, chunked", "patches, all", "whole image", "no network")


def make_prior(mode: str, side: int, patch_batch: int) -> Prior:
    """The prior of one of MODES; that of the whole image sees it as one patch, the ring around it is 0."""
    frame, network = frame_for((side, side), CONFIG.patches.largest), CONFIG.network
    params = init_network(jax.random.key(0), network)
    if mode.startswith("patches"):
        return patch_prior(network, params, frame, patch_batch=patch_batch if mode == "patches, chunked" else None)

    def no_network(patches: Array, positions: Array, sigma: Array) -> Array:
        """Uses all that a network is given."""
        scale = jnp.exp(-sigma)[:, None, None, None]
        return jnp.tanh(patches * scale + jnp.sum(positions, axis=-1, keepdims=True))

    def whole(params: Any, key: Array, plane: Array, sigma: Array) -> Array:
        image, where = frame.crop(plane), frame.crop(jnp.asarray(plane_positions(frame.padded_shape)))
        return frame.pad(denoise_patches(network, params, image[None], where[None], sigma[None])[0])

    if mode == "no network":
        return tiled_prior(no_network, frame, patch_batch=patch_batch)
    return Prior(Partial(whole, params), frame, channels=network.image_channels)


def measure(mode: str, side: int, patch_batch: int, run: bool) -> str:
    """One case, in this process: estimated MiB / growth of its peak in MiB / seconds of a second step."""
    prior, shape = make_prior(mode, side, patch_batch), (side, side, CONFIG.network.image_channels)
    operator = from_functions(lambda x: x, lambda y: y, image_shape=shape)
    y = jax.random.uniform(jax.random.key(1), shape)
    x = prior.frame.pad(y)

    @jax.jit
    def step(prior: Prior, y: Array, key: Array, x: Array) -> Array:
        problem = build_problem(operator, prior.denoise, y, prior.frame, channels=prior.channels)
        return dps.step(dps.DPS(), problem, key, x, Noise(jnp.float32(0.5), jnp.float32(0.4)))[0]

    compiled = step.lower(prior, y, jax.random.key(2), x).compile()
    memory = analysed(compiled)
    estimate = f"{memory.added / 2**20:.3g}" if memory.added < 10 * 2**20 else f"{memory.added / 2**20:.0f}"
    if not run or memory.total > 0.9 * free_memory():
        return f"{estimate} / - / -"
    keys = jax.block_until_ready((jax.random.key(2), jax.random.key(3), x))[:2]
    growth = Growth()
    jax.block_until_ready(compiled(prior, y, keys[0], x))
    peak, begin = growth() / 2**20, time.perf_counter()
    jax.block_until_ready(compiled(prior, y, keys[1], x))
    return f"{estimate} / {peak:.3g} / {time.perf_counter() - begin:.2g}"


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sides", type=int, nargs="+", default=[256, 512, 1024, 2048])
    parser.add_argument("--compiled", type=int, nargs="*", default=[4096], help="sides that are compiled, not run")
    parser.add_argument("--patch-batch", type=int, default=16)
    arguments = parser.parse_args()
    sides = [*arguments.sides, *arguments.compiled]
    print(f"|  | {' | '.join(f'{side} x {side}' for side in sides)} |\n" + "|---" * (len(sides) + 1) + "|")
    for mode in MODES:
        print(f"| {mode} |", end="", flush=True)
        for side in sides:
            with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
                case = process.submit(measure, mode, side, arguments.patch_batch, side in arguments.sides)
                try:
                    print(f" {case.result()} |", end="", flush=True)
                except BrokenProcessPool:
                    print(" killed |", end="", flush=True)
        print()


if __name__ == "__main__":
    main()
