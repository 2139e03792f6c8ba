"""Work and traffic of the network counted by hand from the shapes of its parameters.

A 3 x 3 convolution of c_in to c_out channels on h x w pixels is 2 * 9 c_in c_out h w floating-point operations, a 1 x 1
one 2 c_in c_out h w, attention with c channels 4 c (h w)^2. Normalisation, activations and sums are left out: they are
traffic, not work. Traffic of a forward pass: every convolution reads its input and its kernel and writes its output,
and every normalisation reads its input twice (moments, then values) and writes its output, all in `BYTES` per number.
"""

from __future__ import annotations

import functools
import math
import re
from typing import NamedTuple

import jax
from flax.traverse_util import flatten_dict

from padis_jax.config import Config
from padis_jax.unet import NetworkConfig, init_network

BYTES = 2  # bfloat16


class Cost(NamedTuple):
    """flops, and bytes to and from memory."""

    flops: float
    bytes: float


@functools.cache
def _shapes(config: NetworkConfig) -> dict[str, tuple[int, ...]]:
    found = jax.eval_shape(lambda: init_network(jax.random.key(0), config))
    return {name: tuple(leaf.shape) for name, leaf in flatten_dict(found, sep="/").items()}


def parameters(config: NetworkConfig) -> int:
    """How many."""
    return sum(map(math.prod, _shapes(config).values()))


def forward(config: NetworkConfig, side: int, count: int, *, padding: bool = True) -> Cost:
    """The network on `count` patches of `side` x `side` pixels.

    `padding` counts the products with zeros beyond the border too, which hardware does and XLA's count leaves out: of
    the 3 s positions of a 3-tap filter on s pixels 3 s - 2 are inside.
    """
    flops = moved = 0.0
    for name, shape in _shapes(config).items():
        level = re.match(r"(?:enc|dec)(\d+)", name)
        here = side >> int(level.group(1)) if level else 1
        pixels = count * here**2
        if len(shape) == 4:
            flops += 2 * 9 * shape[2] * shape[3] * pixels * (1 if padding else (1 - 2 / (3 * here)) ** 2)
            moved += pixels * (shape[2] + shape[3]) + 9 * shape[2] * shape[3]
        elif len(shape) == 2:
            once = "affine" in name or "map_layer" in name  # per patch, not per pixel
            flops += 2 * shape[0] * shape[1] * (count if once else pixels)
            moved += (count if once else pixels) * sum(shape) + shape[0] * shape[1]
        elif name.endswith("scale"):
            moved += 3 * pixels * shape[0]
        if "qkv/kernel" in name:
            flops += 4 * shape[0] * pixels**2 / count
            moved += 2 * pixels**2 / count
    return Cost(flops, moved * BYTES)


def training_step(config: Config) -> Cost:
    """A step of the mean size: forward, and two products of that size backward; the optimiser's arrays in float32.

    Adam and the average read gradient, parameters, two moments and the average, and write the last four.
    """
    patches = zip(config.patches.probabilities, config.patches.sizes, config.patches.batch, strict=True)
    found = [(p, forward(config.network, s, b)) for p, s, b in patches]
    update = 9 * 4 * parameters(config.network)
    return Cost(3 * sum(p * c.flops for p, c in found), 3 * sum(p * c.bytes for p, c in found) + update)
