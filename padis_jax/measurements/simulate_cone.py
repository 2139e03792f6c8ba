"""Simulated cone-beam scans of a volume, under the two protocols of `simulate`."""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp
from einops import reduce
from jax import Array

from padis_jax.fields import check_count, single
from padis_jax.measurements.simulate import Measurement, check_counts, counted
from padis_jax.operators.cone import ConeTransform
from padis_jax.operators.cone_rays import ConeRays
from padis_jax.operators.per_channel import leaf


def fine_cone_integrals(volume: Array, operator: ConeTransform, *, refinement: int = 2, rays: int = 2) -> Array:
    """Line integrals of a finer object over pixels with a width, [views, rows, columns], in the unit of A x.

    Args:
      volume: [D, H, W], interpolated linearly to a grid `refinement` times finer along every axis.
      operator: the coarse scan.
      rays: rays averaged over each pixel of the detector, along its rows and along its columns.

    Raises:
      ValueError: counts below 1.
    """
    for name, count in (("refinement", refinement), ("rays", rays)):
        check_count(f"measurement: {name}", count)
    coarse = operator.geometry
    (depth, height, width), (rows, columns) = coarse.volume_shape, coarse.detector_shape
    placed = coarse.placed.copy()
    placed[:, 2:] /= rays
    fine = dataclasses.replace(
        coarse,
        volume_shape=(depth * refinement, height * refinement, width * refinement),
        detector_shape=(rows * rays, columns * rays),
        vectors=tuple(placed.ravel().tolist()),
        pixel_size=coarse.pixel_size / refinement,
        slice_spacing=coarse.slice_spacing / refinement,
    )
    return _averaged(jax.tree.map(leaf, fine.rays()), volume, rays)


@functools.partial(jax.jit, static_argnums=2)
def _averaged(fine: ConeRays, volume: Array, rays: int) -> Array:
    lines = fine.project(jax.image.resize(volume, fine.volume_shape, "linear"))
    return reduce(lines, "view (row i) (column j) -> view row column", "mean", i=rays, j=rays)


def cone_measurement(
    key: Array,
    volume: Array,
    operator: ConeTransform,
    *,
    photons: float,
    pixel_mm: float,
    attenuation: float,
    background: float = 0.0,
    refinement: int = 2,
    rays: int = 2,
) -> Measurement:
    """Poisson counts of a finer object, logarithm taken: the honest protocol (`simulate.honest_measurement`).

    Args:
      key: random key.
      volume: [D, H, W].
      operator: the scan, in pixels.
      photons: per ray without the object.
      pixel_mm: side of a pixel in mm.
      attenuation: per mm that value 1 has more than value 0.
      background: per mm of value 0, with which the whole box of the volume weakens the rays.
      refinement: see `fine_cone_integrals`.
      rays: likewise.

    Raises:
      ValueError: a setting that is not positive or too large for float32, or a background that is not finite.
    """
    check_counts(background, photons=photons, pixel_mm=pixel_mm, attenuation=attenuation)
    volume = single(volume)
    fine = functools.partial(fine_cone_integrals, operator=operator, refinement=refinement, rays=rays)
    per_unit = attenuation * pixel_mm
    below: Array | float = 0.0
    if background:
        below = per_unit * background / attenuation * fine(jnp.ones_like(volume))
    return counted(key, fine(volume), per_unit=per_unit, below=below, photons=photons)
