"""Coarse to fine: TMPD (padis_jax/solvers/tmpd.py) with a prior of coarse pixels, then with finer ones from its image.

A stage runs `passes` of TMPD: each adds noise of its first level to an image and takes it out again (the idea of
restart sampling, Xu et al., arXiv 2306.14878), and so has another chance to move what was put in a wrong place. A fine
stage takes the image of the last pass every time. The coarse one begins with chains from noise, and always goes on from
the image of least energy so far, which it hands on:

    E(x) = c ||G A x - G y||^2 / (2 s^2) + integral E_n ||x - D(x + sigma n, sigma)||^2 / sigma^2 d log sigma

s is the deviation of the noise, and c the share of the smoothed values that are independent. The second term is
-log p(x) but for a constant (Kong, Brekelmans and Ver Steeg, arXiv 2302.03792), here over the noise levels that tell
shapes apart. It is what the network thinks of a whole image, and no chain knows it of itself.

What coarse pixels get wrong is sharp: the rays of an image of pixels of side p and those of the disc itself differ at
edges, by more than the noise. Smoothed along the detector they agree, so that a coarse stage compares

    G A x with G y,    G a Gaussian along the bins, of deviation `smooth` times p as the detector sees it.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from padis_jax import reconstruct
from padis_jax.operators import LinearOperator, from_functions
from padis_jax.operators.tomography import RayTransform
from padis_jax.prior import Prior
from padis_jax.scans.htc2022 import (
    BIN_MM,
    BINS,
    DETECTOR_DISTANCE,
    SOURCE_DISTANCE,
    TRUTH_PIXEL_MM,
    TRUTH_SIDE,
    Arc,
    scanner,
)
from padis_jax.solvers.tmpd import TMPD

HIGHEST = 1.2  # that a pixel can become; material is 1
FIRST_SIGMA = 3.0  # of the chains from noise
SIDE_MM = TRUTH_PIXEL_MM * TRUTH_SIDE
TURNS = (1.0, 0.5, 2.0)  # of the first level of the coarse passes
ENERGY_SIGMAS, ENERGY_DRAWS = np.geomspace(0.05, 2.0, 8), 4
MAGNIFICATION = (SOURCE_DISTANCE + DETECTOR_DISTANCE) / SOURCE_DISTANCE  # of the centre on the detector


@dataclasses.dataclass(frozen=True)
class Stage:
    """What is done with one prior.

    Attributes:
      sigma: first noise level of a pass; where energies are compared, that, half of it and twice as much in turn.
      last: its last one.
      levels: how many, and as many for a chain from noise.
      passes: how many.
      cg_steps: of TMPD.
      floor: of TMPD; above 0 it holds back the first levels, where the denoiser's derivative promises too much.
      noise: share of the noise of y that TMPD is told; below 1 where smoothing takes some out.
      smooth: in pixels; 0 leaves y as it is.
    """

    sigma: float
    last: float
    levels: int
    passes: int
    cg_steps: int
    floor: float = 0.0
    noise: float = 1.0
    smooth: float = 0.0


COARSE = Stage(sigma=1.0, last=0.05, levels=25, passes=5, cg_steps=8, floor=0.03, noise=2 / 3, smooth=1.0)
FINE = Stage(sigma=0.5, last=0.05, levels=8, passes=4, cg_steps=10)


def coarse_to_fine(
    key: Array, arc: Arc, priors: Sequence[Prior], *, noise: float, side: int, chains: int, coarse: Stage, fine: Stage
) -> Array:
    """The image [side, side] of a scan.

    Args:
      key: of all chains and passes.
      arc: its values are paths in mm.
      priors: each for twice as many pixels along a side as the one before, the last one for `side`.
      noise: deviation of a value, in mm.
      side: pixels.
      chains: from noise, that the first stage begins with.
      coarse: the first stage.
      fine: all others.
    """
    image = None
    for index, prior in enumerate(priors):
        stage, pixels = fine if index else coarse, side >> (len(priors) - 1 - index)
        scan = scanner(arc, pixels)
        smooth, stage_key = smoothing(scan, stage.smooth), jax.random.fold_in(key, index)
        y, operator = smooth(jnp.asarray(arc.sinogram)[..., None]), smoothed(scan, smooth) if stage.smooth else scan
        settings = TMPD(noise=stage.noise * noise, floor=stage.floor, cg_steps=stage.cg_steps, low=0.0, high=HIGHEST)
        one_pass = functools.partial(_pass, stage_key, (y, operator, prior), settings, stage)
        if image is None:
            independent = 1 / max(1.0, 2 * np.sqrt(np.pi) * _width(scan, stage.smooth))
            energy = functools.partial(
                _energy,
                jax.random.fold_in(key, len(priors)),
                y,
                operator,
                prior,
                independent / (stage.noise * noise) ** 2,
            )
            image = _search(one_pass, energy, (pixels, pixels), chains, stage)
        else:
            image = jax.image.resize(image, (pixels, pixels), "linear")
            for turn in range(stage.passes):
                image = one_pass(turn, image, stage.sigma)
    if image is None:
        raise ValueError("coarse_to_fine needs one prior at least")
    return image


def _search(
    one_pass: Callable[[int, Array, float], Array],
    energy: Callable[[Array], float],
    shape: tuple[int, int],
    chains: int,
    stage: Stage,
) -> Array:
    """The image of least energy among those of chains from noise and of passes, each from the best one so far."""
    found = [one_pass(chain, jnp.zeros(shape), FIRST_SIGMA) for chain in range(chains)]
    best = min(found, key=energy)
    for turn in range(stage.passes):
        image = one_pass(chains + turn, best, stage.sigma * TURNS[turn % len(TURNS)])
        best = min(best, image, key=energy)
    return best


def _energy(key: Array, y: Array, operator: Any, prior: Prior, weight: float, image: Array) -> float:
    misfit = jnp.sum(jnp.square(operator(image[..., None]) - y))
    return float(weight * misfit / 2 + surprise(key, image, prior))


@jax.jit
def surprise(key: Array, image: Array, prior: Prior) -> Array:
    """The integral of E(x), by ENERGY_DRAWS draws at each of ENERGY_SIGMAS: -log p of an image [H, W], in nats.

    The same key gives images the same noise, so that their difference is more exact than either.
    """
    sigmas = jnp.repeat(jnp.asarray(ENERGY_SIGMAS, jnp.float32), ENERGY_DRAWS)

    def at(arguments: tuple[Array, Array]) -> Array:
        sigma, draw = arguments
        noise_key, tiling_key = jax.random.split(draw)
        plane = prior.frame.pad(image[..., None])
        plane = plane + sigma * jax.random.normal(noise_key, plane.shape)
        clean = prior.frame.crop(prior.denoise(tiling_key, plane, sigma))[..., 0]
        return jnp.sum(jnp.square((image - clean) / sigma))

    errors = jax.lax.map(at, (sigmas, jax.random.split(key, len(sigmas))))
    return jnp.sum(errors) / ENERGY_DRAWS * np.log(ENERGY_SIGMAS[1] / ENERGY_SIGMAS[0])


def _pass(
    key: Array, task: tuple[Array, Any, Prior], settings: TMPD, stage: Stage, turn: int, begin: Array, sigma: float
) -> Array:
    y, operator, prior = task
    return reconstruct(
        jax.random.fold_in(key, turn),
        y,
        operator,
        prior,
        solver="tmpd",
        settings=settings,
        levels=stage.levels,
        sigma_max=sigma,
        sigma_min=stage.last,
        start=begin,
    ).image[..., 0]


def smoothing(scan: RayTransform, pixels: float) -> Callable[[Array], Array]:
    """G: [views, bins, 1] -> the same, symmetric. Weights that would fall off the detector are left out.

    Args:
      scan: a fan beam.
      pixels: deviation of the Gaussian at the centre of rotation.
    """
    if not pixels:
        return lambda y: y
    bins = np.arange(scan.measurement_shape[1])
    distance = (bins[:, None] - bins[None]) / _width(scan, pixels)
    weights = np.exp(-np.square(distance) / 2)
    matrix = jnp.asarray(weights / weights.sum(1).max(), jnp.float32)
    return lambda y: jnp.einsum("vbc,bd->vdc", y, matrix)


def _width(scan: RayTransform, pixels: float) -> float:
    """So many pixels at the centre of rotation, in bins."""
    return float(pixels * SIDE_MM / scan.image_shape[0] * MAGNIFICATION * scan.measurement_shape[1] / (BINS * BIN_MM))


def smoothed(scan: RayTransform, smooth: Callable[[Array], Array]) -> LinearOperator:
    """G A, for images [side, side, 1]."""
    return from_functions(
        lambda image: smooth(scan(image)), lambda y: scan.T(smooth(y)), image_shape=(*scan.image_shape, 1)
    )
