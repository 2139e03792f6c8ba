"""Raw detector counts -> line integrals, by the law of Beer and Lambert:

    y = -ln((N - D) / (F - D))

N the counts of a view, F those without an object (flat field), D those without rays (dark field). N - D is g times a
number of photons, whose variance is that number. So the standard deviation of y is g^(1/2) (N - D)^(-1/2), to first
order and with the noise of N alone; g is not known.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from padis_jax.measurements.sinogram_files import Measured

MOST_DRIFT = -0.3  # line integral of a ray in air, where the tube gives a third more than for the flat field


class LineIntegrals(NamedTuple):
    """Line integrals [views, bins].

    Attributes:
      sinogram: y.
      repaired: how many of them had to be, for want of a usable count.
      relative_std: (N - D)^(-1/2).
    """

    sinogram: np.ndarray
    repaired: int
    relative_std: np.ndarray


def line_integrals(
    counts: np.ndarray, flat: np.ndarray | float, dark: np.ndarray | float = 0.0, *, limit: float = 0.2
) -> LineIntegrals:
    """Takes the logarithm, and fills what has none from the bins beside it, linearly along the detector.

    Unusable are bins whose flat field does not exceed the dark field (dead), counts that do not exceed the dark field
    (no ray came through), and values that are not finite.

    Args:
      counts: [views, bins].
      flat: [bins], or [n, bins] of which the mean is taken, or one number.
      dark: likewise.
      limit: the share of unusable values that is still repaired.

    Raises:
      ValueError: for shapes that do not fit, a view without a usable bin, more unusable values than `limit`, or counts
        far above the flat field in most places.
    """
    counts = np.asarray(counts, np.float64)
    if counts.ndim != 2 or 0 in counts.shape:
        raise ValueError(f"counts have shape {counts.shape}, expected [views, bins]")
    bright, black = (_field(name, field, counts.shape[1]) for name, field in (("flat", flat), ("dark", dark)))
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        through = counts - black
        lines = -np.log(through / (bright - black))
    bad = ~np.isfinite(lines) | np.broadcast_to(~(bright > black), lines.shape)
    if bad.all(axis=1).any():
        raise ValueError(f"view {int(bad.all(axis=1).argmax())} has no usable bin: are flat and dark field swapped?")
    if bad.mean() > limit:
        raise ValueError(f"{bad.sum()} of {bad.size} counts are unusable: check the flat and the dark field")
    if (least := float(np.median(lines[~bad]))) < MOST_DRIFT:
        raise ValueError(
            f"most counts are above the flat field, by the factor {np.exp(-least):.3g} in the middle: correct the flat "
            "field (of the same exposure and gain), or --measurement.flat"
        )
    bins = np.arange(counts.shape[1])
    for view in np.flatnonzero(bad.any(axis=1)):
        for filled in (lines, through):
            filled[view, bad[view]] = np.interp(bins[bad[view]], bins[~bad[view]], filled[view, ~bad[view]])
    return LineIntegrals(lines.astype(np.float32), int(bad.sum()), (1 / np.sqrt(through)).astype(np.float32))


def integrals_of(
    measured: Measured, flat: float, dark: float, *, counts: bool
) -> tuple[np.ndarray, int, np.ndarray | None]:
    """(line integrals of what a file holds, float32; how many had to be repaired; `relative_std`, of counts only).

    Args:
      measured: of the file.
      flat: for a file without a flat field; 0 for none.
      dark: likewise.
      counts: whether it holds counts, else line integrals.

    Raises:
      ValueError: for counts without a flat field, line integrals with a flat or dark field that is not theirs, and what
        `line_integrals` refuses.
    """
    if not counts:
        if flat or dark:
            flag = "--measurement.flat" if flat else "--measurement.dark"
            raise ValueError(f"{flag} goes with counts, and {measured.name} is read as line integrals: leave it out")
        return np.ascontiguousarray(measured.sinogram, np.float32), 0, None
    if measured.flat is None and not flat:
        raise ValueError("counts need a flat field: store it as `flat`, or give --measurement.flat")
    bright, black = (given if held is None else held for held, given in ((measured.flat, flat), (measured.dark, dark)))
    values, repaired, std = line_integrals(measured.sinogram, bright, black)
    return np.ascontiguousarray(values, np.float32), repaired, std


def field_note(measured: Measured, flat: float, dark: float) -> str:
    """A note where the file has a field of its own, which is used and not the given number, or ""."""
    given = (("flat", flat, measured.flat), ("dark", dark, measured.dark))
    unused = [name for name, number, held in given if number and held is not None]
    return f"the file has a {' and a '.join(unused)} field, used instead of --measurement.{unused[0]}" if unused else ""


def _field(name: str, field: np.ndarray | float, bins: int) -> np.ndarray:
    found = np.asarray(field, np.float64)
    found = found.mean(0) if found.ndim == 2 and len(found) else found
    if found.ndim > 1 or (found.ndim == 1 and found.shape != (bins,)):
        raise ValueError(f"the {name} field has shape {np.shape(field)}, expected [{bins}] or [n, {bins}]")
    return found
