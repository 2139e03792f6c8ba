"""What the projector of fan beams computes with the tables of a `fan.FanGeometry`; symbols are those of `fan`."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange
from jax import Array, lax

from padis_jax.operators.fbp import FbpTables
from padis_jax.operators.joseph import LANES, Table, line_sums, line_table, placed, side, transposes

UNROLLED = 16  # taps of the transpose that are written out, which is fast; a source near the image's corner wants more


class Strips(NamedTuple):
    """Rays that meet the image, in strips: on line i of the square at m + alpha + beta (i - m), where m = side // 2."""

    alpha: Table  # [n, LANES]
    beta: Table  # [n, LANES]
    step: Table  # [n, LANES]: length of a ray within one line
    shallow: Table  # [n]
    source: Table  # [views, bins]


def _project_plain(rays: FanRays, image: Array) -> Array:
    """[H, W] -> [views, bins]."""
    across = side(rays.image_shape)
    alpha, beta, step = (table.astype(image.dtype) for table in rays.lines[:3])
    line = jnp.asarray(line_table(np.arange(across)[None] - across // 2).astype(image.dtype))

    def position(i: Array) -> tuple[Array, Array]:
        t = alpha[:, None] + beta[:, None] * lax.dynamic_index_in_dim(line, i, 0, False)
        whole = jnp.floor(t)
        return whole.astype(jnp.int32) + across // 2, t - whole

    return placed(line_sums(image, position, rays.lines.shallow, step), rays.lines.source)


def _bin_position(rays: FanRays, dtype: jnp.dtype, transposed: bool) -> Callable[[Array], tuple[Array, Array]]:
    """Of a view, bin coordinate from that of u = 0 and depth of all pixels: [lines * strips, LANES] each.

    Lines are the rows of the image, or its columns.
    """
    lines = rays.image_shape[1 if transposed else 0]
    terms = []
    for table in (rays.lateral, rays.depth):
        line, across = (term.astype(dtype) for term in (table[::-1] if transposed else table))
        # Before the loop over the views, in which recovering line and strip from an index would take half of the time.
        starts = (line[:, :lines, None] + across[:, None, ::LANES]).reshape(len(line), -1, 1)
        terms.append((starts, (across[:, :LANES] - across[:, :1])[:, None]))
    scale = rays.detector[0].astype(dtype)

    def position(v: Array) -> tuple[Array, Array]:
        at = functools.partial(lax.dynamic_index_in_dim, index=v, axis=0, keepdims=False)
        lateral, depth = (at(starts) + at(lanes) for starts, lanes in terms)
        return lateral / depth * scale, depth

    return position


def _backproject_steep(rays: FanRays, sinogram: Array, transposed: bool) -> Array:
    """The transpose of the projection along all rays of one kind: [lines, across]."""
    lines, across = rays.image_shape[::-1] if transposed else rays.image_shape
    strips, dtype, bins, kind = -(-across // LANES), sinogram.dtype, sinogram.shape[1], int(transposed)
    most = rays.taps[0]
    rows = jnp.pad(sinogram * rays.scale[kind].astype(dtype), ((0, 0), (most, most)))
    main, middle = rays.main[kind].astype(dtype), rays.detector[1].astype(dtype)
    position = _bin_position(rays, dtype, transposed)

    def body(taps: int, i: Array, total: Array) -> Array:
        v = rays.order[kind, i]
        row, (base, slope) = (lax.dynamic_index_in_dim(table, v, 0, False) for table in (rows, main))
        place, depth = position(v)
        bin_ = jnp.floor(place + (middle - taps / 2)) + 1
        index = jnp.clip(bin_, -taps, bins).astype(jnp.int32) + most
        bin_ = bin_ - middle
        beside, along = (bin_ - place) * depth, base + slope * bin_

        def add(tap: int | Array, total: Array) -> Array:
            value = row.at[index + tap].get(mode="promise_in_bounds", wrap_negative_indices=False)
            return total + jnp.maximum(0, jnp.abs(along + tap * slope) - jnp.abs(beside + tap * depth)) * value

        if taps > UNROLLED:
            return lax.fori_loop(0, taps, add, total)
        for tap in range(taps):
            total = add(tap, total)
        return total

    total, first = jnp.zeros((lines * strips, LANES), dtype), 0
    for taps, last in zip(rays.taps, rays.counts[kind], strict=True):
        total = lax.fori_loop(first, last, functools.partial(body, taps), total)
        first = last
    return rearrange(total, "(line strip) lane -> line (strip lane)", line=lines)[:, :across]


def _backproject_plain(rays: FanRays, sinogram: Array) -> Array:
    """[views, bins] -> [H, W], the transpose of `_project_plain`."""
    return _backproject_steep(rays, sinogram, False) + _backproject_steep(rays, sinogram, True).T


@functools.partial(jax.jit, static_argnums=2)
def _smear(rays: FanRays, sinogram: Array, margin: int = 0) -> Array:
    """Views with `margin` more bins on either side -> [H, W]: sum of D/L^2 times the value at the pixel."""
    (h, w), dtype, bins = rays.image_shape, sinogram.dtype, sinogram.shape[1]
    rows = jnp.pad(sinogram, ((0, 0), (2, 2)))  # where both taps of a clipped position read zeros
    (_, middle, total_distance), bin_position = rays.detector.astype(dtype), _bin_position(rays, dtype, False)

    def body(v: Array, total: Array) -> Array:
        row = lax.dynamic_index_in_dim(rows, v, 0, keepdims=False)
        place, depth = bin_position(v)
        position = place + middle
        whole = jnp.floor(position)
        index = jnp.clip(whole + margin, -2, bins).astype(jnp.int32) + 2
        left, right = (row.at[index + tap].get(mode="promise_in_bounds", wrap_negative_indices=False) for tap in (0, 1))
        return total + (left + (position - whole) * (right - left)) * (total_distance / depth**2)

    total = lax.fori_loop(0, len(sinogram), body, jnp.zeros((h * -(-w // LANES), LANES), dtype))
    return rearrange(total, "(h strip) lane -> h (strip lane)", h=h)[:, :w]


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["lines", "scale", "main", "order", "counts", "lateral", "depth", "detector", "fbp"],
    meta_fields=["image_shape", "taps"],
)
@dataclasses.dataclass(frozen=True, eq=False)
class FanRays:
    """The tables of a `FanGeometry`. Pairs are of steep and shallow rays.

    Attributes:
      lines: of the projection.
      scale: [2, views, bins], of a ray, the length within one line over m; 0 where it is not of that kind or misses the
        image.
      main: [2, views, 2], m of a ray is main[0] + main[1] b, with b the bin coordinate from that of u = 0.
      order: [2, views], the views with such rays first, by how many bins a pixel needs.
      counts: [2, len(taps)], how many of these come before those that the next number of taps is enough for.
      lateral: x cos t + y sin t + a of the pixels as terms of row [views, rows] and column [views, columns], both
        filled up to full strips.
      depth: L, likewise.
      detector: D over the bin spacing, the bin coordinate of u = 0, D.
      fbp: for filtered backprojection.
      image_shape: (H, W).
      taps: bins that the weights of a pixel can reach, falling: of the views that need most, and of others.
    """

    lines: Strips
    scale: Table
    main: Table
    order: Table
    counts: Table
    lateral: tuple[Table, Table]
    depth: tuple[Table, Table]
    detector: Table
    fbp: FbpTables
    image_shape: tuple[int, int]
    taps: tuple[int, ...]

    project, backproject = transposes(_project_plain, _backproject_plain)
    smear = _smear
