"""What the projectors of parallel and fan beams share: sums along rays by Joseph's method, and pairs of transposes.

Joseph's method (IEEE Trans. Med. Imaging 1, 192, 1982; ASTRA's 'linear' projector). A ray x cos t + y sin t = u that is
steep (|cos t| >= |sin t|) crosses every pixel row once, at a column c_r, and there is interpolated linearly:

    (A x)_ray = p/|cos t| sum_r lerp(x[r], c_r),       c_r = (u - y_r sin t) / (p cos t) + (W - 1)/2

and where it is shallow, rows and columns change roles. p is the pixel size; row 0 is the top (y up); the image is
centred on the rotation centre and zero outside.

Every inner loop is an elementwise map over a contiguous axis, cut into strips of LANES, which is what the CPU backend
of XLA turns into vector instructions.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange
from jax import Array, lax

ROW_SPLIT = 8  # rows of the image the projection takes at a time; measured best of 1 to 32 on the CPU
# Length of the innermost axis. The CPU backend flattens the indices of a gather and recovers them by division; only a
# power of two makes that a shift, without which jax 0.12 runs the projection four times slower (8.2 ms of CPU for 2.1).
LANES = 32

# (index, weight) of the left one of two neighbours, for the block `i` of lines: each [n, ROW_SPLIT, LANES].
Position = Callable[[Array], tuple[Array, Array]]


def line_table(values: np.ndarray) -> np.ndarray:
    """A value per line [n, lines], in the order in which `line_sums` takes the lines: [blocks, n, ROW_SPLIT, 1]."""
    padded = np.pad(values, ((0, 0), (0, -values.shape[1] % ROW_SPLIT)))
    return np.ascontiguousarray(rearrange(padded, "n (split block) -> block n split 1", split=ROW_SPLIT))


def line_sums(image: Array, position: Position, step: np.ndarray) -> Array:
    """Sums of interpolated values over all lines of an image [lines, across], times `step`, for n strips of rays.

    Args:
      image: its lines are crossed once by each ray.
      position: where. Lines past the last one are zero.
      step: length of a ray within one line, broadcast to [n, LANES].

    Returns:
      [n, LANES].
    """
    lines, across = image.shape
    blocks = -(-lines // ROW_SPLIT)
    # Two zero pixels on either side: a clipped position reads zeros with both of its taps. Clipping once, before the
    # padding is added, lets the compiler drop its own two bounds checks.
    plane = jnp.pad(image, ((0, blocks * ROW_SPLIT - lines), (2, 2)))
    plane = rearrange(plane, "(split block) across -> split block across", split=ROW_SPLIT)
    split = np.arange(ROW_SPLIT)[None, :, None]

    def body(i: Array, total: Array) -> Array:
        rows = lax.dynamic_index_in_dim(plane, i, 1, keepdims=False)
        index, weight = position(i)
        index = jnp.clip(index, -2, across) + 2
        left = rows.at[split, index].get(mode="promise_in_bounds", wrap_negative_indices=False)
        right = rows.at[split, index + 1].get(mode="promise_in_bounds", wrap_negative_indices=False)
        return total + (left + weight * (right - left))

    zero = jnp.zeros((step.shape[0], ROW_SPLIT, LANES), image.dtype)
    return lax.fori_loop(0, blocks, body, zero).sum(1) * jnp.asarray(step.astype(image.dtype))


def place(parts: Sequence[Array], places: Sequence[np.ndarray], shape: tuple[int, int]) -> Array:
    """A sinogram of `shape` of the values of `parts`; where no part has a value, zero.

    Args:
      parts: values.
      places: of each value, its index in the flattened sinogram, or one outside of it, where the value is dropped.
      shape: (views, bins).
    """
    # One gather puts all in their places; bins no ray of which meets the image read the final zero.
    total = sum(part.size for part in parts)
    source = np.full(shape[0] * shape[1], total, np.int32)
    first = 0
    for where in places:
        kept = (where >= 0) & (where < len(source))
        source[where[kept]] = first + np.flatnonzero(kept)
        first += where.size
    values = jnp.concatenate([*(part.ravel() for part in parts), jnp.zeros(1, parts[0].dtype)])
    return values.at[source.reshape(shape)].get(mode="promise_in_bounds", wrap_negative_indices=False)


G = TypeVar("G")  # a geometry: static, hashable


def transposes(
    forward: Callable[[G, Array], Array], back: Callable[[G, Array], Array]
) -> tuple[Callable[[G, Array], Array], Callable[[G, Array], Array]]:
    """Two linear maps (geometry, array) -> array, each the transpose of the other, of which autodiff knows.

    Both are compiled once per geometry: called outside jit, a loop would be compiled again every time.
    """

    @functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
    def project(geometry: G, image: Array) -> Array:
        return forward(geometry, image)

    @functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
    def backproject(geometry: G, sinogram: Array) -> Array:
        return back(geometry, sinogram)

    project.defvjp(
        lambda geometry, image: (project(geometry, image), None),
        lambda geometry, _, cotangent: (backproject(geometry, cotangent),),
    )
    backproject.defvjp(
        lambda geometry, sinogram: (backproject(geometry, sinogram), None),
        lambda geometry, _, cotangent: (project(geometry, cotangent),),
    )
    return jax.jit(project, static_argnums=0), jax.jit(backproject, static_argnums=0)
