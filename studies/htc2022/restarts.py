"""Passes: TMPD (padis_jax/solvers/tmpd.py) with a prior of coarse pixels, over and over, contours fitted in between.

A pass adds noise of some level to an image and takes it out again by TMPD (the idea of restart sampling, Xu et al.,
arXiv 2306.14878), and so has another chance to move what was put in a wrong place. A chain starts from noise, and goes
on by passes of less. After every pass a function may bring the image closer to the rays: contour.py does, on finer
pixels. The image of a chain is the mean of those after the later half of its passes, and the image the mean of several
chains: what a limited angle leaves open differs from chain to chain, and the mean shows the more of a thing the
likelier it is.

What coarse pixels get wrong is sharp: the rays of an image of pixels of side p and those of the disc itself differ at
edges, by more than the noise. Smoothed along the detector they agree, so that TMPD compares

    G A x with G y,    G a Gaussian along the bins, of deviation `smooth` times p as the detector sees it.

TMPD is told one deviation for all of y: values whose deviations differ are divided by them, in y and in A x alike.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from padis_jax import reconstruct
from padis_jax.operators import LinearOperator, from_functions
from padis_jax.operators.tomography import RayTransform
from padis_jax.prior import Prior
from padis_jax.solvers.tmpd import TMPD
from studies.htc2022.data import (
    BIN_MM,
    BINS,
    DETECTOR_DISTANCE,
    SOURCE_DISTANCE,
    TRUTH_PIXEL_MM,
    TRUTH_SIDE,
    Arc,
    scanner,
)

HIGHEST = 1.2  # that a pixel can become; material is 1
SIDE_MM = TRUTH_PIXEL_MM * TRUTH_SIDE
MAGNIFICATION = (SOURCE_DISTANCE + DETECTOR_DISTANCE) / SOURCE_DISTANCE  # of the centre on the detector


@dataclasses.dataclass(frozen=True)
class Passes:
    """Settings of a chain.

    Attributes:
      first_sigma: first noise level of the run from noise.
      first_levels: how many levels that takes.
      count: of the passes that follow.
      sigma: first noise level of a pass.
      levels: of a pass.
      last: last noise level of all of them.
      noise: share of the noise of y that TMPD is told; below 1 as smoothing takes some out.
      smooth: in pixels; 0 leaves y as it is.
      cg_steps: of TMPD.
      floor: of TMPD; it holds back the first levels, where the denoiser's derivative promises too much.
    """

    first_sigma: float = 3.0
    first_levels: int = 25
    count: int = 8
    sigma: float = 1.0
    levels: int = 12
    last: float = 0.05
    noise: float = 2 / 3
    smooth: float = 1.0
    cg_steps: int = 8
    floor: float = 0.03


def passes(
    key: Array,
    arc: Arc,
    prior: Prior,
    *,
    noise: float | np.ndarray,
    chains: int,
    settings: Passes | None = None,
    fit: Callable[[Array], Array] | None = None,
    progress: Callable[[], object] | None = None,
) -> Array:
    """The image of a scan: the mean of several chains. Its size is that which `fit` returns, else the prior's.

    Args:
      key: of all chains; that of a chain depends on its number alone.
      arc: its values are paths in mm.
      prior: for square images.
      noise: deviation of the values, in mm; one, or [views, bins].
      chains: how many, at least one.
      settings: of each.
      fit: what becomes of the image after each pass, that from noise included; None leaves it as it is.
      progress: called after each pass of each chain, that from noise included.

    Raises:
      ValueError: for noise that is not above 0, or no chain.
    """
    if chains < 1:
        raise ValueError("passes: at least one chain is needed")
    if not np.all(np.asarray(noise) > 0):
        raise ValueError("passes: the noise must be above 0 everywhere, as values are divided by it")
    settings = settings or Passes()
    typical = float(np.sqrt(np.mean(np.square(noise))))
    weights = jnp.asarray(np.broadcast_to(typical / np.asarray(noise, np.float32), arc.sinogram.shape))[..., None]
    scan = scanner(arc, prior.frame.image_shape[0])
    smooth = smoothing(scan, settings.smooth)
    y = weights * smooth(jnp.asarray(arc.sinogram)[..., None])
    operator = weighted(scan, weights, smooth)  # made once, so that all chains run what was compiled for the first
    tmpd = TMPD(
        noise=settings.noise * typical,
        floor=settings.floor,
        cg_steps=settings.cg_steps,
        low=0.0,
        high=HIGHEST,
    )

    def chain(key: Array) -> Array:
        image = jnp.zeros(scan.image_shape)
        images = []
        turns = [(settings.first_sigma, settings.first_levels)] + [(settings.sigma, settings.levels)] * settings.count
        for turn, (sigma, levels) in enumerate(turns):
            image = reconstruct(
                jax.random.fold_in(key, turn),
                y,
                operator,
                prior,
                solver=tmpd,
                levels=levels,
                sigma_max=sigma,
                sigma_min=settings.last,
                start=jax.image.resize(image, scan.image_shape, "linear"),
            ).image[..., 0]
            image = fit(image) if fit else image
            images.append(image)
            if progress:
                jax.block_until_ready(image)
                progress()
        return jnp.mean(jnp.stack(images[-max(1, (settings.count + 1) // 2) :]), axis=0)

    # the 0 stands for nothing, but docs/results.md has been computed with these random numbers
    keys = [jax.random.fold_in(jax.random.fold_in(key, number), 0) for number in range(chains)]
    return jnp.mean(jnp.stack([chain(key) for key in keys]), axis=0)


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


def weighted(scan: RayTransform, weights: Array, smooth: Callable[[Array], Array]) -> LinearOperator:
    """W G A, for images [side, side, 1]; weights [views, bins, 1]."""
    return from_functions(
        lambda image: weights * smooth(scan(image)),
        lambda y: scan.T(smooth(weights * y)),
        image_shape=(*scan.image_shape, 1),
    )
