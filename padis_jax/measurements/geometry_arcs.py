"""The check of scans in which hardly a line is measured from both sides: by the centre of mass, or by an image.

In a parallel beam the centre of mass goes as x cos t + y sin t + c (Helgason and Ludwig's condition of order 1), if all
of the object is seen. Of a fan beam's short arc an image is fitted (`geometry_residual`), which shows gross faults.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Literal

import numpy as np
from scipy.optimize import minimize_scalar

from padis_jax.measurements.geometry import ScanGeometry
from padis_jax.measurements.geometry_residual import Correction, Finding, Report, Residual, opposite, residual_of

COARSE, FINE = 12, 40  # steps of conjugate gradients, to find a shift and to judge
CLEARER = 0.5  # a correction must lower the image's residual to this part at least
SHIFT = 1.0  # in bins: less is a matter of tuning
SURE = 4.0  # standard deviations by which a correction must differ from what is stated
TRUNCATED = 0.03  # of the largest value, at an end of the detector
NO_PITCH = "the pitch (in a parallel beam it is the image's size)"


def other_unit(geometry: ScanGeometry, sinogram: np.ndarray) -> Report | None:
    """The report that the angles are in the other unit, if it is so."""
    for unit in _unit_candidates(geometry):
        stated = residual_of(geometry, sinogram)(Correction(), FINE)
        right = residual_of(dataclasses.replace(geometry, angle_unit=unit), sinogram)(Correction(), FINE)
        if right < CLEARER * stated:
            return Report(stated, Finding(Correction(other_unit=True), right))
    return None


def by_mass(geometry: ScanGeometry, sinogram: np.ndarray) -> Report:
    """Of a parallel beam in which no line is measured twice: the axis, by the centre of mass."""
    unknown = [NO_PITCH]
    centre = None if truncated(sinogram) else mass_centre(geometry, sinogram)
    if centre is None:
        why = "the object reaches beyond the detector" if truncated(sinogram) else "the centre of mass strays"
        unknown.append(f"the axis (no line is measured from both sides, and {why})")
    residual = residual_of(geometry, sinogram)
    stated = Finding(Correction(), residual(Correction(), FINE))
    if centre is not None and abs(centre[0]) > max(SHIFT * geometry.spacing_mm, SURE * centre[1]):
        correction = Correction(shift_mm=-centre[0])
        return Report(stated.residual, Finding(correction, residual(correction, FINE)), (stated,), tuple(unknown))
    return Report(stated.residual, stated, (), tuple(unknown))


def by_image(geometry: ScanGeometry, sinogram: np.ndarray) -> Report:
    """Of a fan beam's arc in which hardly a line is measured twice: a reversal, by the image.

    A shift is never advised: a wrong pitch moves an arc's image nearly alike. That one would help is said.
    """
    span = np.degrees(np.ptp(geometry.radians))
    residual = residual_of(geometry, sinogram)
    stated = Finding(Correction(), residual(Correction(), FINE))
    if truncated(sinogram):
        why = "the geometry (no line is measured from both sides, and the object reaches beyond the detector)"
        return Report(stated.residual, stated, (), (why,))
    turned = [Correction(reverse_bins=True), Correction(reverse_views=True)]
    if geometry.offset_mm:  # stated for the detector as it is read, not as it stands
        turned.append(Correction(reverse_bins=True, shift_mm=-2 * geometry.offset_mm))
    shifts = _shifts(geometry)
    plain, *others = ([residual(_shifted(c, v), COARSE) for v in shifts] for c in (Correction(), *turned))
    shifted = _tuned(residual, _refined(residual, Correction(), shifts, plain), geometry)
    free = min(stated, shifted, key=lambda f: f.residual)
    kinds = [Finding(c, residual(c, FINE)) for c in turned]
    # Of evenly spaced views the reverse order is the other sense of rotation: then it is called that.
    even = opposite(geometry.radians, geometry.radians[::-1])
    best = min(kinds, key=lambda f: f.residual * (1.3 if f.correction.reverse_views and even else 1))
    unknown = []
    if best.residual >= CLEARER * free.residual:
        best = stated
        if CLEARER * min(map(min, others)) < min(plain):
            unknown.append("the sense of rotation and the detector's direction (an image explains the other one nearly "
                           "as well)")  # fmt: skip
    what = f"the pitch and small shifts (its views span {span:.0f} degrees only, which shows gross faults alone)"
    if best is stated and shifted.residual < CLEARER * stated.residual:
        fall = f"the residual falls from {stated.residual:.4f} to {shifted.residual:.4f}"
        by = f"a shift of {shifted.correction.shift_mm:.3g} mm, or another pitch"
        what = f"the pitch and the axis (one of them is wrong: with {by}, {fall})"
    unknown.insert(0, what)
    rest = [f for f in (stated, shifted, *kinds) if f != best]
    return Report(stated.residual, best, tuple(sorted(rest, key=lambda f: f.residual)), tuple(unknown))


def image_offset(geometry: ScanGeometry, sinogram: np.ndarray) -> float:
    """The offset_mm at which the image's residual is least."""
    residual = residual_of(geometry, sinogram)
    values = [residual(Correction(shift_mm=float(v)), COARSE) for v in _shifts(geometry)]
    start = _refined(residual, Correction(), _shifts(geometry), values)
    return geometry.offset_mm + _tuned(residual, start, geometry).correction.shift_mm


def _shifts(geometry: ScanGeometry) -> np.ndarray:
    return geometry.bins * geometry.spacing_mm * np.linspace(-0.12, 0.12, 25)


def _refined(residual: Residual, start: Correction, grid: np.ndarray, values: list[float]) -> Correction:
    """The best of a grid of known residuals, then Brent's method between its neighbours."""
    best = int(np.argmin(values))
    bounds = float(grid[max(best - 1, 0)]), float(grid[min(best + 1, len(grid) - 1)])
    return _brent(residual, start, bounds, COARSE, 12).correction


def _tuned(residual: Residual, start: Correction, geometry: ScanGeometry) -> Finding:
    """With the shift that is best within half a bin, on either side."""
    near = geometry.spacing_mm / 2
    tuned = _brent(residual, start, (start.shift_mm - near, start.shift_mm + near), FINE, 8)
    return min(tuned, Finding(start, residual(start, FINE)), key=lambda f: f.residual)


def _brent(residual: Residual, start: Correction, bounds: tuple[float, float], steps: int, evaluations: int) -> Finding:
    found = minimize_scalar(
        lambda v: residual(start._replace(shift_mm=float(v)), steps),
        bounds=bounds,
        method="bounded",
        options={"xatol": 5e-3 * (bounds[1] - bounds[0]), "maxiter": evaluations},
    )
    return Finding(start._replace(shift_mm=float(found.x)), float(found.fun))


def _shifted(correction: Correction, by: float) -> Correction:
    return correction._replace(shift_mm=correction.shift_mm + float(by))


def _unit_candidates(geometry: ScanGeometry) -> Iterator[Literal["degrees", "radians"]]:
    span = float(np.ptp(geometry.angles))  # wherever the scan begins
    if geometry.angle_unit == "degrees" and 1 < span < 2.2 * np.pi:
        yield "radians"
    if geometry.angle_unit == "radians" and span > 2.2 * np.pi:
        yield "degrees"


def truncated(sinogram: np.ndarray) -> bool:
    """Whether the object reaches beyond the detector."""
    ends = np.abs(sinogram.mean(0, dtype=np.float64))
    return bool(max(ends[:2].mean(), ends[-2:].mean()) > TRUNCATED * ends.max())


def mass_centre(geometry: ScanGeometry, sinogram: np.ndarray) -> tuple[float, float] | None:
    """c of the least-squares fit of the centres of mass to x cos t + y sin t + c, and its standard deviation.

    None if they stray from it by a fifth of a bin, but for noise that is independent from view to view.
    """
    u = (np.arange(geometry.bins) - (geometry.bins - 1) / 2) * geometry.spacing_mm + geometry.offset_mm
    mass = sinogram.sum(1, dtype=np.float64)
    use = mass > 0.05 * np.abs(mass).max()
    t = geometry.radians[use]
    design = np.stack([np.cos(t), np.sin(t), np.ones_like(t)], 1)
    if len(t) < 8 or np.linalg.cond(design) > 50:
        return None
    centres = (sinogram[use] @ u) / mass[use]
    fitted = np.linalg.lstsq(design, centres, rcond=None)[0]
    strays = design @ fitted - centres
    variance = np.sum(strays**2) / (len(t) - 3)
    order = np.argsort(t)
    noise = np.diff(strays[order], 3).var() / 20  # third differences leave noise alone
    if variance > (0.2 * geometry.spacing_mm) ** 2 + 2 * noise:
        return None
    return float(fitted[2]), float(np.sqrt(variance * np.linalg.inv(design.T @ design)[2, 2]))
