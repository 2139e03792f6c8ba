"""Inpainting, A x = m x with a mask m of known (1) and missing (0) pixels, and denoising, A x = x.

A is a projection, so that A' = A+ = A and ||A|| = 1. The measurement has the size of the image, 0 where nothing is
known. Masks are [H, W] for all channels and come from a key, or from an image.
"""

from __future__ import annotations

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from scipy import ndimage

from padis_jax.operators.kept import kept
from padis_jax.operators.per_channel import PerChannel, checked_size, leaf


@functools.partial(
    jax.tree_util.register_dataclass, data_fields=["mask", "nearest", "norm"], meta_fields=["image_shape"]
)
@dataclasses.dataclass(frozen=True, eq=False)
class Masking(PerChannel):
    """Inpainting; built by `Inpaint`. `start` gives every missing pixel the value of the nearest known one.

    Attributes:
      image_shape: (H, W).
      mask: [H, W], 1 where the pixel is known, else 0.
      nearest: [H, W], index into the flattened image of the nearest known pixel.
      norm: 1.
    """

    image_shape: tuple[int, int]
    mask: Array
    nearest: Array
    norm: Array

    def forward(self, plane: Array) -> Array:
        """m x."""
        return plane * self.mask.astype(plane.dtype)

    adjoint = forward
    inverse = forward
    onto = True

    @property
    def measured(self) -> Array:
        """[H, W], 1 where there is a measurement: a missing pixel has none, and so no noise."""
        return self.mask

    def first(self, plane: Array) -> Array:
        """The nearest known pixel's value."""
        return plane.ravel()[self.nearest]


@functools.partial(jax.tree_util.register_dataclass, data_fields=["norm"], meta_fields=["image_shape"])
@dataclasses.dataclass(frozen=True, eq=False)
class Unchanged(PerChannel):
    """Denoising's forward model, the identity; built by `Identity`. `start` is the noisy image itself."""

    image_shape: tuple[int, int]
    norm: Array
    identity = True
    onto = True

    def forward(self, plane: Array) -> Array:
        """x."""
        return plane

    adjoint = forward
    inverse = forward


def Identity(*, image_shape: tuple[int, int]) -> Unchanged:  # noqa: N802 (a factory named like the object it makes)
    """Denoising: the image itself is measured."""
    return Unchanged(checked_size("Identity", image_shape), leaf(1.0))


def Inpaint(*, mask: np.ndarray | Array) -> Masking:  # noqa: N802 (a factory named like the object it makes)
    """Inpainting with a given mask.

    >>> import jax.numpy as jnp, numpy as np, padis_jax as pj
    >>> A = pj.Inpaint(mask=np.arange(64).reshape(8, 8) % 2)
    >>> int(A(jnp.ones((8, 8, 1))).sum())
    32

    Args:
      mask: [H, W], boolean or 0 and 1: whether the pixel is known. See `random_mask`, `box_mask`, `stroke_mask`,
        `free_form_mask`; of a picture, `picture > 0.5`. Its values are not looked at while tracing.

    Raises:
      ValueError: a mask of another shape or other values, or without any known pixel.
    """
    known = mask if isinstance(mask, jax.core.Tracer) else np.asarray(mask)
    seen = known if isinstance(known, np.ndarray) else np.ones(known.shape)
    if known.ndim != 2 or not ((seen == 0) | (seen == 1)).all() or not seen.any():
        raise ValueError(
            f"Inpaint: mask must be [H, W] of 0 and 1 (threshold a picture first) with a known pixel, got {known.shape}"
        )
    shape = checked_size("Inpaint", known.shape)
    if isinstance(known, np.ndarray):
        return _masking(np.packbits(known.astype(bool)).tobytes(), shape)
    nearest = jax.pure_callback(_nearest, jax.ShapeDtypeStruct(shape, jnp.int32), known, vmap_method="sequential")
    return Masking(shape, jnp.asarray(known, leaf(1.0).dtype), nearest, leaf(1.0))


@kept
def _masking(bits: bytes, shape: tuple[int, int]) -> Masking:
    known = np.unpackbits(np.frombuffer(bits, np.uint8), count=math.prod(shape)).reshape(shape)
    return Masking(shape, leaf(known.astype(np.float64)), jnp.asarray(_nearest(known)), leaf(1.0))


def _nearest(known: np.ndarray | Array) -> np.ndarray:
    """[H, W], index into the flattened image of the nearest known pixel."""
    missing = np.asarray(known) == 0
    indices = ndimage.distance_transform_edt(missing, return_distances=False, return_indices=True)
    return np.ravel_multi_index(tuple(indices), missing.shape).astype(np.int32)


def random_mask(key: Array, image_shape: tuple[int, int], *, known: float = 0.3) -> Array:
    """[H, W], True where known: each pixel by itself with probability `known`, in (0, 1)."""
    if not 0 < known < 1:
        raise ValueError(f"random_mask: known is a probability in (0, 1), got {known}")
    return jax.random.bernoulli(key, jnp.float32(known), checked_size("random_mask", image_shape))


def box_mask(key: Array, image_shape: tuple[int, int], *, size: tuple[int, int], boxes: int = 1) -> Array:
    """[H, W], True where known: all but `boxes` boxes of `size` (height, width), anywhere within the image."""
    (h, w), (tall, wide) = checked_size("box_mask", image_shape), size
    if boxes < 1 or not (1 <= tall <= h and 1 <= wide <= w) or (tall, wide) == (h, w):
        raise ValueError(f"box_mask: {boxes} boxes of {size} do not leave and cover a part of an image of {(h, w)}")
    top_key, left_key = jax.random.split(key)
    top = jax.random.randint(top_key, (boxes, 1, 1), 0, h - tall + 1, jnp.int32)
    left = jax.random.randint(left_key, (boxes, 1, 1), 0, w - wide + 1, jnp.int32)
    rows, columns = jnp.arange(h)[None, :, None], jnp.arange(w)[None, None, :]
    inside = (rows >= top) & (rows < top + tall) & (columns >= left) & (columns < left + wide)
    return ~inside.any(0)


def stroke_mask(
    key: Array, image_shape: tuple[int, int], *, strokes: int = 8, steps: int = 12, width: float = 0.05
) -> Array:
    """[H, W], True where known: all but freehand strokes.

    A stroke is a chain of `steps` straight pieces with round ends, each 3/2 of the stroke's width long, which starts
    anywhere and turns by a normal angle of 0.5 radians from piece to piece.

    Args:
      key: decides all.
      image_shape: (H, W).
      strokes: how many.
      steps: pieces per stroke.
      width: of a stroke, as a fraction of the image's smaller side; each is between half and all of it.
    """
    h, w = checked_size("stroke_mask", image_shape)
    if strokes < 1 or steps < 1 or not 0 < width < 1:
        raise ValueError(f"stroke_mask: strokes {strokes} and steps {steps} at least 1, width {width} in (0, 1)")
    start_key, turn_key, width_key = jax.random.split(key, 3)
    begin = jax.random.uniform(start_key, (strokes, 1, 2), jnp.float32) * jnp.asarray([[[h, w]]], jnp.float32)
    turns = (
        jax.random.normal(turn_key, (strokes, steps), jnp.float32) * jnp.where(jnp.arange(steps) == 0, 10.0, 0.5)[None]
    )
    wide = width * min(h, w) * jax.random.uniform(width_key, (strokes, 1), jnp.float32, 0.5)
    heading = jnp.cumsum(turns, 1)
    pieces = 1.5 * wide[..., None] * jnp.stack([jnp.sin(heading), jnp.cos(heading)], -1)
    ends = begin + jnp.cumsum(pieces, 1)
    rows, columns = jnp.arange(0.5, h, dtype=jnp.float32)[:, None], jnp.arange(0.5, w, dtype=jnp.float32)[None]

    def covered(end: Array, way: Array, width: Array) -> Array:
        """Pixels whose centres are within half the width of a piece."""
        dr, dc = rows - (end - way)[0], columns - (end - way)[1]
        along = jnp.clip((dr * way[0] + dc * way[1]) / jnp.sum(way**2), 0, 1)
        return (dr - along * way[0]) ** 2 + (dc - along * way[1]) ** 2 < (width / 2) ** 2

    end, way, width_of = ends.reshape(-1, 2), pieces.reshape(-1, 2), jnp.repeat(wide[:, 0], steps)
    painted = lax.fori_loop(
        0, strokes * steps, lambda i, total: total | covered(end[i], way[i], width_of[i]), jnp.zeros((h, w), bool)
    )
    return ~painted
