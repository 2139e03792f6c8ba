"""Restarts: TMPD (padis_jax/solvers/tmpd.py) with a prior of coarse pixels, again and again, a level set in between.

A restart adds noise of some level to an image and removes it again by TMPD (the idea of restart sampling, Xu et al.,
arXiv 2306.14878), and so has another chance to move what was put in a wrong place. A chain is a run from noise and some
restarts from a lower level. After every run a function may bring the image closer to the rays: level_set.py does, on
finer pixels. The image of a chain is the mean of those after the later half of its restarts, and the result the mean of
several chains: what a limited angle leaves open differs from chain to chain, and the mean shows the more of a thing the
likelier it is.

What coarse pixels get wrong is sharp: the rays of an image of pixels of side p and those of the disc itself differ at
edges, by more than the noise. Smoothed along the detector they agree, so TMPD compares

    G A x with G y,    G a Gaussian along the bins, of deviation SMOOTH times p as the detector sees it.

TMPD takes one deviation for all of y: values whose deviations differ are divided by them, in y and in A x alike.
"""

from __future__ import annotations

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
from studies.htc2022.data import BIN_MM, BINS, DETECTOR_DISTANCE, FIELD, SOURCE_DISTANCE, Arc, scanner

FIRST_SIGMA, FIRST_LEVELS = 3.0, 25  # first noise level of the run from noise; its levels
COUNT, SIGMA, LEVELS = 8, 1.0, 12  # of restarts; the first noise level of one; its levels
LAST = 0.05  # noise level of every run
SHARE = 2 / 3  # of the noise of y that TMPD assumes; below 1 as smoothing removes some
SMOOTH = 1.0  # pixels
CG_STEPS, FLOOR = 8, 0.03  # of TMPD; the floor holds back first levels, where the derivative of D promises too much
HIGHEST = 1.2  # that a pixel can become; material is 1
MAGNIFICATION = (SOURCE_DISTANCE + DETECTOR_DISTANCE) / SOURCE_DISTANCE  # of the centre on the detector


def restarts(
    key: Array,
    arc: Arc,
    prior: Prior,
    *,
    noise: float | np.ndarray,
    chains: int,
    fit: Callable[[Array], Array] = lambda image: image,
    progress: Callable[[], object] = lambda: None,
) -> Array:
    """The image of a scan: the mean of several chains. Its size is that which `fit` returns, else the prior's.

    Args:
      key: of all chains; that of a chain depends on its number alone.
      arc: its values are paths in mm.
      prior: for square images.
      noise: deviation of the values, in mm, above 0; one, or [views, bins].
      chains: how many, at least one.
      fit: what the image becomes after each run.
      progress: called after each run.
    """
    typical = float(np.sqrt(np.mean(np.square(noise))))
    weights = jnp.asarray(np.broadcast_to(typical / np.asarray(noise, np.float32), arc.sinogram.shape))[..., None]
    scan = scanner(arc, prior.frame.image_shape[0])
    smooth = smoothing(scan, SMOOTH)
    y = weights * smooth(jnp.asarray(arc.sinogram)[..., None])
    operator = weighted(scan, weights, smooth)  # made once, so that all chains run what was compiled for the first
    tmpd = TMPD(noise=SHARE * typical, floor=FLOOR, cg_steps=CG_STEPS, low=0.0, high=HIGHEST)
    runs = [(FIRST_SIGMA, FIRST_LEVELS)] + [(SIGMA, LEVELS)] * COUNT

    def chain(key: Array) -> Array:
        image, images = jnp.zeros(scan.image_shape), []
        for number, (sigma, levels) in enumerate(runs):
            solved = reconstruct(
                jax.random.fold_in(key, number),
                y,
                operator,
                prior,
                solver=tmpd,
                levels=levels,
                sigma_max=sigma,
                sigma_min=LAST,
                start=jax.image.resize(image, scan.image_shape, "linear"),
            )
            image = jax.block_until_ready(fit(solved.image[..., 0]))
            images.append(image)
            progress()
        return jnp.mean(jnp.stack(images[-max(1, (COUNT + 1) // 2) :]), axis=0)

    # The 0 means nothing, but the figures of docs/studies/htc2022.md were computed with these random numbers.
    keys = [jax.random.fold_in(jax.random.fold_in(key, number), 0) for number in range(chains)]
    return jnp.mean(jnp.stack([chain(key) for key in keys]), axis=0)


def smoothing(scan: RayTransform, pixels: float) -> Callable[[Array], Array]:
    """G: [views, bins, 1] -> the same, symmetric. Weights that would fall off the detector are left out.

    Args:
      scan: a fan beam.
      pixels: deviation of the Gaussian at the centre of rotation, above 0.
    """
    count = scan.measurement_shape[1]
    width = pixels * FIELD / scan.image_shape[0] * MAGNIFICATION * count / (BINS * BIN_MM)  # in bins
    weights = np.exp(-np.square((np.arange(count)[:, None] - np.arange(count)) / width) / 2)
    matrix = jnp.asarray(weights / weights.sum(1).max(), jnp.float32)
    return lambda y: jnp.einsum("vbc,bd->vdc", y, matrix)


def weighted(scan: RayTransform, weights: Array, smooth: Callable[[Array], Array]) -> LinearOperator:
    """W G A, for images [side, side, 1]; weights [views, bins, 1]."""
    return from_functions(
        lambda image: weights * smooth(scan(image)),
        lambda y: scan.T(smooth(weights * y)),
        image_shape=(*scan.image_shape, 1),
    )
