"""A patch network that sees the whole noisy image as well, reduced to the patch's grid: docs/studies/context.md.

    plane      x + sigma n, padded as the frame pads it, [Hp, Wp, 1]
    reduced    R plane R*,  row i of R the average over [i, i + 1) Hp / P                       [P, P, 1]
    context    reduced / sqrt((g sigma)^2 + s^2),   g = rms ||row of R_y|| rms ||row of R_x||,  s = sigma_data
    D          that of denoiser.py, of [c_in patch, position, context]

Averaging leaves g sigma of the noise, with g = 0.17, 0.10 and 0.05 for P = 56, 32 and 16 on a plane of 304 pixels. So
the context has a scale of its own, which gives it the variance that EDM wants of every input: c_in of the patch would
shrink what can be seen of the image to s / sigma where sigma is large, which is where context is to help. All patches
of an image have the same context, so it is a position channel that is computed from the plane. In training the noise is
drawn for the whole plane, and the patch is cut out of the noisy plane.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.tree_util import Partial

from padis_jax.batches import PatchConfig
from padis_jax.denoiser import denoise_patches
from padis_jax.noise import NoiseConfig, draw_sigma, loss_weight
from padis_jax.patches import Frame
from padis_jax.positions import plane_positions
from padis_jax.prior import Prior
from padis_jax.tilings import Tilings
from padis_jax.unet import NetworkConfig, Params

FIRST = ("enc0_conv", "enc1_aux_residual")  # layers that see the network's input


class Planes(NamedTuple):
    """Clean planes [b, Hp, Wp, 1], positions of the patches [b, p, p, 2] and their corners int32 [b, 2]."""

    planes: np.ndarray
    positions: np.ndarray
    corners: np.ndarray


@functools.cache
def averaging(side: int, cells: int) -> np.ndarray:
    """R, float32 [cells, side]: row i has the share of each pixel in the i-th of `cells` equal parts; rows sum to 1."""
    edges = np.arange(cells + 1) * side / cells
    pixels = np.arange(side)
    ends = np.minimum(edges[1:, None], pixels + 1) - np.maximum(edges[:-1, None], pixels)
    return (np.maximum(ends, 0) * cells / side).astype(np.float32)


def noise_gain(sides: tuple[int, int], cells: int) -> float:
    """g, the deviation of white noise of deviation 1 after the reduction: the root of its mean variance over cells."""
    height, width = (np.mean(np.sum(np.square(averaging(side, cells)), axis=1)) for side in sides)
    return float(np.sqrt(height * width))


def context(sigma_data: float, planes: Array, sigma: Array, size: int) -> Array:
    """The channel of planes [b, Hp, Wp, 1] of noise levels [b], for patches of `size` pixels: [b, size, size, 1]."""
    sides = planes.shape[1], planes.shape[2]
    rows, columns = (jnp.asarray(averaging(side, size)) for side in sides)
    reduced = jnp.einsum("ih,bhwc,jw->bijc", rows, planes, columns)
    return reduced / jnp.sqrt(jnp.square(noise_gain(sides, size) * sigma) + sigma_data**2)[:, None, None, None]


def widened(params: Params, network: NetworkConfig) -> tuple[Params, NetworkConfig]:
    """The network with one more channel of its input, which has no effect yet: its kernels are 0.

    Raises:
      ValueError: if it has not 2 position channels and 1 of the image.
    """
    if (network.image_channels, network.position_channels) != (1, 2):
        raise ValueError("context is for a network of grey images with 2 position channels")
    out = dict(params)
    for name in FIRST:
        if name in params:
            kernel = jnp.asarray(params[name]["kernel"])
            more = jnp.zeros((*kernel.shape[:2], 1, kernel.shape[3]), kernel.dtype)
            out[name] = dict(params[name]) | {"kernel": jnp.concatenate([kernel, more], axis=2)}
    return out, dataclasses.replace(network, position_channels=3)


@dataclasses.dataclass(frozen=True)
class ContextDenoise:
    """(params, key, plane [Hp, Wp, 1], sigma []) -> plane by one random tiling; equal ones share compiled code."""

    network: NetworkConfig
    frame: Frame

    def __call__(self, params: Params, key: Array, plane: Array, sigma: Array) -> Array:
        """The expected clean plane."""
        (seen,) = context(self.network.sigma_data, plane[None], jnp.asarray(sigma)[None], self.frame.patch)

        def denoise(patches: Array, positions: Array, sigma: Array) -> Array:
            same = jnp.broadcast_to(seen, (len(patches), *seen.shape))
            where = jnp.concatenate([positions, same], axis=-1)
            return denoise_patches(self.network, params, patches, where, sigma)

        return Tilings(denoise, self.frame, random=True, tilings=1, patch_batch=None)(key, plane, sigma)


def context_prior(network: NetworkConfig, params: Params, frame: Frame) -> Prior:
    """The prior of a network that `widened` made, for any solver."""
    return Prior(Partial(ContextDenoise(network, frame), params), frame)


def draw_planes(padded: np.ndarray, config: PatchConfig, seed: int, step: int) -> Planes:
    """The batch of a step: the very patches of `batches.draw_batch`, each with all of its plane.

    Args:
      padded: [n, Hp, Wp, 1] from `pad_images`, in memory.
      config: sizes, probabilities, counts.
      seed: root seed of the run.
      step: number of the step.
    """
    rng = np.random.default_rng([seed, step])
    index = rng.choice(len(config.sizes), p=np.asarray(config.probabilities) / sum(config.probabilities))
    size, count = config.sizes[index], config.batch[index]
    n, height, width, _ = padded.shape
    image = rng.integers(0, n, count)
    top, left = rng.integers(0, height - size + 1, count), rng.integers(0, width - size + 1, count)
    mirrored = rng.random(count) < 0.5 if config.flips else np.zeros(count, bool)
    planes = np.asarray(padded[image], np.float32)
    planes[mirrored] = planes[mirrored][:, :, ::-1]
    where = plane_positions((height, width))
    positions = np.stack([where[y : y + size, x : x + size] for y, x in zip(top, left, strict=True)])
    return Planes(planes, positions, np.stack([top, left], axis=1).astype(np.int32))


@dataclasses.dataclass(frozen=True)
class ContextLoss:
    """The loss of loss.py with context, for `training.step`; a step has the noise levels that `DenoisingLoss` draws."""

    network: NetworkConfig
    noise: NoiseConfig = NoiseConfig()

    def __call__(self, params: Params, key: Array, planes: Array, positions: Array, corners: Array) -> Array:
        """(params, key, *Planes) -> scalar."""
        size, data = positions.shape[1], self.network.sigma_data
        sigma_key, noise_key, dropout_key = jax.random.split(key, 3)
        sigma = draw_sigma(sigma_key, self.noise, planes.shape[0])
        noisy = planes + sigma[:, None, None, None] * jax.random.normal(noise_key, planes.shape, jnp.float32)

        def cut(plane: Array, corner: Array) -> Array:
            return lax.dynamic_slice(plane, (corner[0], corner[1], jnp.int32(0)), (size, size, plane.shape[-1]))

        patches, given = jax.vmap(cut)(planes, corners), jax.vmap(cut)(noisy, corners)
        where = jnp.concatenate([positions, context(data, noisy, sigma, size)], axis=-1)
        clean = denoise_patches(self.network, params, given, where, sigma, dropout_key=dropout_key)
        return jnp.mean(loss_weight(sigma, data)[:, None, None, None] * jnp.square(clean - patches))
