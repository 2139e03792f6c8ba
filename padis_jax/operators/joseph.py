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

from collections.abc import Callable
from typing import Any, TypeVar

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
Table = Any  # an array, of NumPy where it is made and of JAX in a trace


def rounded_up(count: int, least: int = 1) -> int:
    """The next multiple of `least` or of a 32nd to a 16th of `count`: what differs by less has tables of one shape."""
    step = max(least, 2 ** (int(count).bit_length() - 5))
    return -(-count // step) * step


def side(image_shape: tuple[int, ...]) -> int:
    """Of the square that both the image and its transpose are put in the middle of: pixel n // 2 on `side` // 2."""
    return max(image_shape)


def padded(values: np.ndarray, strips: int) -> np.ndarray:
    """[n, ...] -> [strips, ...], with zeros."""
    return np.pad(values, ((0, strips - len(values)), *((0, 0),) * (values.ndim - 1)))


def line_table(values: np.ndarray) -> np.ndarray:
    """A value per line [n, lines], in the order in which `line_sums` takes the lines: [blocks, n, ROW_SPLIT, 1]."""
    padded = np.pad(values, ((0, 0), (0, -values.shape[1] % ROW_SPLIT)))
    return np.ascontiguousarray(rearrange(padded, "n (split block) -> block n split 1", split=ROW_SPLIT))


def line_sums(image: Array, position: Position, shallow: Array, step: Array) -> Array:
    """Sums of interpolated values over all lines of an image, times `step`, for n strips of rays.

    Args:
      image: [H, W].
      position: where on line i of the square (see `side`) that has the image, or its transpose, in the middle.
      shallow: [n], whether the strip's rays cross the columns, so that these are the lines.
      step: length of a ray within one line, broadcast to [n, LANES].

    Returns:
      [n, LANES].
    """
    across = side(image.shape)
    blocks = -(-across // ROW_SPLIT)
    # Two zero pixels on either side: a clipped position reads zeros with both of its taps. Clipping once, before the
    # padding is added, lets the compiler drop its own two bounds checks.
    before = [across // 2 - n // 2 for n in image.shape]
    square = jnp.pad(image, [(b, across - n - b) for n, b in zip(image.shape, before, strict=True)])
    plane = jnp.pad(jnp.stack([square, square.T]), ((0, 0), (0, blocks * ROW_SPLIT - across), (2, 2)))
    plane = rearrange(plane, "kind (split block) across -> kind split block across", split=ROW_SPLIT)
    split = np.arange(ROW_SPLIT)[None, :, None]
    kind = shallow[:, None, None].astype(jnp.int32)

    def body(i: Array, total: Array) -> Array:
        rows = lax.dynamic_index_in_dim(plane, i, 2, keepdims=False)
        index, weight = position(i)
        index = jnp.clip(index, -2, across) + 2
        left = rows.at[kind, split, index].get(mode="promise_in_bounds", wrap_negative_indices=False)
        right = rows.at[kind, split, index + 1].get(mode="promise_in_bounds", wrap_negative_indices=False)
        return total + (left + weight * (right - left))

    zero = jnp.zeros((shallow.shape[0], ROW_SPLIT, LANES), image.dtype)
    return lax.fori_loop(0, blocks, body, zero).sum(1) * step


def source_table(places: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Which of the values of `line_sums` each entry of a sinogram is: [views, bins]; where none is, one past the last.

    Args:
      places: of each value, its index in the flattened sinogram, or one outside of it, where the value is dropped.
      shape: (views, bins).
    """
    kept = np.flatnonzero((places >= 0) & (places < shape[0] * shape[1]))
    source = np.full(shape[0] * shape[1], places.size, np.int32)
    source[places[kept]] = kept
    return source.reshape(shape)


def placed(values: Array, source: Array) -> Array:
    """The sinogram of `values` by its `source_table`; where it has none, zero."""
    values = jnp.concatenate([values.ravel(), jnp.zeros(1, values.dtype)])
    return values.at[source].get(mode="promise_in_bounds", wrap_negative_indices=False)


R = TypeVar("R")  # the tables of a scan: a pytree


def transposes(
    forward: Callable[[R, Array], Array], back: Callable[[R, Array], Array]
) -> tuple[Callable[[R, Array], Array], Callable[[R, Array], Array]]:
    """Two linear maps (tables, array) -> array, each the transpose of the other, of which autodiff knows.

    Both are compiled: called outside jit, a loop would be compiled again every time. The tables have no derivative.
    """

    @jax.custom_vjp
    def project(rays: R, image: Array) -> Array:
        return forward(rays, image)

    @jax.custom_vjp
    def backproject(rays: R, sinogram: Array) -> Array:
        return back(rays, sinogram)

    project.defvjp(
        lambda rays, image: (project(rays, image), rays),
        lambda rays, cotangent: (None, backproject(rays, cotangent)),
    )
    backproject.defvjp(
        lambda rays, sinogram: (backproject(rays, sinogram), rays),
        lambda rays, cotangent: (None, project(rays, cotangent)),
    )
    return jax.jit(project), jax.jit(backproject)
