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

import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange
from jax import Array, lax

from padis_jax.operators.fbp import FbpTables, fbp_tables, view_weights
from padis_jax.operators.joseph import (
    LANES,
    Table,
    line_sums,
    line_table,
    padded,
    placed,
    rounded_up,
    side,
    source_table,
    transposes,
)
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
        y = ((h - 1) / 2 - np.arange(h)) * self.pixel_height
        x = (np.arange(columns) - (w - 1) / 2) * self.pixel_size
        row_term = np.sin(theta)[:, None] * y / self.detector_spacing
        origin = (self.detector_count - 1) / 2 - self.centre / self.detector_spacing
        return row_term, np.cos(theta)[:, None] * x / self.detector_spacing + origin

    def fbp_weights(self) -> np.ndarray:
        """Weight of every ray before filtering: [views, 1], or [views, bins] if it differs in a view."""
        if not self._one_sided:
            return view_weights(self.angles)[:, None]
        u = (np.arange(self.detector_count) - (self.detector_count - 1) / 2) * self.detector_spacing + self.centre
        # Seen from the axis, the ray of the other side is at -u.
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

    def rays(self, *, transpose: bool = True) -> ParallelRays:
        """Its tables, in NumPy; those of the transpose, which are large, may be left out."""
        cos, sin = np.abs([np.cos(self.angles), np.sin(self.angles)])
        p, height, shallow = self.pixel_size, self.pixel_height, _shallow(self)
        return ParallelRays(
            lines=_lines(self),
            bins=self._bins() if transpose else None,
            step=np.where(shallow, p / np.where(shallow, sin, 1), height / np.where(shallow, 1, cos)),
            slope=1 / (np.where(shallow, height * sin, p * cos) / self.detector_spacing),
            fbp=fbp_tables(self),
            image_shape=self.image_shape,
            taps=rounded_up(math.ceil(max(p, height) / self.detector_spacing - 1e-9)),
        )

    def _bins(self) -> _Split:
        h, w = self.image_shape
        strips = -(-w // LANES)
        row_term, column_term = self.bin_position(strips * LANES)
        # A row is cut into strips: position = (row's + strip's term) + the lane's.
        starts = (row_term[:, :, None] + column_term[:, None, ::LANES]).reshape(-1, h * strips)
        return _split(starts, column_term[:, :LANES] - column_term[:, :1])


class _Split(NamedTuple):
    """Positions a[v, i] + b[v, j] as integers and fractions, ready for one carry: see `_split`."""

    a_int: Table
    a_frac: Table
    b_int: Table
    b_frac: Table


def _split(a: np.ndarray, b: np.ndarray) -> _Split:
    a_int, b_int = np.floor(a), np.floor(b)
    return _Split(a_int.astype(np.int32), a - a_int, b_int.astype(np.int32), b - b_int)


class _Lines(NamedTuple):
    """Where rays cross the lines of the square, in strips of LANES bins: [n] of all views."""

    position: _Split  # lines [blocks, n, ROW_SPLIT, 1], bins [n, LANES]
    shallow: Table  # [n]
    step: Table  # [n]: length of a ray within one line
    source: Table  # [views, bins]


def _shallow(geometry: ParallelGeometry) -> np.ndarray:
    """Of each view, whether its rays are summed over columns, which they cross at the shorter distance: [views]."""
    return np.abs(np.cos(geometry.angles)) < np.abs(np.sin(geometry.angles)) * geometry.pixel_aspect


def _lines(geometry: ParallelGeometry) -> _Lines:
    views, bins = geometry.measurement_shape
    parts = [_steep(geometry, transposed) for transposed in (False, True)]
    line, per_bin, step, view, first = (np.concatenate(both) for both in zip(*parts, strict=True))
    shallow = np.repeat([False, True], [len(part[0]) for part in parts])
    n = rounded_up(len(line), 8)
    b = first[:, None] + np.arange(LANES)
    places = padded(np.where(b < bins, view[:, None] * bins + b, -1) + 1, n) - 1
    split = _split(padded(line, n), padded(per_bin, n))
    return _Lines(
        split._replace(a_int=line_table(split.a_int), a_frac=line_table(split.a_frac)),
        padded(shallow, n),
        padded(step, n),
        source_table(places.ravel(), (views, bins)),
    )


def _steep(geometry: ParallelGeometry, transposed: bool) -> tuple[np.ndarray, ...]:
    """The rays that cross rows (or, `transposed`, columns) in strips, only those that can meet the image.

    Returns:
      Their position on every line of the square as a term of the line [n, side] and one of the bin [n, LANES]; the
      length of a ray within one line, the view and the first bin: [n] each.
    """
    theta = np.asarray(geometry.angles)
    cos, sin = np.cos(theta), np.sin(theta)
    views = np.flatnonzero(_shallow(geometry) == transposed)
    cos, sin = cos[views, None], sin[views, None]
    (h, w), p, height, bins = geometry.image_shape, geometry.pixel_size, geometry.pixel_height, geometry.detector_count
    longer = np.arange(bins + LANES)  # a strip may run over the detector's end; what it finds there is dropped
    u = (longer - (bins - 1) / 2) * geometry.detector_spacing + geometry.centre
    if transposed:  # the row hit in column k: y = (u - x cos t) / sin t, r = (H - 1)/2 - y / height
        lines, across, rise, run, per_bin = w, h, cos, sin * geometry.pixel_aspect, (h - 1) / 2 - u / (height * sin)
    else:  # the column hit in row r
        lines, across, rise, run, per_bin = h, w, sin * geometry.pixel_aspect, cos, u / (p * cos) + (w - 1) / 2
    line = (np.arange(lines) - (lines - 1) / 2) * rise / run
    hits = (per_bin + line.min(1, keepdims=True) < across) & (per_bin + line.max(1, keepdims=True) > -1)
    middle = side((h, w)) // 2  # the image's own lines among those of the square
    line = (np.arange(side((h, w))) - middle + lines // 2 - (lines - 1) / 2) * rise / run
    per_bin = per_bin + (middle - across // 2)
    strips = []
    for row, hit in enumerate(hits[:, :bins]):
        met = np.flatnonzero(hit)
        if len(met):
            strips += [(row, first) for first in range(met[0], met[-1] + 1, LANES)]
    rows, first = np.asarray(strips, np.int64).reshape(-1, 2).T
    strip = per_bin[rows[:, None], first[:, None] + np.arange(LANES)]
    step = p / np.abs(sin) if transposed else height / np.abs(cos)
    return line[rows], strip, step[rows, 0], views[rows], first


def _project_plain(rays: ParallelRays, image: Array) -> Array:
    """[H, W] -> [views, bins]."""
    (a_int, a_frac, b_int, b_frac), shallow, step, source = rays.lines
    a_frac, b_frac, b_int = a_frac.astype(image.dtype), b_frac.astype(image.dtype)[:, None], b_int[:, None]

    def position(i: Array) -> tuple[Array, Array]:
        t = lax.dynamic_index_in_dim(a_frac, i, 0, keepdims=False) + b_frac
        carry = t >= 1
        whole = lax.dynamic_index_in_dim(a_int, i, 0, keepdims=False) + b_int + carry.astype(b_int.dtype)
        return whole, t - carry.astype(t.dtype)

    return placed(line_sums(image, position, shallow, step.astype(image.dtype)[:, None]), source)


def _gather_bins(rays: ParallelRays, sinogram: Array, *, slope: Array, taps: int, margin: int = 0) -> Array:
    """sum_v sum_b max(0, 1 - |b - q_v[r, k]| slope[v]) sinogram[v, b]: [H, W]."""
    (h, w), dtype, bins = rays.image_shape, sinogram.dtype, sinogram.shape[1]
    strips = -(-w // LANES)
    rows = jnp.pad(sinogram, ((0, 0), (2 * taps, 2 * taps)))  # where all taps of a clipped position read zeros
    assert rays.bins is not None
    a_int, a_frac, b_int, b_frac = rays.bins
    a_frac, b_frac = a_frac.astype(dtype), b_frac.astype(dtype)

    def body(v: Array, total: Array) -> Array:
        at = functools.partial(lax.dynamic_index_in_dim, index=v, axis=0, keepdims=False)
        row, steep = at(rows), at(slope)
        t = at(a_frac)[:, None] + at(b_frac)[None]
        carry = t >= 1
        whole = at(a_int)[:, None] + at(b_int)[None] + carry.astype(b_int.dtype)
        index = jnp.clip(whole + margin, -taps - 1, bins + taps - 1) + 2 * taps
        distance = t - carry.astype(dtype)
        for tap in range(1 - taps, taps + 1):
            weight = jnp.maximum(0, 1 - jnp.abs(distance - tap) * steep)
            total = total + weight * row.at[index + tap].get(mode="promise_in_bounds", wrap_negative_indices=False)
        return total

    total = lax.fori_loop(0, len(sinogram), body, jnp.zeros((h * strips, LANES), dtype))
    return rearrange(total, "(h strip) lane -> h (strip lane)", h=h)[:, :w]


def _backproject_plain(rays: ParallelRays, sinogram: Array) -> Array:
    """[views, bins] -> [H, W], the transpose of `_project_plain`."""
    if rays.bins is None:  # rarely wanted, and slower
        image = jax.ShapeDtypeStruct(rays.image_shape, sinogram.dtype)
        return jax.linear_transpose(functools.partial(_project_plain, rays), image)(sinogram)[0]
    scaled = sinogram * rays.step.astype(sinogram.dtype)[:, None]
    return _gather_bins(rays, scaled, slope=rays.slope.astype(sinogram.dtype), taps=rays.taps)


@functools.partial(jax.jit, static_argnums=2)
def _smear(rays: ParallelRays, sinogram: Array, margin: int = 0) -> Array:
    """Views with `margin` more bins on either side -> [H, W]: interpolated at every pixel, then summed."""
    return _gather_bins(rays, sinogram, slope=jnp.ones(len(sinogram), sinogram.dtype), taps=1, margin=margin)


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["lines", "bins", "step", "slope", "fbp"],
    meta_fields=["image_shape", "taps"],
)
@dataclasses.dataclass(frozen=True, eq=False)
class ParallelRays:
    """The tables of a `ParallelGeometry`.

    Attributes:
      lines: of the projection.
      bins: bin coordinates of the pixels, [views, H * strips] and [views, LANES], where there is a use for them.
      step: [views], length of a ray within one line.
      slope: [views], by which the weight of a pixel falls from one bin to the next.
      fbp: for filtered backprojection.
      image_shape: (H, W).
      taps: bins on either side of a pixel that its weights can reach.
    """

    lines: _Lines
    bins: _Split | None
    step: Table
    slope: Table
    fbp: FbpTables
    image_shape: tuple[int, int]
    taps: int

    project, backproject = transposes(_project_plain, _backproject_plain)
    smear = _smear
