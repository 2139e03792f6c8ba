"""Does a geometry fit its measurements? A fault in it makes views contradict each other, which no image explains.

Candidates for a correction are judged by their `geometry_residual`; the simplest that lowers it clearly is reported.

What no measurement can tell: the image's rotation; its mirror image (both the sense of rotation and the direction of
the detector reversed); and, for parallel beams, the pitch (the image's size) and each of the two reversals alone, where
the rotation axis is in the detector's middle.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Literal, NamedTuple

import numpy as np
from scipy.optimize import minimize_scalar

from padis_jax.measurements.geometry import ScanGeometry
from padis_jax.measurements.geometry_residual import BINS, Correction, Field, Residual, residual_of

COARSE, FINE = 12, 40  # steps of conjugate gradients, to find a shift and to judge
PITCHES = np.geomspace(0.6, 1 / 0.6, 9)
PITCH_BINS = 2 * BINS  # on fewer bins the pixels' own error outweighs the pitch's
CLEARER = 0.95  # a correction must lower the residual to this part of what simpler ones reach
CLEARER_ON_AN_ARC = 0.5  # likewise, where no line is measured twice


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
      A Report. Ten seconds to a minute on two cores for a fan beam.

    Raises:
      ValueError: for a sinogram of another shape, or fewer than 8 views or 16 bins, too few to contradict each other.
    """
    check_shape(geometry, sinogram)
    if len(geometry.angles) < 8 or geometry.bins < 16:
        raise ValueError(f"geometry check: {sinogram.shape} are too few views or bins; at least 8 and 16 are needed")
    residual = residual_of(geometry, sinogram)
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
    if geometry.beam == "fan" and geometry.bins >= PITCH_BINS and not short_arc(geometry):
        for finding in [f for f, c in zip(kinds, tried, strict=True) if c._replace(shift_mm=0.0) == plain]:
            pitched = _search(residual, finding.correction, "pitch", PITCHES, FINE)
            kinds.append(_tuned(residual, pitched.correction, geometry))
    for unit in _unit_candidates(geometry):
        other = residual_of(dataclasses.replace(geometry, angle_unit=unit), sinogram)
        kinds.append(Finding(Correction(other_unit=True), other(Correction(), FINE)))
    kinds = [Finding(_without_trifles(f.correction, geometry), f.residual) for f in kinds]
    best, clearer = kinds[0], CLEARER_ON_AN_ARC if short_arc(geometry) else CLEARER
    for finding in sorted(kinds[1:], key=lambda f: len(f.correction.faults)):
        if finding.residual < clearer * best.residual:
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
    residual = residual_of(geometry, sinogram)
    found = _search(residual, Correction(), "shift_mm", _shifts(geometry), COARSE)
    return geometry.offset_mm + _tuned(residual, found.correction, geometry).correction.shift_mm


def short_arc(geometry: ScanGeometry) -> bool:
    """Whether a fan beam's views span half a turn at most: hardly a line is measured twice then."""
    return geometry.beam == "fan" and bool(np.ptp(geometry.radians) <= np.pi)


def check_shape(geometry: ScanGeometry, sinogram: np.ndarray) -> None:
    """Raises ValueError unless `sinogram` is [views, bins] of finite numbers."""
    if sinogram.shape != (len(geometry.angles), geometry.bins):
        raise ValueError(f"sinogram of shape {sinogram.shape}, but the geometry has {len(geometry.angles)} views of "
                         f"{geometry.bins} bins")  # fmt: skip
    if not np.isfinite(sinogram).all():
        raise ValueError("the sinogram has NaN or infinity")
    if not np.any(sinogram):
        raise ValueError("the sinogram is zero everywhere")


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
