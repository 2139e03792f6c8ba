"""Projector of parallel beams: the ray of view t and bin b is x cos t + y sin t = u_b - a, a the offset of the axis.

Line sums are those of `joseph`. Seen from the pixel at bin coordinate q, the same weights are

    (A' y)[r, k] = sum_t p/m sum_b max(0, 1 - |b - q| s / (p m)) y_b,     m = max(|cos t|, |sin t|), s the bin spacing,

so that only bins within p m / s of q matter: two of them where bins are as wide as pixels.

Both positions, that of a ray on a line of pixels and that of a pixel on the detector, are sums of a term of one index
and a term of another (row and bin, row and column). Their integer and fractional parts are tabulated in float64 outside
the trace; what is left for each sample is one carry. That keeps the weights of A and A' equal to rounding in any
precision.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from einops import rearrange
from jax import Array, lax

from padis_jax.operators.fbp import view_weights
from padis_jax.operators.joseph import LANES, line_sums, line_table, place, transposes
from padis_jax.operators.scan import Scan
from padis_jax.operators.shares import TURN, depth_in_scan, ray_shares


@dataclasses.dataclass(frozen=True, kw_only=True)
class ParallelGeometry(Scan):
    """Static geometry of a parallel-beam scan."""

    @property
    def centre(self) -> float:
        """x cos t + y sin t of the ray that meets the detector's centre."""
        return self.detector_offset - self.rotation_offset

    def bin_position(self, columns: int) -> tuple[np.ndarray, np.ndarray]:
        """Bin coordinate of pixel (r, k), k < columns, in view v as row_term[v, r] + column_term[v, k]."""
        theta = np.asarray(self.angles)
        h, w = self.image_shape
        y = ((h - 1) / 2 - np.arange(h)) * self.pixel_size
        x = (np.arange(columns) - (w - 1) / 2) * self.pixel_size
        row_term = np.sin(theta)[:, None] * y / self.detector_spacing
        origin = (self.detector_count - 1) / 2 - self.centre / self.detector_spacing
        return row_term, np.cos(theta)[:, None] * x / self.detector_spacing + origin

    def project(self, image: Array) -> Array:
        """[H, W] -> [views, bins]."""
        return _project(self, image)

    def backproject(self, sinogram: Array) -> Array:
        """[views, bins] -> [H, W], the transpose of `project`."""
        return _backproject(self, sinogram)

    def fbp_weights(self) -> np.ndarray:
        """Weight of every ray before filtering: [views, 1], or [views, bins] if it differs in a view."""
        if not self._one_sided:
            return view_weights(self.angles)[:, None]
        u = (np.arange(self.detector_count) - (self.detector_count - 1) / 2) * self.detector_spacing + self.centre
        # From the axis, the ray of the other side is at -u;
        shares = ray_shares(self.angles, u, other_u=-u, turn=np.asarray(np.pi))
        return view_weights(self.angles, TURN)[:, None] * shares

    def widened(self) -> tuple[ParallelGeometry, int]:
        """The scan with as many more bins on either side as make its shorter side, from the axis, the longer one.

        There the object is seen from the other side; weighted views are zero, but not after filtering. Where it is not
        seen from there, the scan itself.
        """
        more = math.ceil(2 * abs(self.centre) / self.detector_spacing - 1e-9) if self._one_sided else 0
        return dataclasses.replace(self, detector_count=self.detector_count + 2 * more), more

    @property
    def _one_sided(self) -> bool:
        """Whether the axis is more than a bin beside the detector's middle, and opposite views see what it misses."""
        beside = abs(self.centre) > self.detector_spacing
        return beside and bool(depth_in_scan(np.asarray(self.angles) + np.pi, self.angles).any())

    def smear(self, sinogram: Array) -> Array:
        """[views, bins] -> [H, W]: each view interpolated linearly at every pixel, then summed (for FBP)."""
        ones = np.ones(len(self.angles))
        return _gather_bins(self, sinogram, half_width=ones)


class _Split(NamedTuple):
    """Positions a[v, i] + b[v, j] as integers and fractions, ready for one carry: see `_split`."""

    a_int: np.ndarray
    a_frac: np.ndarray
    b_int: np.ndarray
    b_frac: np.ndarray


def _split(a: np.ndarray, b: np.ndarray) -> _Split:
    a_int, b_int = np.floor(a), np.floor(b)
    return _Split(a_int.astype(np.int32), a - a_int, b_int.astype(np.int32), b - b_int)


class _Steep(NamedTuple):
    """Tables of the views whose rays cross every line of an image [lines, across] once.

    Only bins whose rays can meet the image are looked at, in strips of LANES: [n] strips of all these views.
    """

    position: _Split  # lines [n, lines], bins [n, LANES]
    view: np.ndarray  # [n]: the view of each strip, an index into the sinogram
    first_bin: np.ndarray  # [n]: its first bin
    step: np.ndarray  # [n]: length of a ray within one line


@functools.lru_cache(maxsize=16)
def _steep_tables(geometry: ParallelGeometry, transposed: bool) -> _Steep:
    """Tables of the rays that cross rows, or, `transposed`, of those that cross columns."""
    theta = np.asarray(geometry.angles)
    cos, sin = np.cos(theta), np.sin(theta)
    views = np.flatnonzero((np.abs(cos) >= np.abs(sin)) != transposed)
    cos, sin = cos[views, None], sin[views, None]
    (h, w), p, bins = geometry.image_shape, geometry.pixel_size, geometry.detector_count
    padded = np.arange(bins + LANES)  # a strip may run over the detector's end; what it finds there is dropped
    u = (padded - (bins - 1) / 2) * geometry.detector_spacing + geometry.centre
    if transposed:  # the row hit in column k: y = (u - x cos t) / sin t, r = (H - 1)/2 - y / p
        x = np.arange(w) - (w - 1) / 2
        line, per_bin, across = x * cos / sin, (h - 1) / 2 - u / (p * sin), h
    else:  # the column hit in row r
        y = (h - 1) / 2 - np.arange(h)
        line, per_bin, across = -y * sin / cos, u / (p * cos) + (w - 1) / 2, w
    hits = (per_bin + line.min(1, keepdims=True) < across) & (per_bin + line.max(1, keepdims=True) > -1)
    strips = []
    for row, hit in enumerate(hits[:, :bins]):
        met = np.flatnonzero(hit)
        if len(met):
            strips += [(row, first) for first in range(met[0], met[-1] + 1, LANES)]
    rows, first = np.asarray(strips, np.int64).reshape(-1, 2).T
    position = _split(line[rows], per_bin[rows[:, None], first[:, None] + np.arange(LANES)])
    step = p / np.maximum(np.abs(cos), np.abs(sin))[rows, 0]
    return _Steep(position, views[rows], first, step)


def _project_steep(image: Array, tables: _Steep) -> Array:
    """Line sums of an image [lines, across] for every strip: [n, LANES]."""
    split = tables.position
    a_int, a_frac = jnp.asarray(line_table(split.a_int)), jnp.asarray(line_table(split.a_frac.astype(image.dtype)))
    b_int, b_frac = jnp.asarray(split.b_int)[:, None], jnp.asarray(split.b_frac.astype(image.dtype))[:, None]

    def position(i: Array) -> tuple[Array, Array]:
        t = lax.dynamic_index_in_dim(a_frac, i, 0, keepdims=False) + b_frac
        carry = t >= 1
        whole = lax.dynamic_index_in_dim(a_int, i, 0, keepdims=False) + b_int + carry.astype(b_int.dtype)
        return whole, t - carry.astype(t.dtype)

    return line_sums(image, position, tables.step[:, None])


def _project_plain(geometry: ParallelGeometry, image: Array) -> Array:
    views, bins = geometry.measurement_shape
    parts, places = [jnp.zeros(0, image.dtype)], [np.zeros(0, np.int64)]
    for transposed in (False, True):
        tables = _steep_tables(geometry, transposed)
        if not len(tables.view):
            continue
        parts.append(_project_steep(image.T if transposed else image, tables))
        b = tables.first_bin[:, None] + np.arange(LANES)
        places.append(np.where(b < bins, tables.view[:, None] * bins + b, -1).ravel())
    return place(parts, places, (views, bins))


def _gather_bins(geometry: ParallelGeometry, sinogram: Array, *, half_width: np.ndarray) -> Array:
    """sum_v sum_b max(0, 1 - |b - q_v[r, k]| / half_width[v]) sinogram[v, b]: [H, W]."""
    h, w = geometry.image_shape
    strips = -(-w // LANES)
    row_term, column_term = geometry.bin_position(strips * LANES)
    # A row is cut into strips: position = (row's + strip's term) + the lane's.
    starts = (row_term[:, :, None] + column_term[:, None, ::LANES]).reshape(len(row_term), h * strips)
    position = _split(starts, column_term[:, :LANES] - column_term[:, :1])
    bins, dtype = geometry.detector_count, sinogram.dtype
    taps = math.ceil(float(half_width.max()) - 1e-9)  # bins on either side that can be within the half-width
    rows = jnp.pad(sinogram, ((0, 0), (2 * taps, 2 * taps)))  # where all taps of a clipped position read zeros
    a_int, b_int = jnp.asarray(position.a_int), jnp.asarray(position.b_int)
    a_frac, b_frac = jnp.asarray(position.a_frac.astype(dtype)), jnp.asarray(position.b_frac.astype(dtype))
    slope = jnp.asarray((1 / half_width).astype(dtype))

    def body(v: Array, total: Array) -> Array:
        at = functools.partial(lax.dynamic_index_in_dim, index=v, axis=0, keepdims=False)
        row, steep = at(rows), at(slope)
        t = at(a_frac)[:, None] + at(b_frac)[None]
        carry = t >= 1
        whole = at(a_int)[:, None] + at(b_int)[None] + carry.astype(b_int.dtype)
        index = jnp.clip(whole, -taps - 1, bins + taps - 1) + 2 * taps
        distance = t - carry.astype(dtype)
        for tap in range(1 - taps, taps + 1):
            weight = jnp.maximum(0, 1 - jnp.abs(distance - tap) * steep)
            total = total + weight * row.at[index + tap].get(mode="promise_in_bounds", wrap_negative_indices=False)
        return total

    total = lax.fori_loop(0, len(geometry.angles), body, jnp.zeros((h * strips, LANES), dtype))
    return rearrange(total, "(h strip) lane -> h (strip lane)", h=h)[:, :w]


def _backproject_plain(geometry: ParallelGeometry, sinogram: Array) -> Array:
    theta = np.asarray(geometry.angles)
    longest = np.maximum(np.abs(np.cos(theta)), np.abs(np.sin(theta)))
    step = (geometry.pixel_size / longest).astype(sinogram.dtype)
    half_width = geometry.pixel_size * longest / geometry.detector_spacing
    return _gather_bins(geometry, sinogram * step[:, None], half_width=half_width)


_project, _backproject = transposes(_project_plain, _backproject_plain)
