"""Projector of fan beams with a flat detector.

In view t the axis of rotation, which the image is centred on, is the origin. Source and point u of the detector are

    S = (d sin t, -d cos t) - a (cos t, sin t),     P(u) = (-e sin t, e cos t) + (u - a) (cos t, sin t)

(ASTRA's 'fanflat' for a = 0), d and e the distances of source and detector, a the offset of the axis. With D = d + e
and tan g = u / D, the ray through both is that of a parallel beam,

    x cos(t - g) + y sin(t - g) = d sin g - a cos g,

infinite in both directions. Line sums are those of `joseph`, each ray steep or shallow by its own angle t - g. Its
position on line i is alpha + beta i; alpha and beta are tabulated in float64 outside the trace, and the transpose
weighs pixels with the same expression. A pixel at depth L = d - x sin t + y cos t meets the detector at

    u = D (x cos t + y sin t + a) / L,

and the transpose looks at the bins around there, as many as the rays within one pixel can be apart.
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

from padis_jax.operators.fan_fbp import fan_weights
from padis_jax.operators.joseph import LANES, line_sums, line_table, place, transposes
from padis_jax.operators.scan import Scan

UNROLLED = 16  # taps of the transpose that are written out, which is fast; a source near the image's corner wants more


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

    def project(self, image: Array) -> Array:
        """[H, W] -> [views, bins]."""
        return _project(self, image)

    def backproject(self, sinogram: Array) -> Array:
        """[views, bins] -> [H, W], the transpose of `project`."""
        return _backproject(self, sinogram)

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

    def smear(self, sinogram: Array) -> Array:
        """[views, bins] -> [H, W]: sum over the views of D/L^2 times the value at the pixel (for FBP)."""
        return _smear(self, sinogram)


class _Rays(NamedTuple):
    """Rays which cross every line of an image once: on line i - lines // 2 at across // 2 + alpha + beta i."""

    view: np.ndarray  # [n]
    bin: np.ndarray  # [n]
    alpha: np.ndarray  # [n]
    beta: np.ndarray  # [n]
    step: np.ndarray  # [n]: length of a ray within one line


@functools.lru_cache(maxsize=16)
def _rays(geometry: FanGeometry, transposed: bool) -> _Rays:
    """The rays which cross rows (or, `transposed`, columns) and meet the image."""
    gamma = geometry.fan_angle
    theta = np.asarray(geometry.angles)[:, None] - gamma
    s = geometry.source_distance * np.sin(gamma) - geometry.rotation_offset * np.cos(gamma)
    cos, sin = np.cos(theta), np.sin(theta)
    view, b = np.nonzero((np.abs(cos) >= np.abs(sin)) != transposed)
    cos, sin, s = cos[view, b], sin[view, b], s[b]
    (h, w), p = geometry.image_shape, geometry.pixel_size
    # Counted from the pixel in the middle: small numbers lose fewer digits in float32.
    if transposed:  # the row hit in column k: y = (s - x cos t) / sin t, r = (H - 1)/2 - y / p
        lines, across, beta = w, h, cos / sin
        alpha = (h - 1) / 2 - s / (p * sin) + (w // 2 - (w - 1) / 2) * beta
    else:  # the column hit in row r: x = (s - y sin t) / cos t, c = x / p + (W - 1)/2
        lines, across, beta = h, w, sin / cos
        alpha = (w - 1) / 2 + s / (p * cos) + (h // 2 - (h - 1) / 2) * beta
    ends = alpha + beta * np.asarray([[-(lines // 2)], [lines - 1 - lines // 2]])
    hit = (ends.min(0) < across) & (ends.max(0) > -1)
    step = p / np.maximum(np.abs(cos), np.abs(sin))
    return _Rays(view[hit], b[hit], (alpha - across // 2)[hit], beta[hit], step[hit])


def _project_steep(image: Array, rays: _Rays) -> Array:
    """Line sums of an image [lines, across] for every ray, filled up to full strips."""
    (lines, across), dtype = image.shape, image.dtype
    fill = -len(rays.view) % LANES
    alpha, beta, step = (
        np.pad(a, (0, fill)).astype(dtype).reshape(-1, LANES) for a in (rays.alpha, rays.beta, rays.step)
    )
    line = jnp.asarray(line_table(np.arange(lines)[None] - lines // 2).astype(dtype))

    def position(i: Array) -> tuple[Array, Array]:
        t = jnp.asarray(alpha)[:, None] + jnp.asarray(beta)[:, None] * lax.dynamic_index_in_dim(line, i, 0, False)
        whole = jnp.floor(t)
        return whole.astype(jnp.int32) + across // 2, t - whole

    return line_sums(image, position, step)


def _project_plain(geometry: FanGeometry, image: Array) -> Array:
    views, bins = geometry.measurement_shape
    parts, places = [jnp.zeros(0, image.dtype)], [np.zeros(0, np.int64)]
    for transposed in (False, True):
        rays = _rays(geometry, transposed)
        if not len(rays.view):
            continue
        parts.append(_project_steep(image.T if transposed else image, rays))
        places.append(np.pad(rays.view * bins + rays.bin, (0, -len(rays.view) % LANES), constant_values=-1))
    return place(parts, places, (views, bins))


class _Pixels(NamedTuple):
    """Lateral position and depth of the pixels of an image [lines, across], cut into strips of LANES.

    Both are a term of line and strip plus a term of the lane.
    """

    lateral: tuple[np.ndarray, np.ndarray]  # [views, lines * strips], [views, LANES]; x cos t + y sin t + a
    depth: tuple[np.ndarray, np.ndarray]  # L


def _pixels(geometry: FanGeometry, views: np.ndarray, transposed: bool) -> _Pixels:
    h, w = geometry.image_shape
    theta = np.asarray(geometry.angles)[views, None]
    along_y, along_x = (h, -(-w // LANES) * LANES) if not transposed else (-(-h // LANES) * LANES, w)
    y = ((h - 1) / 2 - np.arange(along_y)) * geometry.pixel_size
    x = (np.arange(along_x) - (w - 1) / 2) * geometry.pixel_size
    terms = []
    for of_x, of_y in (
        (np.cos(theta) * x + geometry.rotation_offset, np.sin(theta) * y),
        (-np.sin(theta) * x + geometry.source_distance, np.cos(theta) * y),
    ):
        line, across = (of_x, of_y) if transposed else (of_y, of_x)
        starts = (line[:, :, None] + across[:, None, ::LANES]).reshape(len(theta), -1)
        terms.append((starts, across[:, :LANES] - across[:, :1]))
    return _Pixels(*terms)


def _widest(geometry: FanGeometry) -> float:
    """A bound on how many bins apart two rays are that pass a pixel row or column one pixel apart."""
    p, d, a = geometry.pixel_size, geometry.source_distance, abs(geometry.rotation_offset)
    magnification = d + geometry.detector_distance
    reach = p * (math.hypot(*geometry.image_shape) / 2 + 1)  # of the image and a pixel around it
    # |grad u| = D sqrt(L^2 + l^2) / L^2, l the lateral position, is largest on the circle around the image: it grows
    # with 1/L and with |l|. Between the samples of the circle both move by less than half a step of it.
    around = np.linspace(0, np.pi, 1000)
    slack = reach * (around[1] - around[0]) / 2
    depth = np.maximum(d - reach * np.cos(around) - slack, d - reach)
    lateral = reach * np.sin(around) + a + slack
    return float(np.max(p * magnification * np.hypot(depth, lateral) / depth**2)) / geometry.detector_spacing


def _bin_position(geometry: FanGeometry, pixels: _Pixels, v: Array, dtype: jnp.dtype) -> tuple[Array, Array]:
    """Bin coordinate and depth of all pixels in the view at `v` of the tables: [lines * strips, LANES] each."""
    at = functools.partial(lax.dynamic_index_in_dim, index=v, axis=0, keepdims=False)
    lateral, depth = (
        at(jnp.asarray(starts.astype(dtype)))[:, None] + at(jnp.asarray(lanes.astype(dtype)))[None]
        for starts, lanes in (pixels.lateral, pixels.depth)
    )
    scale = (geometry.source_distance + geometry.detector_distance) / geometry.detector_spacing
    origin = (geometry.detector_count - 1) / 2 - geometry.detector_offset / geometry.detector_spacing
    return lateral / depth * scale + origin, depth


def _backproject_steep(geometry: FanGeometry, sinogram: Array, transposed: bool) -> Array:
    """The transpose of `_project_steep`, of all rays of one kind at once: [lines, across]."""
    lines, across = geometry.image_shape[::-1] if transposed else geometry.image_shape
    strips, dtype, rays = -(-across // LANES), sinogram.dtype, _rays(geometry, transposed)
    views, row = np.unique(rays.view, return_inverse=True)
    if not len(views):
        return jnp.zeros((lines, across), dtype)
    pixels = _pixels(geometry, views, transposed)
    taps = math.ceil(_widest(geometry) + 1e-2)  # the bin coordinate is rounded, the weights are not

    def table(values: np.ndarray) -> Array:  # [n] -> [views, bins], zero where the ray is of the other kind
        full = np.zeros((len(views), geometry.detector_count))
        full[row, rays.bin] = values
        return jnp.asarray(np.pad(full, ((0, 0), (2 * taps, 2 * taps))).astype(dtype))

    alpha, beta, step = table(rays.alpha), table(rays.beta), table(rays.step)
    values = jnp.pad(sinogram[views], ((0, 0), (2 * taps, 2 * taps))) * step
    line = jnp.asarray(np.repeat(np.arange(lines) - lines // 2, strips).astype(dtype))[:, None]
    column = np.tile((np.arange(strips * LANES) - across // 2).reshape(strips, LANES), (lines, 1)).astype(dtype)

    def body(v: Array, total: Array) -> Array:
        at = functools.partial(lax.dynamic_index_in_dim, index=v, axis=0, keepdims=False)
        position, _ = _bin_position(geometry, pixels, v, dtype)
        first = jnp.clip(jnp.floor(position), -taps - 1, geometry.detector_count + taps - 1).astype(jnp.int32)

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

    total = lax.fori_loop(0, len(views), body, jnp.zeros((lines * strips, LANES), dtype))
    return rearrange(total, "(line strip) lane -> line (strip lane)", line=lines)[:, :across]


def _backproject_plain(geometry: FanGeometry, sinogram: Array) -> Array:
    return _backproject_steep(geometry, sinogram, False) + _backproject_steep(geometry, sinogram, True).T


_project, _backproject = transposes(_project_plain, _backproject_plain)


@functools.partial(jax.jit, static_argnums=0)
def _smear(geometry: FanGeometry, sinogram: Array) -> Array:
    (h, w), dtype = geometry.image_shape, sinogram.dtype
    strips = -(-w // LANES)
    pixels = _pixels(geometry, np.arange(len(geometry.angles)), False)
    rows = jnp.pad(sinogram, ((0, 0), (2, 2)))  # where both taps of a clipped position read zeros
    total_distance = geometry.source_distance + geometry.detector_distance

    def body(v: Array, total: Array) -> Array:
        row = lax.dynamic_index_in_dim(rows, v, 0, keepdims=False)
        position, depth = _bin_position(geometry, pixels, v, dtype)
        whole = jnp.floor(position)
        index = jnp.clip(whole, -2, geometry.detector_count).astype(jnp.int32) + 2
        left, right = (row.at[index + tap].get(mode="promise_in_bounds", wrap_negative_indices=False) for tap in (0, 1))
        return total + (left + (position - whole) * (right - left)) * (total_distance / depth**2)

    total = lax.fori_loop(0, len(geometry.angles), body, jnp.zeros((h * strips, LANES), dtype))
    return rearrange(total, "(h strip) lane -> h (strip lane)", h=h)[:, :w]
