"""Does a geometry fit its measurements? A fault in it makes views contradict each other.

Where lines are measured from both sides, both measurements are compared (`geometry_pairs`): that tells the axis, the
sense of rotation, and for a wide enough fan the pitch. Where none are, a parallel beam's axis follows from the course
of the centre of mass, and for a fan beam's short arc an image is fitted (`geometry_residual`), which shows gross faults
only. The unit of the angles is always told by the image.

A correction is reported if it differs from what is stated by more than SURE standard deviations, and lowers the
residual by more than half as many; what this scan does not tell is named with the reason.

What no measurement can tell: the image's rotation; its mirror image (both the sense of rotation and the direction of
the detector reversed); and, for parallel beams, the pitch (the image's size) and each of the two reversals alone, where
the rotation axis is in the detector's middle.
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import numpy as np

from padis_jax.measurements.geometry import ScanGeometry
from padis_jax.measurements.geometry_arcs import (
    NO_PITCH,
    SHIFT,
    SURE,
    by_image,
    by_mass,
    image_offset,
    mass_centre,
    other_unit,
    truncated,
)
from padis_jax.measurements.geometry_pairs import Agreement, Fit, Pairs, axis_of, best_axis, lowering
from padis_jax.measurements.geometry_residual import Correction, Finding, Report, opposite

CLEARER = 0.95  # a reversal must lower the residual to this part at least
NOTHING = 0.5  # a residual that tells nothing
EXACT = 1e-4  # less is what interpolating exact views leaves
PITCH = 0.03  # less is a matter of tuning, and of few views and bins
LARGE_SHIFT, LARGE_PITCH = 0.013, 0.06  # parts of the detector and of the pitch; more leaves 2% and 10% in doubt


def check_geometry(geometry: ScanGeometry, sinogram: np.ndarray) -> Report:
    """Looks for the correction with which the measurements agree.

    Args:
      geometry: as stated.
      sinogram: [views, bins] line integrals.

    Returns:
      A Report. Some seconds on two cores; half a minute where an image has to be fitted.

    Raises:
      ValueError: for a sinogram of another shape, or fewer than 8 views or 16 bins, too few to contradict each other.
    """
    check_enough(geometry, sinogram)
    return (
        other_unit(geometry, sinogram)
        or _by_pairs(geometry, sinogram)
        or (by_mass if geometry.beam == "parallel" else by_image)(geometry, sinogram)
    )


def find_offset(geometry: ScanGeometry, sinogram: np.ndarray, *, plan: bool = False) -> float | None:
    """The offset_mm with which the views agree best: the centre of rotation, to a fraction of a bin.

    Where lines are measured from both sides, these tell it, wherever on the detector the axis is. Else, in a parallel
    beam, the centre of mass goes as x cos t + y sin t + c (Helgason and Ludwig's condition of order 1), which needs no
    opposite views. Where it does not, and for short arcs of fan beams, the image's residual is minimised; with `plan`
    it is not, and there is no offset.

    Raises:
      ValueError: for a sinogram of another shape; if the measurements do not tell the axis.
    """
    check_shape(geometry, sinogram)
    if (found := best_axis(Pairs(geometry, sinogram))) is not None:
        error = SURE * found.uncertainty[0]
        if found.agreement.residual > NOTHING or error > max(1.0, LARGE_SHIFT * geometry.bins):
            size = found.agreement.residual
            raise ValueError(f"the views do not tell the rotation axis: opposite ones differ by {size:.2f} of their "
                             f"size at best, the axis is uncertain by {error:.1f} bins; state offset_mm")  # fmt: skip
        return found.axis * geometry.spacing_mm
    if truncated(sinogram):
        raise ValueError("the views do not tell the rotation axis: the object reaches beyond the detector, and no "
                         "line is measured from both sides; state offset_mm")  # fmt: skip
    if geometry.beam == "parallel" and (centre := mass_centre(geometry, sinogram)) is not None:
        return geometry.offset_mm - centre[0]
    return None if plan else image_offset(geometry, sinogram)


def check_size(geometry: ScanGeometry, shape: tuple[int, ...]) -> None:
    """Raises ValueError for a sinogram of another shape than the geometry's."""
    if shape != (len(geometry.angles), geometry.bins):
        raise ValueError(
            f"sinogram of shape {shape}, but the geometry has {len(geometry.angles)} views of {geometry.bins} bins"
        )


def check_enough(geometry: ScanGeometry, sinogram: np.ndarray) -> None:
    """Raises ValueError for what `check_geometry` refuses."""
    check_shape(geometry, sinogram)
    if len(geometry.angles) < 8 or geometry.bins < 16:
        raise ValueError(f"geometry check: {sinogram.shape} are too few views or bins; at least 8 and 16 are needed")


def check_shape(geometry: ScanGeometry, sinogram: np.ndarray, *, air: bool = False) -> None:
    """Raises ValueError unless `sinogram` is [views, bins] of finite numbers; all may be zero where that is `air`."""
    check_size(geometry, sinogram.shape)
    if not np.isfinite(sinogram).all():
        raise ValueError("the sinogram has NaN or infinity")
    if not (air or np.any(sinogram)):
        raise ValueError("the sinogram is zero everywhere")


class _Trial(NamedTuple):
    """One order and direction of the data, with the axis and the pitch that suit it best."""

    correction: Correction
    pairs: Pairs
    fit: Fit

    @property
    def residual(self) -> float:
        return self.fit.agreement.residual


def _by_pairs(geometry: ScanGeometry, sinogram: np.ndarray) -> Report | None:
    """Of the lines that are measured from both sides; None if there are too few."""
    if (plain := _trial(Correction(), Pairs(geometry, sinogram))) is None:
        return None
    backwards = dataclasses.replace(geometry, angles=geometry.angles[::-1])
    tried: list[_Trial | None] = [plain]
    mirrored = opposite(geometry.radians, backwards.radians)
    if geometry.beam == "fan" or not mirrored:
        tried.append(_trial(Correction(reverse_views=True), Pairs(backwards, sinogram)))
    if geometry.beam == "fan":
        tried.append(_trial(Correction(reverse_bins=True), Pairs(geometry, sinogram, reverse=True)))
    trials = [t for t in tried if t is not None]
    # Of evenly spaced views the reverse order is the other sense of rotation: then it is called that.
    best = min(trials, key=lambda t: t.residual / (CLEARER if t.correction.reverse_views and mirrored else 1))
    now = plain.pairs.agreement(axis_of(geometry))
    if now is None and (not plain.pairs.there.all() or SURE * best.fit.uncertainty[0] > _least_shift(geometry)):
        return None  # an arc's lines are measured twice by another geometry alone, and do not tell which
    stated = now.residual if now else float("nan")
    fitted = [Finding(_correction(t.correction, geometry, t.fit.axis, t.fit.pitch), t.residual) for t in trials]
    others = tuple(sorted(fitted, key=lambda f: f.residual))
    if best.residual > NOTHING:
        why = f"the geometry (opposite views differ by {best.residual:.2f} of their size, whatever is corrected)"
        return Report(stated, Finding(Correction(), stated), others, (why,))
    unknown = []
    worse = best.residual > CLEARER * plain.residual or not _clearly(plain.fit.agreement, best.fit.agreement)
    if worse or plain.residual < EXACT:
        best = plain
    if best is plain and any(
        t.correction.reverse_bins and not _clearly(t.fit.agreement, best.fit.agreement) for t in trials
    ):
        unknown.append("the sense of rotation and the detector's direction (views agree as well with the other one)")
    axis, pitch, reasons = _significant(geometry, sinogram, best)
    after = best.pairs.agreement(axis, pitch)
    correction = _correction(best.correction, geometry, axis, pitch)
    return Report(stated, Finding(correction, after.residual if after else stated), others, (*unknown, *reasons))


def _trial(correction: Correction, pairs: Pairs) -> _Trial | None:
    axis = best_axis(pairs)
    fit = axis and pairs.fit(axis.axis, pitch=True)
    return fit and _Trial(correction, pairs, fit)


def _significant(geometry: ScanGeometry, sinogram: np.ndarray, trial: _Trial) -> tuple[float, float, list[str]]:
    """Axis and pitch, as stated unless the fitted ones are clearly others; and what is too uncertain."""
    _, pairs, fit = trial
    stated, axis, pitch, unknown = axis_of(geometry), fit.axis, fit.pitch, list[str]()
    # What discrete views and bins bias goes with their gaps or faster, so half as many change as much; the pitch gets
    # twice that, as few of them bias it by several per cent.
    fewer = dataclasses.replace(pairs.geometry, angles=pairs.geometry.angles[::2])
    half = Pairs(fewer, sinogram[::2], reverse=pairs.sign < 0).fit(axis, pitch=True)
    change = (abs(half.axis - axis), abs(half.pitch - pitch)) if half else (np.inf, np.inf)
    axis_error, pitch_error = SURE * fit.uncertainty + np.multiply((1, 2), change)
    wider = Pairs(*_joined(pairs.geometry, sinogram), reverse=pairs.sign < 0).fit(axis / 2, pitch=True)
    pitch_error += 2 * abs(wider.pitch - pitch) if wider else np.inf
    least = _least_shift(geometry)
    if geometry.beam == "parallel":
        unknown.append(NO_PITCH)
    elif pitch_error > LARGE_PITCH:
        why = f"uncertain by {100 * pitch_error:.0f}%: a narrow fan, noise, or few lines seen twice"
        unknown.append(f"the pitch ({why})")
    sure = pitch_error <= LARGE_PITCH and abs(pitch - 1) >= max(PITCH, pitch_error)
    if not (sure and _clearly(pairs.agreement(axis), fit.agreement)):
        pitch = 1.0
    if axis_error > least:
        unknown.append(f"the axis (uncertain by {axis_error:.1f} bins: noise, or hardly a line is measured twice)")
    sure = axis_error <= least and abs(axis - stated) >= max(SHIFT, axis_error)
    if not (sure and _clearly(pairs.agreement(stated, pitch), fit.agreement)):
        axis = stated
    return axis, pitch, unknown


def _joined(geometry: ScanGeometry, sinogram: np.ndarray) -> tuple[ScanGeometry, np.ndarray]:
    """The scan with bins joined by two; an odd last one is left out."""
    bins = geometry.bins // 2
    offset = geometry.offset_mm - geometry.bins % 2 / 2 * geometry.spacing_mm
    joined = dataclasses.replace(geometry, bins=bins, spacing_mm=2 * geometry.spacing_mm, offset_mm=offset)
    return joined, sinogram[:, : 2 * bins].reshape(len(sinogram), bins, 2).mean(2)


def _least_shift(geometry: ScanGeometry) -> float:
    """In bins: an axis that is less certain is not told."""
    return max(SHIFT, LARGE_SHIFT * geometry.bins)


def _clearly(before: Agreement | None, after: Agreement) -> bool:
    """Whether the residual falls by more than its uncertainty. Without lines to compare before, yes.

    A number that is n standard deviations from its best value raises r^2 by n / 2 of those of r^2.
    """
    return before is None or lowering(before, after) > SURE / 2


def _correction(start: Correction, geometry: ScanGeometry, axis: float, pitch: float) -> Correction:
    return start._replace(shift_mm=(axis - axis_of(geometry)) * geometry.spacing_mm * pitch, pitch=pitch)
