"""What the projector of cone beams computes with the tables of a `cone_geometry.ConeGeometry`; symbols are those there.

Joseph's method in three dimensions: on every plane n of its main axis m a ray is interpolated linearly along both other
axes, a and b,

    (A x)_ray = |w| / |w_m| sum_X x_X k_a k_b,    k_a = max(0, 1 - |X_a - X_a(n)|) = max(0, 1 - |E_b / w_m|),

with E = X x w - M. The projection interpolates planes, a chunk of views at a time. The transpose goes over the voxels
and looks at the pixels around (i, j), where a voxel is seen. There E vanishes, so that at the pixel (i + di, j + dj) it
is di (X x r - S x r) + dj (X x c - S x c): small numbers, of which nothing cancels.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from padis_jax.operators.cone_lines import OTHERS, lines_of
from padis_jax.operators.fbp import FbpTables
from padis_jax.operators.joseph import LANES, Table, side, transposes

PLANES = 4  # planes of the volume the projection takes at a time
CHUNK = 2**15  # rays, of as many views as fit, or of one
UNROLLED = 36  # pixels of the transpose that are written out; a source near the volume's corner wants more


def _project_plain(rays: ConeRays, volume: Array) -> Array:
    """[D, H, W] -> [views, rows, columns]."""
    across = side(volume.shape[1:])
    before = [across // 2 - n // 2 for n in volume.shape[1:]]
    square = jnp.pad(volume, [(0, 0), *((b, across - n - b) for n, b in zip(volume.shape[1:], before, strict=True))])
    # Two of the three axes share a program: planes of rows [D, W] and of columns [D, H], in the middle of a square.
    flat = jnp.stack([jnp.moveaxis(square, 1, 0), jnp.moveaxis(square, 2, 0)])
    out = jnp.zeros((len(rays.whole), *rays.detector_shape), volume.dtype)
    out = _project_kinds(rays, flat, (jnp.zeros_like(rays.counts[0]), rays.counts[0]), out)
    return _project_kinds(rays, volume[None], (rays.counts[0], rays.counts[1]), out) if rays.tall else out


def _project_kinds(rays: ConeRays, volumes: Array, span: tuple[Array, Array], out: Array) -> Array:
    """`out` and the sums along rays.

    Args:
      rays: the tables.
      volumes: [kinds, lines, high, wide], cut into the planes of each main axis, rows' or columns' first.
      span: the first of `rays.pairs`, and the one after the last.
      out: [views, rows, columns].
    """
    dtype, views, (kinds, lines, high, wide) = volumes.dtype, len(out), volumes.shape
    size = chunk_of(views, rays.detector_shape)
    blocks = -(-lines // PLANES)
    # Two zero voxels on either side: a clipped position reads zeros with all of its taps.
    planes = jnp.pad(volumes, ((0, 0), (0, blocks * PLANES - lines), (2, 2), (2, 2)))
    planes = jnp.moveaxis(planes.reshape(kinds, blocks, PLANES, -1), 0, 2).reshape(blocks, PLANES, -1)
    # Counted from the voxel in the middle, n // 2: small numbers lose fewer digits.
    shift = jnp.asarray([(n - 1) / 2 - n // 2 for n in rays.volume_shape], dtype)

    def strips(values: Array) -> Array:
        flat = jnp.broadcast_to(values, (size, *rays.detector_shape)).ravel()
        return jnp.pad(flat, (0, -flat.size % LANES)).reshape(-1, LANES)

    def chunk(c: Array, out: Array) -> Array:
        n = span[0] + c * size + jnp.arange(size, dtype=jnp.int32)
        kind, view = rays.pairs[jnp.minimum(n, len(rays.pairs) - 1)].T
        found = lines_of(rays, kind, view, dtype)
        others = jnp.asarray(OTHERS)[kind]
        at = [strips(a + shift[others[:, n]][:, None, None]) for n, a in enumerate(found.at)]
        slope = [strips(s) for s in found.slope]
        start = strips(shift[kind][:, None, None])
        offset = strips(jnp.where(kind == 2, kinds - 1, 0)[:, None, None]) * (high + 4) * (wide + 4)
        offset = offset + (high // 2 + 2) * (wide + 4) + wide // 2 + 2

        def body(block: Array, total: Array) -> Array:
            inner = lax.dynamic_index_in_dim(planes, block, 0, keepdims=False)
            for n in range(PLANES):
                line = (block * PLANES + n - lines // 2).astype(dtype) - start
                y, x = at[0] + slope[0] * line, at[1] + slope[1] * line
                row, column = jnp.floor(y), jnp.floor(x)
                index = jnp.clip(row, -2 - high // 2, high - high // 2).astype(jnp.int32) * (wide + 4) + offset
                index = index + jnp.clip(column, -2 - wide // 2, wide - wide // 2).astype(jnp.int32)
                total = total + _between(inner[n], index, wide + 4, y - row, x - column)
            return total

        total = lax.fori_loop(0, blocks, body, jnp.zeros_like(at[0])).ravel()[: found.step.size]
        used = jnp.where((n < span[1])[:, None, None], found.step, 0)
        return out.at[view].add(total.reshape(used.shape) * used)

    return lax.fori_loop(0, (span[1] - span[0] + size - 1) // size, chunk, out)


def chunk_of(views: int, detector_shape: tuple[int, int]) -> int:
    """How many views are projected at a time."""
    return max(1, min(views, CHUNK // (detector_shape[0] * detector_shape[1])))


def _between(flat: Array, index: Array, width: int, y: Array, x: Array) -> Array:
    """Interpolated between the values at index, index + 1 and those a row of `width` values further."""

    def value(offset: int) -> Array:
        return flat.at[index + offset].get(mode="promise_in_bounds", wrap_negative_indices=False)

    upper, lower = value(0), value(width)
    upper = upper + x * (value(1) - upper)
    return upper + y * (lower + x * (value(width + 1) - lower) - upper)


class _Voxels(NamedTuple):
    """Positions of all voxels, in strips of LANES columns: those of the strips [n, 1] and within them [1, LANES]."""

    z: Array
    y: Array
    x: Array
    lane: Array

    def affine(self, factors: Array) -> Array:
        """Of four numbers, those of z, y, x and 1: [n, LANES]."""
        z, y, x, one = factors
        return (z * self.z + y * self.y + x * self.x + one) + x * self.lane


def _voxels(shape: tuple[int, int, int], dtype: Any) -> _Voxels:
    depth, height, width = shape
    first = np.arange(0, width, LANES) - (width - 1) / 2
    grid = np.meshgrid(np.arange(depth) - (depth - 1) / 2, np.arange(height) - (height - 1) / 2, first, indexing="ij")
    z, y, x = (jnp.asarray(values.reshape(-1, 1), dtype) for values in grid)
    return _Voxels(z, y, x, jnp.arange(LANES).astype(dtype)[None])


def _volume(strips: Array, shape: tuple[int, int, int]) -> Array:
    return strips.reshape(*shape[:2], -1)[..., : shape[2]]


def _backproject_plain(rays: ConeRays, measurement: Array) -> Array:
    """[views, rows, columns] -> [D, H, W], the transpose of `_project_plain`."""
    dtype, (rows, columns), taps = measurement.dtype, rays.detector_shape, rays.taps
    voxels, width = _voxels(rays.volume_shape, dtype), columns + 2 * taps[1]

    def body(n: Array, total: Array) -> Array:
        kind, view = rays.pairs[n]
        found = lines_of(rays, kind[None], view[None], dtype)
        scaled = measurement[view] * (found.step / found.main**2)[0]
        flat = jnp.pad(scaled, [(tap, tap) for tap in taps]).ravel()
        w, moment, seen = (table[view].astype(dtype) for table in (rays.direction, rays.moment, rays.seen))
        reach = rays.reach[kind].astype(dtype)
        i, j, q = (voxels.affine(row) for row in seen)
        q = 1 / q
        i, j = i * q, j * q
        middle_i, middle_j = (rows - 1) / 2, (columns - 1) / 2
        row, column = jnp.floor(i + (middle_i - reach[0])) + 1, jnp.floor(j + (middle_j - reach[1])) + 1
        index = jnp.clip(row, -taps[0], rows).astype(jnp.int32) * width
        index = index + jnp.clip(column, -taps[1], columns).astype(jnp.int32) + (taps[0] * width + taps[1])
        row, column = row - middle_i, column - middle_j
        # How E grows along both other axes with a step between rows and one between columns.
        others, growth = jnp.asarray(OTHERS)[kind], _crossed(w[1:], moment[1:])
        slopes = [[voxels.affine(growth[step, others[a]]) for step in range(2)] for a in range(2)]
        start = [(row - i) * by_row + (column - j) * by_column for by_row, by_column in slopes]
        main = w[:, kind]
        first = main[0] + main[1] * row + main[2] * column

        def add(di: Any, dj: Any, total: Array) -> Array:
            here = jnp.abs(first + (di * main[1] + dj * main[2]))
            value = flat.at[index + (di * width + dj)].get(mode="promise_in_bounds", wrap_negative_indices=False)
            for e, (by_row, by_column) in zip(start, slopes, strict=True):
                value = value * jnp.maximum(here - jnp.abs(e + di * by_row + dj * by_column), 0)
            return total + value

        if taps[0] * taps[1] > UNROLLED:
            every = np.int32(taps[0] * taps[1])
            return lax.fori_loop(np.int32(0), every, lambda k, t: add(k // taps[1], k % taps[1], t), total)
        for di in range(taps[0]):
            for dj in range(taps[1]):
                total = add(di, dj, total)
        return total

    total = lax.fori_loop(0, rays.counts[1], body, jnp.zeros((voxels.z.shape[0], LANES), dtype))
    return _volume(total, rays.volume_shape)


def _crossed(steps: Array, moments: Array) -> Array:
    """X x step - moment along each axis, by (z, y, x, 1): [steps, 3, 4] of [steps, 3] each."""
    z, y, x = steps.T
    zero = jnp.zeros_like(z)
    rows = [[zero, x, -y], [-x, zero, z], [y, -z, zero]]
    return jnp.concatenate([jnp.moveaxis(jnp.asarray(rows), -1, 0), -moments[..., None]], -1)


def smear(rays: ConeRays, filtered: Callable[[Array], Array], dtype: Any) -> Array:
    """Sum over the views of D/L^2 times the value at the voxel, interpolated: [D, H, W].

    Args:
      rays: the tables.
      filtered: the view of a number, with a margin on either side, [rows, margin + columns + margin].
      dtype: of what it gives.
    """
    voxels, rows = _voxels(rays.volume_shape, dtype), rays.detector_shape[0]
    depth = rays.depth.astype(dtype)

    def body(view: Array, total: Array) -> Array:
        values = filtered(view)
        width = values.shape[1]
        flat = jnp.pad(values, 2).ravel()
        i, j, q = (voxels.affine(row) for row in rays.seen[view].astype(dtype))
        q = 1 / q
        i, j = i * q + (rows - 1) / 2, j * q + (width - 1) / 2
        row, column = jnp.floor(i), jnp.floor(j)
        index = (jnp.clip(row, -2, rows).astype(jnp.int32) + 2) * (width + 4)
        index = index + jnp.clip(column, -2, width).astype(jnp.int32) + 2
        return total + _between(flat, index, width + 4, i - row, j - column) * (q * q / depth[view])

    total = lax.fori_loop(0, len(rays.whole), body, jnp.zeros((voxels.z.shape[0], LANES), dtype))
    return _volume(total, rays.volume_shape)


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["direction", "moment", "whole", "seen", "pairs", "counts", "reach", "sizes", "row", "depth", "fbp"],
    meta_fields=["volume_shape", "detector_shape", "tall", "taps"],
)
@dataclasses.dataclass(frozen=True, eq=False)
class ConeRays:
    """The tables of a `ConeGeometry`: a few numbers for each view, so that memory does not grow with rays.

    Attributes:
      direction: w by (1, i, j) and axis, [views, 3, 3].
      moment: M, likewise.
      whole: w in whole numbers by (1, 2 i, 2 j), likewise, which decide a ray's main axis.
      seen: P, [views, 3, 4].
      pairs: (main axis, view) for which there are rays, those along slices last: [3 views, 2].
      counts: of these, without those along slices and with them.
      reach: [3, 2], of a voxel, in rows and columns of the detector.
      sizes: of a voxel along the three axes.
      row: unit vector along which the detector's rows follow each other, in the order of the axes, [views, 3].
      depth: D, from source to detector along its normal, [views].
      fbp: of the fan in the plane of the orbit, for FDK; None where the views are no circular orbit.
      volume_shape: (D, H, W).
      detector_shape: (rows, columns).
      tall: whether there are rays whose main axis is that of the slices.
      taps: rows and columns of the detector that a voxel's weights can reach.
    """

    direction: Table
    moment: Table
    whole: Table
    seen: Table
    pairs: Table
    counts: Table
    reach: Table
    sizes: Table
    row: Table
    depth: Table
    fbp: FbpTables | None
    volume_shape: tuple[int, int, int]
    detector_shape: tuple[int, int]
    tall: bool
    taps: tuple[int, int]

    project, backproject = transposes(_project_plain, _backproject_plain)
