"""Projector of fan beams with a flat detector.

In view t the axis of rotation, which the image is centred on, is the origin. Source and point u of the detector are

    S = (d sin t, -d cos t) - a (cos t, sin t),     P(u) = (-e sin t, e cos t) + (u - a) (cos t, sin t)

(ASTRA's 'fanflat' for a = 0), d and e the distances of source and detector, a the offset of the axis. With D = d + e
and tan g = u / D, the ray through both is that of a parallel beam,

    x cos(t - g) + y sin(t - g) = d sin g - a cos g,

infinite in both directions. Line sums are those of `joseph`, each ray steep or shallow by its own angle t - g. Its
position on line i is alpha + beta i; alpha and beta are tabulated in float64 outside the trace. A pixel of size p (h
across columns) at depth L = d - x sin t + y cos t meets the detector at

    u = D (x cos t + y sin t + a) / L.

The ray through u' passes it at (u' - u) L / |w| across, w being the ray's direction with the length of P - S, so along
a row, if the ray is steep, at (u' - u) L / |w_y|, along a column, if it is shallow, at (u' - u) L / |w_x|, with

    w_y = D cos t + u' sin t,     w_x = u' cos t - D sin t.

The transpose weighs with max(0, 1 - that distance in pixels) = max(0, m - |u' - u| L) / m, m = p |w_y| or h |w_x|, all
in bins. It looks at the bins around u, as many as the rays within one pixel can be apart.
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np

from padis_jax.operators.fan_fbp import fan_weights
from padis_jax.operators.fan_rays import FanRays, Strips
from padis_jax.operators.fbp import fbp_tables
from padis_jax.operators.joseph import LANES, padded, rounded_up, source_table
from padis_jax.operators.scan import Scan

SLACK = 1e-2  # bins: in float32 the place of a pixel is rounded


@dataclasses.dataclass(frozen=True, kw_only=True)
class FanGeometry(Scan):
    """Static geometry of a fan-beam scan with a flat detector."""

    source_distance: float
    detector_distance: float

    @property
    def detector_u(self) -> np.ndarray:
        """u of every bin, [bins]."""
        b = np.arange(self.detector_count) - (self.detector_count - 1) / 2
        return b * self.detector_spacing + self.detector_offset

    @property
    def fan_angle(self) -> np.ndarray:
        """g of every bin, [bins]."""
        return np.arctan2(self.detector_u, self.source_distance + self.detector_distance)

    def fbp_weights(self) -> np.ndarray:
        """Weight of every ray before filtering: [views, bins]."""
        return fan_weights(
            self.angles,
            self.detector_u,
            source_distance=self.source_distance,
            total_distance=self.source_distance + self.detector_distance,
            rotation_offset=self.rotation_offset,
        )

    def widened(self) -> tuple[FanGeometry, int]:
        """The scan with as many more bins on either side as make its shorter side, from the axis, the longer one.

        There the object is seen from the other side; weighted views are zero, but not after filtering.
        """
        axis = self.rotation_offset * (1 + self.detector_distance / self.source_distance)
        more = math.ceil(2 * abs(self.detector_offset - axis) / self.detector_spacing - 1e-9)
        return dataclasses.replace(self, detector_count=self.detector_count + 2 * more), more

    def rays(self, *, transpose: bool = True) -> FanRays:
        """Its tables, in NumPy, those of the transpose included, which are small."""
        del transpose
        h, w = self.image_shape
        theta, distance = np.asarray(self.angles)[:, None], self.source_distance + self.detector_distance
        y = ((h - 1) / 2 - np.arange(-(-h // LANES) * LANES)) * self.pixel_height
        x = (np.arange(-(-w // LANES) * LANES) - (w - 1) / 2) * self.pixel_size
        middle = (self.detector_count - 1) / 2 - self.detector_offset / self.detector_spacing
        alpha, beta, steps = _lines(self)
        main = self._main()
        along = np.abs(main[:, :, :1] + main[:, :, 1:] * (np.arange(self.detector_count) - middle))
        needed = np.where(np.any(steps, -1), 2 * (_widest(self) + SLACK), 0)
        taps = _rungs(rounded_up(math.ceil(needed.max())))
        return FanRays(
            lines=_strips(alpha, beta, steps),
            scale=np.divide(steps, along, out=np.zeros_like(along), where=np.asarray(steps) > 0),
            main=main,
            order=np.argsort(-needed, axis=1, kind="stable").astype(np.int32),
            counts=np.stack([(needed > fewer).sum(1) for fewer in (*taps[1:], 0)], -1).astype(np.int32),
            lateral=(np.sin(theta) * y, np.cos(theta) * x + self.rotation_offset),
            depth=(np.cos(theta) * y, -np.sin(theta) * x + self.source_distance),
            detector=np.asarray([distance / self.detector_spacing, middle, distance]),
            fbp=fbp_tables(self),
            image_shape=self.image_shape,
            taps=taps,
        )

    def _main(self) -> np.ndarray:
        """m over the bin spacing of both kinds of ray by (1, bin coordinate from u = 0): [2, views, 2]."""
        cos, sin, distance = *_turn(self), (self.source_distance + self.detector_distance) / self.detector_spacing
        steep = self.pixel_size * np.stack([distance * cos, sin], -1)
        return np.stack([steep, self.pixel_height * np.stack([-distance * sin, cos], -1)])


def _turn(geometry: FanGeometry) -> tuple[np.ndarray, np.ndarray]:
    return np.cos(geometry.angles), np.sin(geometry.angles)


def _rungs(most: int) -> tuple[int, ...]:
    """Numbers of taps that programs are written for: the most, and fewer for views that see the image from afar."""
    return tuple(sorted({most, math.ceil(0.75 * most), math.ceil(0.5 * most)}, reverse=True))


def _widest(geometry: FanGeometry) -> np.ndarray:
    """A bound on how many bins apart rays are that pass a row, or a column, one pixel apart: [2, views].

    du/dx = D (d cos t + y + a sin t) / L^2 does not depend on x but by L, du/dy = D (d sin t - x - a cos t) / L^2 on y.
    """
    (h, w), width, height = geometry.image_shape, geometry.pixel_size, geometry.pixel_height
    d, a = geometry.source_distance, geometry.rotation_offset
    cos, sin = (part[:, None] for part in _turn(geometry))
    y, x = ((np.arange(n) - (n - 1) / 2) * size for n, size in ((h, height), (w, width)))
    # 1/L^2 is largest at an end of a row or of a column, of which a pixel at the end sees one pixel more.
    near_row = (d + cos * y - np.abs(sin) * (w + 1) / 2 * width) ** 2
    near_column = (d - sin * x - np.abs(cos) * (h + 1) / 2 * height) ** 2
    along_row = width * np.abs(d * cos + y + a * sin) / near_row
    along_column = height * np.abs(d * sin - x - a * cos) / near_column
    per_bin = (d + geometry.detector_distance) / geometry.detector_spacing
    return per_bin * np.stack([along_row.max(1), along_column.max(1)])


def _lines(geometry: FanGeometry) -> tuple[np.ndarray, np.ndarray, tuple[np.ndarray, np.ndarray]]:
    """alpha, beta and steps of `FanRays`."""
    gamma = geometry.fan_angle
    theta = np.asarray(geometry.angles)[:, None] - gamma
    s = geometry.source_distance * np.sin(gamma) - geometry.rotation_offset * np.cos(gamma)
    cos, sin = np.cos(theta), np.sin(theta)
    (h, w), p, aspect = geometry.image_shape, geometry.pixel_size, geometry.pixel_aspect
    steep = np.abs(cos) >= np.abs(sin) * aspect
    run = np.where(steep, cos, sin)
    # Counted from the pixel in the middle: small numbers lose fewer digits in float32. On line i - lines // 2, a steep
    # ray, x = (s - y sin t) / cos t, is at c = x / p + (W - 1)/2, a shallow one, y = (s - x cos t) / sin t, at
    # r = (H - 1)/2 - y / (p aspect).
    beta = np.where(steep, sin * aspect, cos / aspect) / run
    lines, across = np.where(steep, h, w), np.where(steep, w, h)
    alpha = (across - 1) / 2 + np.where(steep, s, -s / aspect) / (p * run) + (lines // 2 - (lines - 1) / 2) * beta
    ends = alpha + beta * np.asarray([-(lines // 2), lines - 1 - lines // 2])
    hit = (ends.min(0) < across) & (ends.max(0) > -1)
    step = np.where(steep, p * aspect, p) / np.abs(run)
    return alpha - across // 2, beta, (np.where(hit & steep, step, 0), np.where(hit & ~steep, step, 0))


def _strips(alpha: np.ndarray, beta: np.ndarray, steps: tuple[np.ndarray, np.ndarray]) -> Strips:
    """The rays with a step, those of one kind after those of the other."""
    kinds = [np.flatnonzero(step) for step in steps]
    filled = [np.pad(rays, (0, -len(rays) % LANES), constant_values=-1).reshape(-1, LANES) for rays in kinds]
    rays = np.concatenate(filled)
    n = rounded_up(len(rays), 8)
    rays = padded(rays + 1, n) - 1
    shallow = padded(np.repeat([False, True], [len(part) for part in filled]), n)
    a, b, step = (np.where(rays < 0, 0, table.ravel()[rays]) for table in (alpha, beta, steps[0] + steps[1]))
    return Strips(a, b, step, shallow, source_table(rays.ravel(), alpha.shape))
