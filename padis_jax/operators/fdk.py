"""Filtered backprojection of cone beams with a flat detector (Feldkamp, Davis and Kress, JOSA A 1, 612, 1984).

With the symbols of `fan` and `fan_fbp`, k the angle of a ray with the plane of the orbit and v its detector row,

    f(x, y, z) = sum_t w_t D/L^2 q_t(u, v),     q_t(., v) = s (p_t(., v) (d cos g + a sin g) cos k W_t * h)

L is the depth along the detector's normal, and (u, v) is where a voxel is seen. The weights W, Parker's for short scans
and those of a detector beside the axis, are the fan's: exact in the plane of the orbit, an approximation elsewhere.
Every view is placed by its own numbers; angles and weights are those of the orbit that they make on average.
"""

from __future__ import annotations

import functools
from typing import Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from padis_jax.operators.cone_lines import directions
from padis_jax.operators.cone_rays import ConeRays, smear
from padis_jax.operators.fbp import Filter, ramp_spectrum
from padis_jax.operators.per_channel import at_least_single, check_shape


class Projector(Protocol):
    """An operator with the tables of a cone beam."""

    @property
    def measurement_shape(self) -> tuple[int, int, int]:
        """(views, rows, columns)."""
        ...

    def rays_for(self, array: Array) -> ConeRays:
        """The tables in the array's precision."""
        ...


def fdk(operator: Projector, projections: Array, *, filter: Filter = "hann", cutoff: float = 0.9) -> Array:
    """Filtered backprojection of cone-beam projections.

    Args:
      operator: a `ConeBeam`.
      projections: [views, rows, columns] line integrals, real or complex.
      filter: "ram-lak", "shepp-logan", "cosine", "hamming" or "hann", along the rows of the detector.
      cutoff: fraction of the Nyquist frequency of the detector.

    Returns:
      [D, H, W], in the unit of the volume.

    Raises:
      ValueError: projections of the wrong shape, an unknown filter, a cut-off out of range, or views that are no
        circular orbit about the z axis.
    """
    projections = jnp.asarray(projections)
    check_shape("projections", projections, operator.measurement_shape)
    projections = projections.astype(at_least_single(projections.dtype))
    if jnp.iscomplexobj(projections):  # a real linear map: of real and imaginary part alike
        parts = (fdk(operator, part, filter=filter, cutoff=cutoff) for part in (projections.real, projections.imag))
        return jax.lax.complex(*parts)
    rays = operator.rays_for(projections)
    if rays.fbp is None:
        raise ValueError(
            "fdk: the views are no circular orbit about the z axis with the detector's rows across it; "
            "use A.start, which then takes a few steps of conjugate gradients, or an iterative method"
        )
    return _fdk(rays, projections, filter, cutoff)


@functools.partial(jax.jit, static_argnums=(2, 3))
def _fdk(rays: ConeRays, projections: Array, filter: Filter, cutoff: float) -> Array:
    assert rays.fbp is not None
    dtype, columns, wide = projections.dtype, projections.shape[2], rays.fbp.needed.size
    margin = (wide - columns) // 2
    size = 2 ** int(np.ceil(np.log2(2 * wide)))  # room for the whole of h, so that rows do not wrap around
    factor = jnp.asarray(ramp_spectrum(size, 1.0, filter=filter, cutoff=cutoff)[None].astype(dtype))

    def filtered(view: Array) -> Array:
        weights = rays.fbp.weights[view].astype(dtype)[None] * _cosine(rays, view, dtype)  # type: ignore[union-attr]
        values = jnp.pad(projections[view] * weights, ((0, 0), (margin, margin)))
        spectra = jnp.fft.rfft(values, size, axis=1)
        values = jnp.fft.irfft(spectra * factor.astype(spectra.dtype), size, axis=1)[:, :wide]
        return jnp.where(rays.fbp.needed[None], values.astype(dtype), 0)  # type: ignore[union-attr]

    return smear(rays, filtered, dtype)


def _cosine(rays: ConeRays, view: Array, dtype: jnp.dtype) -> Array:
    """cos k of all pixels, [rows, columns]: k is the angle out of the plane that is across the detector's rows."""
    sizes = rays.sizes.astype(dtype)
    w = [part * size for part, size in zip(directions(rays, view, dtype), sizes, strict=True)]
    out = sum(part * of_row for part, of_row in zip(w, rays.row[view].astype(dtype), strict=True))
    return jnp.sqrt(1 - out**2 / sum(part**2 for part in w))
