"""Coarse to fine: TMPD (padis_jax/solvers/tmpd.py) with a prior of coarse pixels, then with finer ones from its image.

A pass adds noise of some level to an image and takes it out again by TMPD (the idea of restart sampling, Xu et al.,
arXiv 2306.14878), and so has another chance to move what was put in a wrong place. A chain starts from noise with the
coarse prior, with passes after that, and goes on with finer ones by passes of less noise. The mean of several chains is
the image: what a limited angle leaves open differs from chain to chain, and the mean shows the more of a thing the
likelier it is. Each chain keeps to an image of its own up to the end, as one that starts from a mean makes up its mind.

With `fit` (contour.py) the contours of every image are fitted to the rays before it goes on, on pixels half as wide
as the prior's, and the image of a chain is the mean of those after the later half of its last prior's passes.

What coarse pixels get wrong is sharp: the rays of an image of pixels of side p and those of the disc itself differ at
edges, by more than the noise. Smoothed along the detector they agree, so that a coarse stage compares

    G A x with G y,    G a Gaussian along the bins, of deviation `smooth` times p as the detector sees it.

TMPD is told one deviation for all of y: values whose deviations differ are divided by them, in y and in A x alike.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence

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
FIRST_SIGMA, FIRST_LEVELS = 3.0, 25  # of the chains from noise
SIDE_MM = TRUTH_PIXEL_MM * TRUTH_SIDE
MAGNIFICATION = (SOURCE_DISTANCE + DETECTOR_DISTANCE) / SOURCE_DISTANCE  # of the centre on the detector


@dataclasses.dataclass(frozen=True)
class Stage:
    """What is done with one prior.

    Attributes:
      sigma: first noise level of a pass.
      last: its last one.
      levels: how many.
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


COARSE = Stage(sigma=1.0, last=0.05, levels=25, passes=2, cg_steps=8, floor=0.03, noise=2 / 3, smooth=1.0)
FINE = Stage(sigma=0.5, last=0.05, levels=8, passes=2, cg_steps=10)


def coarse_to_fine(
    key: Array,
    arc: Arc,
    priors: Sequence[Prior],
    *,
    noise: float | np.ndarray,
    side: int,
    chains: int,
    coarse: Stage,
    fine: Stage,
    fit: Callable[[int], Callable[[Array], Array]] | None = None,
) -> Array:
    """The image [side, side] of a scan: the mean of chains that go from coarse to fine.

    Args:
      key: of all chains; that of a chain depends on its number alone.
      arc: its values are paths in mm.
      priors: each for twice as many pixels along a side as the one before, the last one for `side`; for half of it
        with `fit`.
      noise: deviation of the values, in mm; one, or [views, bins].
      side: pixels.
      chains: how many, at least one.
      coarse: what each does with the first prior.
      fine: with all others.
      fit: from a side to a function that fits an image of that side to the rays; None for none.

    Raises:
      ValueError: for noise that is not above 0, no prior or no chain.
    """
    if not priors or chains < 1:
        raise ValueError("coarse_to_fine needs one prior and one chain at least")
    if not np.all(np.asarray(noise) > 0):
        raise ValueError("coarse_to_fine: the noise must be above 0 everywhere, as values are divided by it")
    typical = float(np.sqrt(np.mean(np.square(noise))))
    weights = jnp.asarray(np.broadcast_to(typical / np.asarray(noise, np.float32), arc.sinogram.shape))[..., None]
    links = []  # of a chain, one for every prior; made once, so that all chains run what was compiled for the first
    for index, prior in enumerate(priors):
        stage = fine if index else coarse
        pixels = side >> (len(priors) - (0 if fit else 1) - index)
        scan = scanner(arc, pixels)
        smooth = smoothing(scan, stage.smooth)
        y = weights * smooth(jnp.asarray(arc.sinogram)[..., None])
        operator = weighted(scan, weights, smooth)
        turns = ([] if index else [(FIRST_SIGMA, FIRST_LEVELS)]) + [(stage.sigma, stage.levels)] * stage.passes
        after = fit(2 * pixels) if fit else None
        links.append(functools.partial(_link, y, operator, prior, stage, stage.noise * typical, turns, after))
    kept = max(1, ((fine if len(priors) > 1 else coarse).passes + 1) // 2) if fit else 1
    images = []
    for chain in range(chains):
        found = [jnp.zeros((1, 1))]
        for index, link in enumerate(links):
            found = link(found[-1], jax.random.fold_in(jax.random.fold_in(key, chain), index))
        images.append(jnp.mean(jnp.stack(found[-kept:]), axis=0))
    return jnp.mean(jnp.stack(images), axis=0)


def _link(
    y: Array,
    operator: LinearOperator,
    prior: Prior,
    stage: Stage,
    noise: float,
    turns: Sequence[tuple[float, int]],
    fit: Callable[[Array], Array] | None,
    image: Array,
    key: Array,
) -> list[Array]:
    """The images after each pass, (first noise level, levels) of `turns`, from an image of any size on."""
    settings = TMPD(noise=noise, floor=stage.floor, cg_steps=stage.cg_steps, low=0.0, high=HIGHEST)
    images = []
    for turn, (sigma, levels) in enumerate(turns):
        image = reconstruct(
            jax.random.fold_in(key, turn),
            y,
            operator,
            prior,
            solver="tmpd",
            settings=settings,
            levels=levels,
            sigma_max=sigma,
            sigma_min=stage.last,
            start=jax.image.resize(image, operator.image_shape[:2], "linear"),
        ).image[..., 0]
        if fit:
            image = fit(image)
        images.append(image)
    return images


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
