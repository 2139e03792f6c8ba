"""Superresolution: the measurement is the image made smaller by an integer factor s, along each axis by a matrix,

    A x = R_h x R_w',       A' y = R_h' y R_w,       A+ y = R_h+ y R_w+',       ||A|| = ||R_h|| ||R_w||.

block: the mean of s x s pixels. bicubic: Keys' kernel with coefficient a = -1/2 (IEEE Trans. ASSP 29, 1153, 1981),
stretched by s against aliasing,

    k(t) = (a + 2)|t|^3 - (a + 3) t^2 + 1  for |t| <= 1,      a (|t|^3 - 5 t^2 + 8 |t| - 4)  for 1 < |t| < 2,
    R[i, j] = k((j + 1/2)/s - (i + 1/2)) / sum over the pixels j within the image,

so that near the edge the weights of the pixels that are there sum to 1: the bicubic reduction of Pillow.

A side that s does not divide is measured by ceil(N / s) pixels: blocks start at the top left, and the last one of a row
or column is the mean (block) or the weighted mean (bicubic) of those of its pixels that lie within the image.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np
from einops import repeat
from jax import Array, lax

from padis_jax.operators.kept import kept
from padis_jax.operators.per_channel import PerChannel, checked_size, leaf, whole

Method = Literal["block", "bicubic"]


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["rows", "columns", "rows_inverse", "columns_inverse", "norm"],
    meta_fields=["image_shape", "factor", "method"],
)
@dataclasses.dataclass(frozen=True, eq=False)
class Resampling(PerChannel):
    """Reduction by a factor; built by `Downsample`. `start` repeats every pixel (nearest neighbour).

    Attributes:
      image_shape: (H, W).
      factor: s.
      rows: R_h, [ceil(H/s), H].
      columns: R_w, [ceil(W/s), W].
      rows_inverse: R_h+, [H, ceil(H/s)].
      columns_inverse: R_w+, [W, ceil(W/s)].
      norm: ||A||.
      method: "block" or "bicubic".
    """

    image_shape: tuple[int, int]
    factor: int
    rows: Array
    columns: Array
    rows_inverse: Array
    columns_inverse: Array
    norm: Array
    method: Method

    @property
    def onto(self) -> bool:
        """Whether the rows of A are orthogonal: blocks share no pixel, and what is bicubic does."""
        return self.method == "block"

    @property
    def measurement_shape(self) -> tuple[int, int]:
        """(ceil(H/s), ceil(W/s))."""
        return -(-self.image_shape[0] // self.factor), -(-self.image_shape[1] // self.factor)

    def forward(self, plane: Array) -> Array:
        """R_h x R_w'."""
        return _both(self.rows, plane, self.columns)

    def adjoint(self, plane: Array) -> Array:
        """R_h' y R_w."""
        return _both(self.rows.T, plane, self.columns.T)

    def inverse(self, plane: Array) -> Array:
        """R_h+ y R_w+'."""
        return _both(self.rows_inverse, plane, self.columns_inverse)

    def first(self, plane: Array) -> Array:
        """Every pixel repeated."""
        height, width = self.image_shape
        return repeat(plane, "h w -> (h s) (w t)", s=self.factor, t=self.factor)[:height, :width]


def _both(left: Array, plane: Array, right: Array) -> Array:
    """left plane right', in full precision (accelerators round products of float32 otherwise)."""
    left, right = left.astype(plane.dtype), right.astype(plane.dtype)
    return jnp.linalg.multi_dot([left, plane, right.T], precision=lax.Precision.HIGHEST)


def Downsample(  # noqa: N802 (a factory named like the object it makes)
    *, image_shape: tuple[int, int], factor: int, method: Method = "block"
) -> Resampling:
    """Superresolution's forward model.

    >>> import jax.numpy as jnp, padis_jax as pj
    >>> A = pj.Downsample(image_shape=(8, 8), factor=4)
    >>> y = A(jnp.ones((8, 8, 3)))
    >>> y.shape, A.start(y).shape
    ((2, 2, 3), (8, 8, 3))

    Args:
      image_shape: (H, W) in pixels; of a side that `factor` does not divide, the last block is smaller.
      factor: s, at least 1, whole, at most the longer side.
      method: "block" or "bicubic".

    Raises:
      ValueError: another factor, or an unknown method.
    """
    shape = checked_size("Downsample", image_shape)
    if not whole(factor) or factor > max(shape):
        raise ValueError(f"Downsample: factor {factor} must be whole, 1 to the longer side of the image's {shape}")
    factor = int(factor)
    if method not in get_args(Method):
        raise ValueError(f"Downsample: method must be one of {', '.join(get_args(Method))}, got {method!r}")
    return _resampling(shape, factor, method)


@kept
def _resampling(shape: tuple[int, int], factor: int, method: Method) -> Resampling:
    rows, columns = (reduction(n, factor, method) for n in shape)
    return Resampling(
        image_shape=shape,
        factor=factor,
        rows=leaf(rows),
        columns=leaf(columns),
        rows_inverse=leaf(np.linalg.pinv(rows)),
        columns_inverse=leaf(np.linalg.pinv(columns)),
        norm=leaf(float(np.linalg.norm(rows, 2) * np.linalg.norm(columns, 2))),
        method=method,
    )


def reduction(n: int, factor: int, method: Method) -> np.ndarray:
    """R of one axis: [ceil(n / factor), n]."""
    pixels, blocks = np.arange(n), np.arange(-(-n // factor))[:, None]
    if method == "block":
        weight = (pixels // factor == blocks).astype(float)
    else:
        t = np.abs((pixels + 0.5) / factor - (blocks + 0.5))
        near, far = 1.5 * t**3 - 2.5 * t**2 + 1, -0.5 * (t**3 - 5 * t**2 + 8 * t - 4)
        weight = np.where(t <= 1, near, np.where(t < 2, far, 0))
    return weight / weight.sum(1, keepdims=True)
