"""Gradients of convolutions inside loops on the CPU: what `padis_jax.convolution.conv_same` is for.

    python -m studies.speed.conv_in_scan [--small] [--rounds 3]

First a single 3 x 3 convolution: the gradient with respect to the image, four times in a row, written out (so that
the convolutions stand in the entry computation) and inside a `lax.scan`. Then steps of VE-DPS with the network of
configs/head_ct.py (--small: a smaller network and image): a jitted step called from Python, and the same step inside
the loop of `padis_jax.solvers.sampling`. Both with the gradient that autodiff makes ("plain") and with `conv_same`, in
turns, so that all suffer the same disturbances. Printed are the least time of all rounds, per step, and the ratio of
loop to no loop, which should be 1.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.tree_util import Partial

from padis_jax import convolution, unet
from padis_jax.config import Config, load_config_file
from padis_jax.denoiser import denoise_patches
from padis_jax.operators import ParallelBeam
from padis_jax.patches import frame_for
from padis_jax.prior import tiled_prior
from padis_jax.solvers import dps, sampling
from padis_jax.solvers.problem import build_problem
from padis_jax.unet import NetworkConfig, init_network

CONFIG = Path(__file__).parent.parent / "configs" / "head_ct.py"
STEPS = 4
Call = Callable[[], Any]


def plain_conv(x: Array, kernel: Array) -> Array:
    """`conv_same` without its own gradient."""
    return lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))


CONVOLUTIONS: dict[str, Callable[[Array, Array], Array]] = {"plain": plain_conv, "conv_same": convolution.conv_same}


def least_times(calls: dict[str, Call], rounds: int) -> dict[str, float]:
    """Seconds of each call: the least of `rounds`, run in turns after a first round that compiles."""
    best = dict.fromkeys(calls, np.inf)
    for number in range(rounds + 1):
        for name, call in calls.items():
            start = time.perf_counter()
            jax.block_until_ready(call())
            if number:
                best[name] = min(best[name], time.perf_counter() - start)
    return best


def single_convolution(batch: int, side: int, channels: int, rounds: int) -> None:
    """One convolution's gradient with respect to the image."""
    x = jax.random.normal(jax.random.key(0), (batch, side, side, channels))
    kernel = jax.random.normal(jax.random.key(1), (3, 3, channels, channels)) / (6 * channels**0.5)
    calls: dict[str, Call] = {}
    for name, conv in CONVOLUTIONS.items():
        written_out, scanned = gradient_chain(conv)
        calls[f"{name} out"], calls[f"{name} in"] = Partial(written_out, x, kernel), Partial(scanned, x, kernel)
    best = least_times(calls, rounds)
    work = 2 * 2 * 9 * channels**2 * batch * side**2 / 1e9  # the convolution and its gradient
    print(f"one convolution, image [{batch}, {side}, {side}, {channels}], {work:.1f} GFLOP per step")
    for name in CONVOLUTIONS:
        report(name, best[f"{name} out"] / STEPS, best[f"{name} in"] / STEPS, work)


def gradient_chain(conv: Callable[[Array, Array], Array]) -> tuple[Callable[..., Array], Callable[..., Array]]:
    """x <- grad 1/2 ||conv(x)||^2, STEPS times: (written out, in a scan)."""

    def step(x: Array, kernel: Array) -> Array:
        return jax.grad(lambda a: 0.5 * jnp.sum(jnp.square(conv(a, kernel))))(x)

    def written_out(x: Array, kernel: Array) -> Array:
        for _ in range(STEPS):
            x = step(x, kernel)
        return x

    def scanned(x: Array, kernel: Array) -> Array:
        return lax.scan(lambda a, _: (step(a, kernel), None), x, None, length=STEPS)[0]

    return jax.jit(written_out), jax.jit(scanned)


def dps_steps(network: NetworkConfig, side: int, patch: int, rounds: int) -> None:
    """Steps of VE-DPS on a 20-view problem, from Python and in the solvers' loop."""
    calls: dict[str, Call] = {}
    for name, conv in CONVOLUTIONS.items():
        with mock.patch.object(unet, "conv_same", conv):
            from_python, in_loop = dps_calls(network, side, patch)
            calls[f"{name} out"], calls[f"{name} in"] = from_python, in_loop
            for label in ("out", "in"):
                start = time.perf_counter()
                jax.block_until_ready(calls[f"{name} {label}"]())  # traced here, with this convolution
                print(f"  compiled and run once: {name} {label}, {time.perf_counter() - start:.1f} s", flush=True)
    best = least_times(calls, rounds)
    count = frame_for((side, side), patch).patch_count
    print(f"DPS step, {count} patches of {patch} x {patch}, network {network.model_channels} x {network.channel_mult}")
    for name in CONVOLUTIONS:
        report(name, best[f"{name} out"] / STEPS, best[f"{name} in"] / STEPS)


def dps_calls(network: NetworkConfig, side: int, patch: int) -> tuple[Call, Call]:
    """STEPS steps as calls: (one jitted step at a time, all in the loop)."""
    frame = frame_for((side, side), patch)
    operator = ParallelBeam(
        image_shape=(side, side), angles=(np.arange(20) + 0.5) * np.pi / 20, detector_count=2 * side
    )
    params = init_network(jax.random.key(0), network)
    # A function of its own: equal priors share compiled code, and this one would get that of the other convolution.
    denoise = Partial(lambda p, x, positions, sigma: denoise_patches(network, p, x, positions, sigma), params)
    prior = tiled_prior(denoise, frame)
    sinogram = operator(jnp.full((side, side, 1), 0.5))
    step = Partial(dps.step, dps.DPS(), build_problem(operator, prior.denoise, sinogram, frame, channels=1))
    noises = sampling.noises(np.geomspace(1, 0.1, STEPS))
    start = jax.random.normal(jax.random.key(1), (*frame.padded_shape, 1))
    keys = jax.random.split(jax.random.key(2), STEPS)
    one = jax.jit(lambda s, key, x, noise: s(key, x, noise)[0])

    def from_python() -> Array:
        x = start
        for i in range(STEPS):
            x = one(step, keys[i], x, jax.tree.map(lambda a, i=i: a[i], noises))
        return x

    return from_python, lambda: sampling.run(jax.random.key(2), step, start, noises)[0]


def report(name: str, out: float, inside: float, work: float | None = None) -> None:
    """One line."""
    rates = "" if work is None else f"  {work / out:5.0f} / {work / inside:5.0f} GFLOP/s"
    print(
        f"  {name:9s}  no loop {1e3 * out:8.1f} ms  loop {1e3 * inside:8.1f} ms  ratio {inside / out:.2f}{rates}",
        flush=True,
    )


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", action="store_true", help="a smaller network and image, under three minutes")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    print(f"jax {jax.__version__} on {jax.devices()[0].platform}; least of {arguments.rounds} rounds, time per step")
    if arguments.small:
        single_convolution(8, 32, 64, arguments.rounds)
        dps_steps(NetworkConfig(model_channels=64, channel_mult=(1,), num_blocks=1), 64, 32, arguments.rounds)
    else:
        single_convolution(25, 56, 64, arguments.rounds)
        network = load_config_file(CONFIG, Config).network
        dps_steps(network, 256, 56, arguments.rounds)


if __name__ == "__main__":
    main()
