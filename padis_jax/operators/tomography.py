"""Parallel-beam tomography: line integrals of an image, and their exact transpose.

Joseph's method (IEEE Trans. Med. Imaging 1, 192, 1982; ASTRA's 'linear' projector). The ray of view t and bin b is
x cos t + y sin t = u_b. Where it is steep (|cos t| >= |sin t|) it crosses every pixel row once, at the column

    c = (u_b - y_r sin t) / (p cos t) + (W - 1)/2,        (A x)_b = p/|cos t| sum_r lerp(x[r], c),

and where it is shallow, rows and columns change roles. p is the pixel size; row 0 is the top (y up); the image is
centred on the rotation centre and zero outside. Seen from the pixel at bin coordinate q, the same weights are

    (A' y)[r, k] = sum_t p/m sum_b max(0, 1 - |b - q| s / (p m)) y_b,     m = max(|cos t|, |sin t|), s the bin spacing,

so that only bins within p m / s of q matter: two of them where bins are as wide as pixels.

Both positions are sums of a term of one index and a term of another (row and bin, row and column). Their integer and
fractional parts are tabulated in float64 outside the trace; what is left for each sample is one carry. That keeps the
weights of A and A' equal to rounding in any precision, and every inner loop is an elementwise map over a contiguous
axis, cut into strips of LANES, which is what the CPU backend of XLA turns into vector instructions.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from padis_jax.operators import linear
from padis_jax.operators.fbp import fbp

ROW_SPLIT = 8  # rows of the image the projection takes at a time; measured best of 1 to 32 on the CPU
# Length of the innermost axis. The CPU backend flattens the indices of a gather and recovers them by division; only a
# power of two makes that a shift, without which jax 0.12 runs the projection four times slower (8.2 ms of CPU for 2.1).
LANES = 32


@dataclasses.dataclass(frozen=True)
class ParallelGeometry:
    """Static geometry of a parallel-beam scan: lengths in one unit, angles in radians."""

    image_shape: tuple[int, int]
    angles: tuple[float, ...]
    detector_count: int
    detector_spacing: float
    pixel_size: float
    detector_offset: float

    @property
    def measurement_shape(self) -> tuple[int, int]:
        """(views, bins)."""
        return len(self.angles), self.detector_count

    def bin_position(self, columns: int) -> tuple[np.ndarray, np.ndarray]:
        """Bin coordinate of pixel (r, k), k < columns, in view v as row_term[v, r] + column_term[v, k]."""
        theta = np.asarray(self.angles)
        h, w = self.image_shape
        y = ((h - 1) / 2 - np.arange(h)) * self.pixel_size
        x = (np.arange(columns) - (w - 1) / 2) * self.pixel_size
        row_term = np.sin(theta)[:, None] * y / self.detector_spacing
        origin = (self.detector_count - 1) / 2 - self.detector_offset / self.detector_spacing
        return row_term, np.cos(theta)[:, None] * x / self.detector_spacing + origin

    def project(self, image: Array) -> Array:
        """[H, W] -> [views, bins]."""
        return _project_jit(self, image)

    def backproject(self, sinogram: Array) -> Array:
        """[views, bins] -> [H, W], the transpose of `project`."""
        return _backproject_jit(self, sinogram)

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
    u = (padded - (bins - 1) / 2) * geometry.detector_spacing + geometry.detector_offset
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
    lines, across = image.shape
    blocks = -(-lines // ROW_SPLIT)
    extra = blocks * ROW_SPLIT - lines
    # Two zero pixels on either side: a clipped position reads zeros with both of its taps. Clipping once, before the
    # padding is added, lets the compiler drop its own two bounds checks.
    plane = jnp.pad(image, ((0, extra), (2, 2))).reshape(ROW_SPLIT, blocks, across + 4)

    def by_block(table: np.ndarray) -> Array:  # [n, lines] -> [blocks, n, split, 1]
        padded = np.pad(table, ((0, 0), (0, extra))).reshape(len(table), ROW_SPLIT, blocks)
        return jnp.asarray(padded.transpose(2, 0, 1)[..., None])

    a_int, a_frac = by_block(tables.position.a_int), by_block(tables.position.a_frac.astype(image.dtype))
    b_int = jnp.asarray(tables.position.b_int)[:, None, :]
    b_frac = jnp.asarray(tables.position.b_frac.astype(image.dtype))[:, None, :]
    split = np.arange(ROW_SPLIT)[None, :, None]

    def body(i: Array, total: Array) -> Array:
        rows = lax.dynamic_index_in_dim(plane, i, 1, keepdims=False)
        t = lax.dynamic_index_in_dim(a_frac, i, 0, keepdims=False) + b_frac
        carry = t >= 1
        index = lax.dynamic_index_in_dim(a_int, i, 0, keepdims=False) + b_int + carry
        index = jnp.clip(index, -2, across) + 2
        weight = t - carry
        left = rows.at[split, index].get(mode="promise_in_bounds", wrap_negative_indices=False)
        right = rows.at[split, index + 1].get(mode="promise_in_bounds", wrap_negative_indices=False)
        return total + (left + weight * (right - left))

    zero = jnp.zeros((len(tables.view), ROW_SPLIT, LANES), image.dtype)
    total = lax.fori_loop(0, blocks, body, zero).sum(1)
    return total * tables.step.astype(image.dtype)[:, None]


def _project_plain(geometry: ParallelGeometry, image: Array) -> Array:
    views, bins = geometry.measurement_shape
    source = np.full((views, bins + LANES), -1, np.int64)
    parts, size = [], 0
    for transposed in (False, True):
        tables = _steep_tables(geometry, transposed)
        if not len(tables.view):
            continue
        part = _project_steep(image.T if transposed else image, tables)
        place = tables.first_bin[:, None] + np.arange(LANES)
        source[tables.view[:, None], place] = size + np.arange(part.size).reshape(part.shape)
        parts.append(part.ravel())
        size += part.size
    # One gather puts the strips in their places; bins no ray of which meets the image read the final zero.
    source = np.where(source < 0, size, source)[:, :bins].astype(np.int32)
    parts.append(jnp.zeros(1, image.dtype))
    return jnp.concatenate(parts).at[source].get(mode="promise_in_bounds", wrap_negative_indices=False)


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
        index = jnp.clip(at(a_int)[:, None] + at(b_int)[None] + carry, -taps - 1, bins + taps - 1) + 2 * taps
        distance = t - carry
        for tap in range(1 - taps, taps + 1):
            weight = jnp.maximum(0, 1 - jnp.abs(distance - tap) * steep)
            total = total + weight * row.at[index + tap].get(mode="promise_in_bounds", wrap_negative_indices=False)
        return total

    total = lax.fori_loop(0, len(geometry.angles), body, jnp.zeros((h * strips, LANES), dtype))
    return total.reshape(h, strips * LANES)[:, :w]


def _backproject_plain(geometry: ParallelGeometry, sinogram: Array) -> Array:
    theta = np.asarray(geometry.angles)
    longest = np.maximum(np.abs(np.cos(theta)), np.abs(np.sin(theta)))
    step = (geometry.pixel_size / longest).astype(sinogram.dtype)
    half_width = geometry.pixel_size * longest / geometry.detector_spacing
    return _gather_bins(geometry, sinogram * step[:, None], half_width=half_width)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _project(geometry: ParallelGeometry, image: Array) -> Array:
    return _project_plain(geometry, image)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _backproject(geometry: ParallelGeometry, sinogram: Array) -> Array:
    return _backproject_plain(geometry, sinogram)


_project.defvjp(
    lambda geometry, image: (_project(geometry, image), None),
    lambda geometry, _, cotangent: (_backproject(geometry, cotangent),),
)
_backproject.defvjp(
    lambda geometry, sinogram: (_backproject(geometry, sinogram), None),
    lambda geometry, _, cotangent: (_project(geometry, cotangent),),
)


# Compiled once per geometry: called outside jit, a loop would be compiled again every time.
_project_jit = jax.jit(_project, static_argnums=0)
_backproject_jit = jax.jit(_backproject, static_argnums=0)


@functools.partial(jax.tree_util.register_dataclass, data_fields=["norm"], meta_fields=["geometry"])
@dataclasses.dataclass(frozen=True, eq=False)
class RayTransform:
    """Line integrals over a fixed geometry, as an operator. Built by `ParallelBeam`."""

    geometry: ParallelGeometry
    norm: Array

    @property
    def image_shape(self) -> tuple[int, int]:
        """(H, W)."""
        return self.geometry.image_shape

    @property
    def measurement_shape(self) -> tuple[int, int]:
        """(views, bins)."""
        return self.geometry.measurement_shape

    def __call__(self, image: Array) -> Array:
        """Line integrals, in the image's unit times the unit of length: [H, W(, C)] -> [views, bins(, C)]."""
        return per_channel(self.geometry.project, _checked("image", image, self.image_shape))

    def T(self, measurement: Array) -> Array:
        """The exact transpose: [views, bins(, C)] -> [H, W(, C)]."""
        return per_channel(self.geometry.backproject, _checked("measurement", measurement, self.measurement_shape))

    def start(self, measurement: Array) -> Array:
        """Filtered backprojection with the Hann filter cut off at 0.9 of the Nyquist frequency."""
        return fbp(self, measurement)

    def pinv(self, measurement: Array) -> Array:
        """The Moore-Penrose solution A+ y, by converged conjugate gradients (a few hundred of A and A')."""
        solve = functools.partial(linear.pseudo_inverse, self.geometry.project, self.geometry.backproject)
        return per_channel(solve, _checked("measurement", measurement, self.measurement_shape))


def ParallelBeam(  # noqa: N802 (a factory named like the object it makes)
    *,
    image_shape: tuple[int, int],
    angles: Sequence[float] | np.ndarray | Array,
    detector_count: int = 512,
    detector_spacing: float = 1.0,
    pixel_size: float = 1.0,
    detector_offset: float = 0.0,
) -> RayTransform:
    """A parallel-beam scan.

    Args:
      image_shape: (H, W) in pixels.
      angles: [views] in radians, in any order, repeated or beyond pi if need be. Ray: x cos t + y sin t = u.
      detector_count: bins per view.
      detector_spacing: distance of two bins.
      pixel_size: side of a pixel, in the unit of `detector_spacing`; line integrals come out in it.
      detector_offset: u of the detector's centre, in the same unit.

    Raises:
      ValueError: a size that is not positive, or angles that are not a non-empty list of finite numbers.
    """
    theta = np.asarray(angles, np.float64)
    if theta.ndim != 1 or theta.size == 0 or not np.isfinite(theta).all():
        raise ValueError(f"ParallelBeam: angles must be a non-empty list of finite radians, got shape {theta.shape}")
    if len(image_shape) != 2 or min(image_shape) < 1:
        raise ValueError(f"ParallelBeam: image_shape must be (H, W), both positive, got {tuple(image_shape)}")
    if detector_count < 1:
        raise ValueError(f"ParallelBeam: detector_count must be positive, got {detector_count}")
    for name, length in (("detector_spacing", detector_spacing), ("pixel_size", pixel_size)):
        if not (np.isfinite(length) and length > 0):
            raise ValueError(f"ParallelBeam: {name} must be positive, got {length}")
    if not np.isfinite(detector_offset):
        raise ValueError(f"ParallelBeam: detector_offset must be finite, got {detector_offset}")
    geometry = ParallelGeometry(
        (int(image_shape[0]), int(image_shape[1])),
        tuple(theta.tolist()),
        int(detector_count),
        float(detector_spacing),
        float(pixel_size),
        float(detector_offset),
    )
    norm = linear.operator_norm(geometry.project, geometry.backproject, image_shape=geometry.image_shape)
    return RayTransform(geometry, norm)


def _checked(what: str, array: Array, plane: tuple[int, int]) -> Array:
    """`array` in float32 or better; ValueError unless its shape is `plane`, or `plane` with channels last."""
    array = jnp.asarray(array)
    if array.ndim not in (2, 3) or array.shape[:2] != plane:
        raise ValueError(f"operator: expected {what} of shape {plane} or {(*plane, 'C')}, got {array.shape}")
    return array.astype(jnp.promote_types(array.dtype, jnp.float32))


def per_channel(function: linear.Map, array: Array) -> Array:
    """Apply a map of planes to [a, b], or to every channel of [a, b, C]."""
    if array.ndim == 2:
        return function(array)
    if array.shape[2] == 1:
        return function(array[:, :, 0])[:, :, None]
    return jax.vmap(function, in_axes=2, out_axes=2)(array)
