"""What a correction of a geometry leaves unexplained of the measurements.

For a candidate correction the measurements are resampled to what a right detector would have seen, on a coarse grid;
an image is fitted by a few steps of conjugate gradients, and what it cannot explain is the candidate's residual

    r = ||A x_k - y|| / ||y||,      x_k in the Krylov space of A'y.

Corrections are undone in the data and not in the operator, so that one compiled function serves all of them.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from padis_jax.measurements.geometry import ScanGeometry
from padis_jax.operators.tomography import RayTransform

BINS, VIEWS = 80, 120  # of the problem that is solved


class Correction(NamedTuple):
    """What would make the measurements consistent.

    Attributes:
      reverse_bins: the detector is read backwards, or the source goes round the other way (a mirror image apart).
      reverse_views: the views are stored in the reverse order of the angles.
      shift_mm: to be added to offset_mm.
      pitch: factor of spacing_mm.
      other_unit: the angles are in the other unit than is stated.
    """

    reverse_bins: bool = False
    reverse_views: bool = False
    shift_mm: float = 0.0
    pitch: float = 1.0
    other_unit: bool = False

    @property
    def faults(self) -> tuple[str, ...]:
        """Names of what is corrected; none where the geometry fits."""
        named = {
            "angle unit": self.other_unit,
            "reversed views": self.reverse_views,
            "reversed detector or sense of rotation": self.reverse_bins,
            "shifted detector": self.shift_mm != 0.0,
            "wrong pitch": self.pitch != 1.0,
        }
        return tuple(name for name, there in named.items() if there)

    def geometry(self, wrong: ScanGeometry) -> ScanGeometry:
        """The corrected geometry, for the data as they are stored."""
        unit, angles, offset = wrong.angle_unit, wrong.angles, wrong.offset_mm
        if self.other_unit:
            unit = "radians" if unit == "degrees" else "degrees"
        if self.reverse_views:
            angles = angles[::-1]
        if self.reverse_bins:  # bins along the other direction are a mirror image with the angles negated
            angles = tuple(-a for a in angles)
        return dataclasses.replace(
            wrong,
            angle_unit=unit,
            angles=angles,
            offset_mm=offset * self.pitch + self.shift_mm,
            spacing_mm=wrong.spacing_mm * self.pitch,
        )


class Finding(NamedTuple):
    """A candidate: its correction and the residual that remains with it."""

    correction: Correction
    residual: float


class Report(NamedTuple):
    """Result of a check.

    Attributes:
      stated: residual of the geometry as it is stated; NaN if there is none.
      best: the simplest correction that explains the measurements; without faults where the stated one does.
      others: the best of each other kind, by residual.
      unknown: what this scan cannot tell, with the reason.
    """

    stated: float
    best: Finding
    others: tuple[Finding, ...] = ()
    unknown: tuple[str, ...] = ()


Residual = Callable[[Correction, int], float]  # of a correction, after so many steps


def residual_of(geometry: ScanGeometry, sinogram: np.ndarray) -> Residual:
    """The residual as a function of the correction and the number of steps.

    Args:
      geometry: as stated.
      sinogram: [views, bins] line integrals.
    """
    views = np.unique(np.linspace(0, len(geometry.angles) - 1, min(VIEWS, len(geometry.angles))).round().astype(int))
    bins = min(BINS, geometry.bins // 2)
    measured = geometry.bins * geometry.spacing_mm
    width = measured + 2 * abs(geometry.offset_mm)  # around the axis; what is not measured there is left out
    coarse = dataclasses.replace(
        geometry, angles=tuple(np.asarray(geometry.angles)[views]), bins=bins, spacing_mm=width / bins, offset_mm=0.0
    )
    pixel = coarse.spacing_mm / coarse.magnification
    scan = _coarse_scan(coarse, pixel)
    edges = (np.arange(bins + 1) - bins / 2) * coarse.spacing_mm
    sums = np.pad(np.cumsum(sinogram, axis=1, dtype=np.float64), ((0, 0), (1, 0)))
    places = np.arange(geometry.bins + 1) - geometry.bins / 2  # of the edges of the fine bins

    def residual(correction: Correction, steps: int) -> float:
        spacing = geometry.spacing_mm * correction.pitch
        # With the angles negated the image is the mirrored one, whose views are these read backwards in u.
        sign = -1 if correction.reverse_bins else 1
        at = (sign * edges - geometry.offset_mm * correction.pitch - correction.shift_mm) / spacing
        rows = sums[::-1] if correction.reverse_views else sums
        fine = np.stack([np.interp(at, places, row) for row in rows[views]])
        data = sign * np.diff(fine, axis=1) * (spacing / coarse.spacing_mm)
        inside = np.abs(at) <= geometry.bins / 2 + 1e-6
        there = (inside[1:] & inside[:-1] if geometry.offset_mm else np.ones(bins))[None].astype(np.float32)
        left = _misfit(scan, jnp.asarray(data * there, jnp.float32), jnp.asarray(there), steps)
        return float(left) / max(float(np.linalg.norm(data * there)), 1e-30)

    return residual


def opposite(angles: np.ndarray, others: np.ndarray) -> bool:
    """Whether the second angles run through the first ones in the other sense, up to a rotation; radians.

    The reverse order of evenly spaced views does.
    """
    turn = np.exp(1j * (angles + others))
    return bool(np.abs(turn - turn[0]).max() < 1e-6)


@functools.lru_cache(maxsize=8)
def _coarse_scan(coarse: ScanGeometry, pixel: float) -> RayTransform:
    return coarse.operator((coarse.bins, coarse.bins), pixel)


@jax.jit
def _misfit(scan: RayTransform, data: Array, there: Array, steps: int) -> Array:
    def project(image: Array) -> Array:
        return scan(image) * there

    return jnp.linalg.norm(_cg_residual(project, lambda y: scan.T(y * there), data, steps))


def _cg_residual(
    project: Callable[[Array], Array], backproject: Callable[[Array], Array], y: Array, steps: int
) -> Array:
    """y - A x_k of conjugate gradients on the normal equations (CGLS), from x = 0."""

    def step(_: int, state: tuple[Array, Array, Array, Array]) -> tuple[Array, Array, Array, Array]:
        r, p, s, gamma = state
        q = project(p)
        alpha = gamma / jnp.maximum(jnp.vdot(q, q), 1e-30)
        r = r - alpha * q
        s = backproject(r)
        new = jnp.vdot(s, s)
        return r, s + (new / jnp.maximum(gamma, 1e-30)) * p, s, new

    s = backproject(y)
    return jax.lax.fori_loop(0, steps, step, (y, s, s, jnp.vdot(s, s)))[0]
