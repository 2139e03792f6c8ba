"""Does a geometry fit its measurements? A fault in it makes views contradict each other, which no image explains.

For a candidate correction the measurements are resampled to what a right detector would have seen, on a coarse grid;
an image is fitted by a few steps of conjugate gradients, and what it cannot explain is the candidate's residual

    r = ||A x_k - y|| / ||y||,      x_k in the Krylov space of A'y.

Corrections are undone in the data and not in the operator, so that one compiled function serves all of them.

What no measurement can tell: the image's rotation; its mirror image (both the sense of rotation and the direction of
the detector reversed); and, for parallel beams, the pitch (the image's size) and each of the two reversals alone, where
the rotation axis is in the detector's middle.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from scipy.optimize import minimize_scalar

from padis_jax.operators.geometry_file import ScanGeometry
from padis_jax.operators.tomography import Geometry

BINS, VIEWS = 80, 120  # of the problem that is solved
COARSE, FINE = 12, 40  # steps of conjugate gradients, to find a shift and to judge
PITCHES = np.geomspace(0.6, 1 / 0.6, 9)
PITCH_BINS = 2 * BINS  # on fewer bins the pixels' own error outweighs the pitch's
CLEARER = 0.95  # a correction must lower the residual to this part of what simpler ones reach


Field = Literal["shift_mm", "pitch"]


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

    def change(self, field: Field, value: float) -> Correction:
        """With another shift or pitch."""
        return self._replace(shift_mm=value) if field == "shift_mm" else self._replace(pitch=value)


class Finding(NamedTuple):
    """A candidate: its correction and the residual that remains with it."""

    correction: Correction
    residual: float


class Report(NamedTuple):
    """Result of a check.

    Attributes:
      stated: residual of the geometry as it is stated.
      best: the simplest correction that explains the measurements; without faults where the stated one does.
      others: the best of each other kind, by residual.
    """

    stated: float
    best: Finding
    others: tuple[Finding, ...]


def check_geometry(geometry: ScanGeometry, sinogram: np.ndarray) -> Report:
    """Looks for the correction that lowers the residual most.

    Args:
      geometry: as stated.
      sinogram: [views, bins] line integrals.

    Returns:
      A Report. A few seconds on two cores.

    Raises:
      ValueError: for a sinogram of another shape, or fewer than 8 views or 16 bins, too few to contradict each other.
    """
    check_shape(geometry, sinogram)
    if len(geometry.angles) < 8 or geometry.bins < 16:
        raise ValueError(f"geometry check: {sinogram.shape} are too few views or bins; at least 8 and 16 are needed")
    residual = _residuals(geometry, sinogram)
    discrete = [Correction(), Correction(reverse_bins=True), Correction(reverse_views=True)]
    if geometry.offset_mm:  # stated for the detector as it is read, not as it stands
        discrete.append(Correction(reverse_bins=True, shift_mm=-2 * geometry.offset_mm))
    found = sorted((Finding(c, residual(c, COARSE)) for c in discrete), key=lambda f: f.residual)
    # A large shift hides everything else, so every start is tried with all shifts, unless one is clearly right.
    starts = [f.correction for f in found if f.residual < 2 * found[0].residual]
    shifts = _shifts(geometry)
    values = [[residual(c.change("shift_mm", c.shift_mm + v), COARSE) for v in shifts] for c in starts]
    # Of evenly spaced views the reverse order is the other sense of rotation: then it is called that.
    which = int(np.argmin([min(row) * (1.3 if c.reverse_views else 1) for row, c in zip(values, starts, strict=True)]))
    grid = starts[which].shift_mm + shifts
    start = _refine(residual, starts[which], "shift_mm", grid, values[which], COARSE).correction

    # The same at full depth; every one with its offset tuned by up to half a bin, which is no fault.
    stated = residual(Correction(), FINE)
    plain = start._replace(shift_mm=0.0)
    tried = dict.fromkeys((Correction(), plain, _without_trifles(start, geometry)))
    if geometry.beam == "parallel":  # reversing the detector about the axis only turns the image by half a turn
        tried |= dict.fromkeys(c._replace(reverse_bins=False) for c in tried if c.reverse_bins)
    kinds = [_tuned(residual, c, geometry) for c in tried]
    if geometry.beam == "fan" and geometry.bins >= PITCH_BINS:
        for finding in [f for f, c in zip(kinds, tried, strict=True) if c._replace(shift_mm=0.0) == plain]:
            pitched = _search(residual, finding.correction, "pitch", PITCHES, FINE)
            kinds.append(_tuned(residual, pitched.correction, geometry))
    for unit in _unit_candidates(geometry):
        other = _residuals(dataclasses.replace(geometry, angle_unit=unit), sinogram)
        kinds.append(Finding(Correction(other_unit=True), other(Correction(), FINE)))
    kinds = [Finding(_without_trifles(f.correction, geometry), f.residual) for f in kinds]
    best = kinds[0]
    for finding in sorted(kinds[1:], key=lambda f: len(f.correction.faults)):
        if finding.residual < CLEARER * best.residual:
            best = finding
    others = sorted((f for f in (*kinds, *found) if f != best), key=lambda f: f.residual)
    return Report(stated, best, tuple(others[:6]))


def find_offset(geometry: ScanGeometry, sinogram: np.ndarray) -> float:
    """The offset_mm with which the views agree best: the centre of rotation, to a fraction of a bin.

    In a parallel beam the centre of mass goes as x cos t + y sin t + c (Helgason and Ludwig's condition of order 1),
    which needs no opposite views: if it does so to a fraction of a bin, c is the answer. Where it does not (an object
    that reaches beyond the detector), and for fan beams, the residual of `check_geometry` is minimised.

    Raises:
      ValueError: for a sinogram of another shape.
    """
    check_shape(geometry, sinogram)
    if geometry.beam == "parallel" and (centre := _mass_centre(geometry, sinogram)) is not None:
        return geometry.offset_mm - centre
    residual = _residuals(geometry, sinogram)
    found = _search(residual, Correction(), "shift_mm", _shifts(geometry), COARSE)
    return geometry.offset_mm + _tuned(residual, found.correction, geometry).correction.shift_mm


def check_shape(geometry: ScanGeometry, sinogram: np.ndarray) -> None:
    """Raises ValueError unless `sinogram` is [views, bins] of finite numbers."""
    if sinogram.shape != (len(geometry.angles), geometry.bins):
        raise ValueError(f"sinogram of shape {sinogram.shape}, but the geometry has {len(geometry.angles)} views of "
                         f"{geometry.bins} bins")  # fmt: skip
    if not np.isfinite(sinogram).all():
        raise ValueError("the sinogram holds NaN or infinity")
    if not np.any(sinogram):
        raise ValueError("the sinogram is zero everywhere")


Residual = Callable[[Correction, int], float]  # of a correction, after so many steps


def _residuals(geometry: ScanGeometry, sinogram: np.ndarray) -> Residual:
    """The residual of a correction, on the coarse grid."""
    views = np.unique(np.linspace(0, len(geometry.angles) - 1, min(VIEWS, len(geometry.angles))).round().astype(int))
    bins = min(BINS, geometry.bins // 2)
    width = geometry.bins * geometry.spacing_mm
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
        return float(_misfit(scan, jnp.asarray(data, jnp.float32), steps) / max(float(np.linalg.norm(data)), 1e-30))

    return residual


@functools.lru_cache(maxsize=8)
def _coarse_scan(coarse: ScanGeometry, pixel: float) -> Geometry:
    return coarse.operator((coarse.bins, coarse.bins), pixel).geometry


@functools.partial(jax.jit, static_argnums=0)
def _misfit(scan: Geometry, data: Array, steps: int) -> Array:
    return jnp.linalg.norm(_cg_residual(scan.project, scan.backproject, data, steps))


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


def _shifts(geometry: ScanGeometry) -> np.ndarray:
    return geometry.bins * geometry.spacing_mm * np.linspace(-0.12, 0.12, 25)


def _search(residual: Residual, start: Correction, field: Field, grid: np.ndarray, steps: int) -> Finding:
    """The least residual over one number."""
    values = [residual(start.change(field, float(v)), steps) for v in grid]
    return _refine(residual, start, field, grid, values, steps)


def _refine(
    residual: Residual, start: Correction, field: Field, grid: np.ndarray, values: list[float], steps: int
) -> Finding:
    """The best of a grid of known residuals, then Brent's method between its neighbours."""
    at = int(np.argmin(values))
    low, high = float(grid[max(at - 1, 0)]), float(grid[min(at + 1, len(grid) - 1)])
    found = _brent(residual, start, field, (low, high), steps, 8)
    return min(found, Finding(start.change(field, float(grid[at])), values[at]), key=lambda f: f.residual)


def _tuned(residual: Residual, start: Correction, geometry: ScanGeometry) -> Finding:
    """With the best shift within half a bin."""
    half = 0.5 * geometry.spacing_mm * start.pitch
    found = _brent(residual, start, "shift_mm", (start.shift_mm - half, start.shift_mm + half), FINE, 7)
    return min(found, Finding(start, residual(start, FINE)), key=lambda f: f.residual)


def _brent(
    residual: Residual, start: Correction, field: Field, bounds: tuple[float, float], steps: int, evaluations: int
) -> Finding:
    found = minimize_scalar(
        lambda v: residual(start.change(field, float(v)), steps),
        bounds=bounds,
        method="bounded",
        options={"xatol": 5e-3 * (bounds[1] - bounds[0]), "maxiter": evaluations},
    )
    return Finding(start.change(field, float(found.x)), float(found.fun))


def _without_trifles(correction: Correction, geometry: ScanGeometry) -> Correction:
    """Without a shift of less than a bin and a pitch within 2%, which are a matter of tuning."""
    shift = correction.shift_mm if abs(correction.shift_mm) >= geometry.spacing_mm else 0.0
    pitch = correction.pitch if abs(correction.pitch - 1) >= 0.02 else 1.0
    return correction._replace(shift_mm=shift, pitch=pitch)


def _unit_candidates(geometry: ScanGeometry) -> Iterator[Literal["degrees", "radians"]]:
    reach = float(np.abs(geometry.angles).max())
    if geometry.angle_unit == "degrees" and 1 < reach < 2.2 * np.pi:
        yield "radians"
    if geometry.angle_unit == "radians" and reach > 2.2 * np.pi:
        yield "degrees"


def _mass_centre(geometry: ScanGeometry, sinogram: np.ndarray) -> float | None:
    """c of the least-squares fit of the centres of mass to x cos t + y sin t + c; None if it does not fit."""
    u = (np.arange(geometry.bins) - (geometry.bins - 1) / 2) * geometry.spacing_mm + geometry.offset_mm
    mass = sinogram.sum(1, dtype=np.float64)
    use = mass > 0.05 * np.abs(mass).max()
    t = geometry.radians[use]
    design = np.stack([np.cos(t), np.sin(t), np.ones_like(t)], 1)
    if len(t) < 4 or np.linalg.cond(design) > 50:
        return None
    centres = (sinogram[use] @ u) / mass[use]
    fitted = np.linalg.lstsq(design, centres, rcond=None)[0]
    error = np.sqrt(np.mean((design @ fitted - centres) ** 2))
    return float(fitted[2]) if error < 0.2 * geometry.spacing_mm else None
