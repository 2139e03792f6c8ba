"""How well the two measurements of a line agree, that from one side and that from the other: no image is needed.

With the symbols of `fan`, u from the foot of the perpendicular on the detector, the ray (t, u) runs along the line of

    (t', -u),     t' = t + pi - 2 g,     tan g = u / D     (g = 0 for a parallel beam),

whatever the object is. The values p and p' of both are compared:

    r^2 = sum (p - p')^2 / sum ((p - m)^2 + (p' - m)^2),     m the mean of all; 0 if they agree, 1 if not at all.

Views are interpolated linearly, then smoothed over a view's gap, and bins over the way that a point at the edge moves
within half of one. So all angles have one resolution, and no geometry gains by where its rays fall between the views.

Where the axis is on the detector, q in bins, tells -u; the pitch tells g alone: so they are fitted in turns until both
have settled.
The variance of each is 2 sum_k g_k^2 / h^2, with the gradients g_k of the sums of BLOCKS of neighbouring views, which
are independent of each other (errors within one need not be: White, Econometrica 48, 817, 1980), and the curvature h of
the sum of all; 2, as each pair is there twice.
"""

from __future__ import annotations

import copy
from typing import NamedTuple

import numpy as np
from scipy.ndimage import gaussian_filter1d, map_coordinates, spline_filter
from scipy.optimize import minimize_scalar

from padis_jax.measurements.geometry import ScanGeometry
from padis_jax.operators.fbp import gaps
from padis_jax.operators.shares import END, TURN

BLOCKS, ROWS, COLUMNS = 24, 300, 96  # of views, of them and of bins that are compared
FEWEST, FAINTEST = 300, 1e-3  # pairs of smooth values that tell anything, and their part of all variance
PITCHES = np.log(0.5), np.log(2.0)
SWEEPS, SETTLED = 10, (0.02, 1e-3)  # of the fit, and what the last one may change, in bins and of the logarithm
STEPS = 0.3, 0.03  # of derivatives, in bins and of the logarithm of the pitch


class Agreement(NamedTuple):
    """How well views agree.

    Attributes:
      residual: r.
      left: [rows, columns], (p - p') over the size of the data, so that r^2 is the sum of squares.
    """

    residual: float
    left: np.ndarray


class Fit(NamedTuple):
    """The axis and the pitch that make views agree best.

    Attributes:
      axis: q, offset of the detector's centre in bins.
      pitch: factor of the spacing.
      uncertainty: [2], standard deviations of both; 0 of what was not fitted.
      agreement: what is left.
    """

    axis: float
    pitch: float
    uncertainty: np.ndarray
    agreement: Agreement


class Pairs:
    """The lines of a scan that are measured twice.

    Args:
      geometry: of which the views' angles are taken, and the detector as stated.
      sinogram: [views, bins].
      reverse: whether the detector is read backwards, or the source goes round the other way.
    """

    def __init__(self, geometry: ScanGeometry, sinogram: np.ndarray, *, reverse: bool = False) -> None:
        self.geometry, self.sign = geometry, -1 if reverse else 1
        order, _, _, typical = gaps(tuple(geometry.radians), TURN)
        folded = np.mod(geometry.radians, TURN)[order]
        grid = int(np.clip(4 * round(TURN / typical), 4 * BLOCKS, 4 * ROWS))
        at = np.arange(grid) * TURN / grid
        reach = geometry.bins / 2 + abs(geometry.offset_mm) / geometry.spacing_mm
        smooth = float(np.clip(reach * typical / 2, 0.5, geometry.bins / 32))
        rows = gaussian_filter1d(np.asarray(sinogram, np.float64)[order], smooth, axis=1, mode="nearest")
        around = np.concatenate([folded[-1:] - TURN, folded, folded[:1] + TURN])
        left = np.searchsorted(around, at, "right") - 1
        gap = np.diff(around)[left]
        weight = ((at - around[left]) / np.maximum(gap, 1e-12))[:, None]
        rows = rows[left - 1] * (1 - weight) + rows[left % len(rows)] * weight
        width = max(typical * grid / TURN, 1.0)
        self.values = gaussian_filter1d(rows, width, axis=0, mode="wrap")
        self.spline = spline_filter(self.values, 3, mode="nearest")
        self.there = gaussian_filter1d((gap <= END * typical).astype(float), width, mode="wrap") > 0.99
        self.rows = np.flatnonzero(self.there)[:: -(-int(self.there.sum()) // ROWS) or 1]
        self.fewest, self.order = FEWEST, 3
        first = 1.5 * smooth  # nearer to the detector's ends the smooth values miss what is beyond
        self.ends = first, geometry.bins - 1 - first
        inside = np.arange(int(np.ceil(first)), int(self.ends[1]) + 1)
        self.columns = inside[:: max(1, int(smooth), geometry.bins // COLUMNS)]

    def agreement(self, axis: float, pitch: float = 1.0) -> Agreement | None:
        """What is left with the axis and the pitch; None where too few lines are measured twice."""
        columns = self._shared(axis)
        if (found := self._compare(axis, pitch, columns)) is None:
            return None
        p, other, use = found
        mean = (p[use].sum() + other[use].sum()) / (2 * use.sum())
        size = np.sum(((p - mean) ** 2 + (other - mean) ** 2)[use])
        if size <= FAINTEST * use.sum() * self.values.var():
            return None
        left = np.zeros((len(self.rows), len(self.columns)))
        left[:, np.isin(self.columns, columns)] = np.where(use, p - other, 0) / np.sqrt(size)
        return Agreement(float(np.linalg.norm(left)), left)

    def fit(self, axis: float, *, pitch: bool) -> Fit | None:
        """The axis, and the pitch if that is asked for, that make the views agree best, near a start."""
        at = np.asarray([axis, 0.0])  # and the logarithm of the pitch
        reach = 1 + 0.01 * self.geometry.bins
        fan = pitch and self.geometry.beam == "fan"
        for _ in range(SWEEPS if fan else 2):  # where few lines are seen twice, each moves with the other
            before = at.copy()
            at[0] = self._least(at, 0, axis - reach, axis + reach)
            if fan:
                at[1] = self._least(at, 1, *PITCHES)
            if (abs(at - before) < SETTLED).all():
                break
        if (best := self.agreement(at[0], np.exp(at[1]))) is None:
            return None
        errors = [self._error(at, 0), self._error(at, 1) if fan else 0.0]
        return Fit(float(at[0]), float(np.exp(at[1])), np.asarray(errors) * [1.0, np.exp(at[1])], best)

    def _least(self, at: np.ndarray, k: int, low: float, high: float) -> float:
        def residual(value: float) -> float:
            axis, log = np.where(np.arange(2) == k, value, at)
            found = self.agreement(float(axis), float(np.exp(log)))
            return 2.0 if found is None else found.residual

        found = minimize_scalar(residual, bounds=(low, high), method="bounded", options={"xatol": (1e-3, 2e-4)[k]})
        return float(found.x) if found.fun < residual(float(at[k])) else float(at[k])

    def _error(self, at: np.ndarray, k: int) -> float:
        """Standard deviation of a number; infinite if the sum of (p - p')^2 does not rise beside it."""
        columns, step = self._shared(at[0]), STEPS[k]
        sums = []
        for side in (-1, 0, 1):
            axis, log = at + side * step * (np.arange(2) == k)
            if (found := self._compare(axis, np.exp(log), columns)) is None:
                return np.inf
            sums.append(_blocks(np.where(found[2], (found[0] - found[1]) ** 2, 0)))
        below, here, above = sums
        curvature = (above - 2 * here + below).sum() / (2 * step**2)
        return float(np.sqrt(2) * np.linalg.norm((above - below) / (4 * step)) / curvature) if curvature > 0 else np.inf

    def _shared(self, axis: float) -> np.ndarray:
        """The columns whose lines the detector sees from the other side too."""
        other = self.geometry.bins - 1 - self.columns - 2 * axis
        return self.columns[(other >= self.ends[0]) & (other <= self.ends[1])]

    def _compare(
        self, axis: float, pitch: float, columns: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
        """p, p' and which of them are there, [rows, columns] each."""
        u = columns - (self.geometry.bins - 1) / 2 + axis
        far = self.geometry.source_distance_mm + self.geometry.detector_distance_mm
        tangent = u * self.geometry.spacing_mm * pitch / far if self.geometry.beam == "fan" else 0 * u
        grid = len(self.values)
        t = self.rows[:, None] + (np.pi - 2 * self.sign * np.arctan(tangent)) * grid / TURN
        use = self.there[np.round(t).astype(int) % grid]
        if use.sum() < self.fewest:
            return None
        other = np.broadcast_to(self.geometry.bins - 1 - columns - 2 * axis, t.shape)
        across = map_coordinates(self.spline, [t, other], order=self.order, mode="grid-wrap", prefilter=False)
        return self.values[np.ix_(self.rows, columns)], across, use


def _blocks(values: np.ndarray) -> np.ndarray:
    """Sums over the columns and the rows of each block, [BLOCKS]."""
    return np.bincount(np.arange(len(values)) * BLOCKS // len(values), values.sum(1), BLOCKS)


def lowering(before: Agreement, after: Agreement) -> float:
    """By how many of its standard deviations r^2 falls from one to the other.

    With e what is left after, and e + d before, it falls by the sum of 2 e d + d^2, of which e makes 2 e d uncertain;
    nor is it more uncertain than its scatter from block to block, which for large d is that of the object.
    """
    fall = _blocks(before.left**2) - _blocks(after.left**2)
    change = before.left - after.left if before.left.shape == after.left.shape else after.left
    remainder = 2 * np.linalg.norm(_blocks(after.left * change))
    scatter = np.linalg.norm(fall - fall.mean())
    return float(fall.sum() / max(np.sqrt(2) * min(remainder, scatter), 1e-300))


def axis_of(geometry: ScanGeometry) -> float:
    """q as stated."""
    return geometry.offset_mm / geometry.spacing_mm


def best_axis(pairs: Pairs) -> Fit | None:
    """The axis with which views agree best, wherever on the detector; None where no line is measured twice."""
    thin = copy.copy(pairs)
    thin.rows, thin.fewest, thin.spline, thin.order = pairs.rows[::6], FEWEST // 6, pairs.values, 1
    places = np.arange(-0.45, 0.451, 0.01) * pairs.geometry.bins
    found = [(thin.agreement(q), q) for q in (*places, axis_of(pairs.geometry))]
    there = [(a.residual, q) for a, q in found if a is not None]
    return pairs.fit(min(there)[1], pitch=False) if there else None
