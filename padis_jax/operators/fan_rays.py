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
    """Of a view, bin coordinate and depth of all pixels: [lines * strips, LANES] each, lines being rows or columns."""
    lines = rays.image_shape[1 if transposed else 0]
    terms = []
    for table in (rays.lateral, rays.depth):
        line, across = (term.astype(dtype) for term in (table[::-1] if transposed else table))
        # Before the loop over the views, in which recovering line and strip from an index would take half of the time.
        starts = (line[:, :lines, None] + across[:, None, ::LANES]).reshape(len(line), -1, 1)
        terms.append((starts, (across[:, :LANES] - across[:, :1])[:, None]))
    scale, middle, _ = rays.detector.astype(dtype)

    def position(v: Array) -> tuple[Array, Array]:
        at = functools.partial(lax.dynamic_index_in_dim, index=v, axis=0, keepdims=False)
        lateral, depth = (at(starts) + at(lanes) for starts, lanes in terms)
        return lateral / depth * scale + middle, depth

    return position


def _backproject_steep(rays: FanRays, sinogram: Array, transposed: bool) -> Array:
    """The transpose of the projection along all rays of one kind: [lines, across]."""
    lines, across = rays.image_shape[::-1] if transposed else rays.image_shape
    strips, dtype, taps, bins = -(-across // LANES), sinogram.dtype, rays.taps, sinogram.shape[1]
    kind = 1 if transposed else 0
    alpha, beta, values = (
        jnp.pad(table.astype(dtype), ((0, 0), (2 * taps, 2 * taps)))
        for table in (rays.alpha, rays.beta, sinogram * rays.steps[kind].astype(dtype))
    )
    line = jnp.asarray(np.repeat(np.arange(lines) - lines // 2, strips).astype(dtype))[:, None]
    column = np.tile((np.arange(strips * LANES) - across // 2).reshape(strips, LANES), (lines, 1)).astype(dtype)

    position = _bin_position(rays, dtype, transposed)

    def body(i: Array, total: Array) -> Array:
        v = rays.order[kind, i]
        at = functools.partial(lax.dynamic_index_in_dim, index=v, axis=0, keepdims=False)
        first = jnp.clip(jnp.floor(position(v)[0]), -taps - 1, bins + taps - 1).astype(jnp.int32)

        def add(tap: int | Array, total: Array) -> Array:
            a, b, y = (
                at(t).at[first + (tap + 2 * taps)].get(mode="promise_in_bounds", wrap_negative_indices=False)
                for t in (alpha, beta, values)
            )
            return total + jnp.maximum(0, 1 - jnp.abs(a + b * line - column)) * y

        if 2 * taps > UNROLLED:
            return lax.fori_loop(1 - taps, taps + 1, add, total)
        for tap in range(1 - taps, taps + 1):
            total = add(tap, total)
        return total

    total = lax.fori_loop(0, rays.counts[kind], body, jnp.zeros((lines * strips, LANES), dtype))
    return rearrange(total, "(line strip) lane -> line (strip lane)", line=lines)[:, :across]


def _backproject_plain(rays: FanRays, sinogram: Array) -> Array:
    """[views, bins] -> [H, W], the transpose of `_project_plain`."""
    return _backproject_steep(rays, sinogram, False) + _backproject_steep(rays, sinogram, True).T


@functools.partial(jax.jit, static_argnums=2)
def _smear(rays: FanRays, sinogram: Array, margin: int = 0) -> Array:
    """Views with `margin` more bins on either side -> [H, W]: sum of D/L^2 times the value at the pixel."""
    (h, w), dtype, bins = rays.image_shape, sinogram.dtype, sinogram.shape[1]
    rows = jnp.pad(sinogram, ((0, 0), (2, 2)))  # where both taps of a clipped position read zeros
    total_distance, bin_position = rays.detector[2].astype(dtype), _bin_position(rays, dtype, False)

    def body(v: Array, total: Array) -> Array:
        row = lax.dynamic_index_in_dim(rows, v, 0, keepdims=False)
        position, depth = bin_position(v)
        whole = jnp.floor(position)
        index = jnp.clip(whole + margin, -2, bins).astype(jnp.int32) + 2
        left, right = (row.at[index + tap].get(mode="promise_in_bounds", wrap_negative_indices=False) for tap in (0, 1))
        return total + (left + (position - whole) * (right - left)) * (total_distance / depth**2)

    total = lax.fori_loop(0, len(sinogram), body, jnp.zeros((h * -(-w // LANES), LANES), dtype))
    return rearrange(total, "(h strip) lane -> h (strip lane)", h=h)[:, :w]


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["lines", "alpha", "beta", "steps", "order", "counts", "lateral", "depth", "detector", "fbp"],
    meta_fields=["image_shape", "taps"],
)
@dataclasses.dataclass(frozen=True, eq=False)
class FanRays:
    """The tables of a `FanGeometry`. Pairs are of steep and shallow rays.

    Attributes:
      lines: of the projection.
      alpha, beta: [views, bins], where a ray is on the lines that it crosses, which are rows if it is steep.
      steps: [2, views, bins], length of a ray within one line, 0 where it is not of that kind or misses the image.
      order: [2, views], the views with such rays first.
      counts: [2], how many these are.
      lateral: x cos t + y sin t + a of the pixels as terms of row [views, rows] and column [views, columns], both
        filled up to full strips.
      depth: L, likewise.
      detector: D over the bin spacing, the bin coordinate of u = 0, D.
      fbp: for filtered backprojection.
      image_shape: (H, W).
      taps: bins on either side of a pixel that its weights can reach.
    """

    lines: Strips
    alpha: Table
    beta: Table
    steps: Table
    order: Table
    counts: Table
    lateral: tuple[Table, Table]
    depth: tuple[Table, Table]
    detector: Table
    fbp: FbpTables
    image_shape: tuple[int, int]
    taps: int

    project, backproject = transposes(_project_plain, _backproject_plain)
    smear = _smear
