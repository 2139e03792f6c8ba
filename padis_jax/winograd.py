"""3 x 3 convolutions with a quarter of the multiplications: Winograd's minimal filtering F(4 x 4, 3 x 3).

Four outputs y = A^T [(G k) * (B^T d)] of a filter k of three taps on six inputs d take six products instead of twelve:
the polynomials of d and k are evaluated in six points, multiplied, and interpolated (Toom and Cook). Along rows and
columns, with tiles d of 6 x 6 pixels that overlap by two, and summed over channels,

    Y = A^T [ sum_c (G k_c G^T) * (B^T d_c B) ] A,

which is 36 matrix products [tiles, c_in] x [c_in, c_out] (Lavin and Gray, arXiv 1509.09308). The gradient in the kernel
is that of this formula: with dM = A dY A^T, dk = G^T [ sum_tiles (B^T d B)^T dM ] G.

The points are 0, +-2/3, +-3/2 and infinity. In float32 the error is then about twice that of a direct convolution and
half of what the usual points 0, +-1, +-2 and infinity give; `tests/test_winograd.py` prints them, and Barabasz et al.,
arXiv 1803.10986, study the choice of points. Few images at a time go through all three steps, so that the tiles stay in
the cache.
"""

from __future__ import annotations

import functools
import math
import os
from collections.abc import Sequence
from fractions import Fraction

import jax.numpy as jnp
import numpy as np
from einops import rearrange
from jax import Array, lax

OUT, TAPS = 4, 3
IN = OUT + TAPS - 1
POINTS = (Fraction(0), Fraction(2, 3), Fraction(-2, 3), Fraction(3, 2), Fraction(-3, 2))  # and infinity
_TILES_PER_CORE = 128  # at a time: about 1 MB of 64 channels, the cache of a core
_CHANNELS = 16
_PRODUCTS = 3_000_000  # of an image, 28 x 28 x 64 x 64: less work does not pay for the time that compiling takes

Matrix = tuple[tuple[float, ...], ...]


def suits(images: Array, kernel: Array) -> bool:
    """Whether it pays, and is precise: 3 x 3, many channels, much work, and no half precision."""
    batch, height, width, _ = images.shape
    products = height * width * math.prod(kernel.shape[2:])
    large = batch > 0 and min(kernel.shape[2:]) >= _CHANNELS and products >= _PRODUCTS
    return kernel.shape[:2] == (TAPS, TAPS) and large and images.dtype.itemsize >= 4


def convolve(images: Array, kernel: Array) -> Array:
    """Zero-padded convolution of stride 1: [b, h, w, c_in] by [3, 3, c_in, c_out] -> [b, h, w, c_out]."""
    batch, height, width, _ = images.shape
    size, weights = _chunk(images.shape), _of_kernel(kernel + _zero(images))

    def write(i: Array, out: Array) -> Array:
        some = lax.dynamic_slice_in_dim(images, i * size, size)
        found = _untile(lax.dot_general(_tile(some), weights, (((2,), (1,)), ((0,), (0,)))), some.shape)
        return lax.dynamic_update_slice_in_dim(out, found[:, :height, :width], i * size, 0)

    room = jnp.full((*images.shape[:3], kernel.shape[-1]), _zero(images))
    return lax.fori_loop(0, batch // size, write, room)


def kernel_gradient(images: Array, dy: Array) -> Array:
    """sum of dy [b, h, w, c_out] times the derivative of `convolve` in its kernel: [3, 3, c_in, c_out]."""
    size = _chunk(images.shape)

    def add(i: Array, total: Array) -> Array:
        some, some_dy = (lax.dynamic_slice_in_dim(a, i * size, size) for a in (images, dy))
        return total + lax.dot_general(_tile(some), _tile_outputs(some_dy), (((1,), (1,)), ((0,), (0,))))

    zeros = jnp.full((IN * IN, images.shape[-1], dy.shape[-1]), _zero(dy))
    total = lax.fori_loop(0, len(images) // size, add, zeros)
    _, g, _ = matrices()
    columns = _along(_transpose(g), total.reshape(IN, IN, *total.shape[1:]), 0)  # [j of 3, i of 6, c_in, c_out]
    return _along(_transpose(g), columns.swapaxes(0, 1), 0)


@functools.cache
def matrices(points: tuple[Fraction, ...] = POINTS) -> tuple[Matrix, Matrix, Matrix]:
    """B^T [6, 6], G [6, 3] and A^T [4, 6] of finite points and infinity."""
    others = [[q for q in points if q != p] for p in points]
    scales = [math.prod((p - q for q in rest), start=Fraction(1)) for p, rest in zip(points, others, strict=True)]
    inputs = [[*_product(rest), Fraction(0)] for rest in others] + [_product(points)]
    taps = [[p**i / scale for i in range(TAPS)] for p, scale in zip(points, scales, strict=True)]
    outputs = [[*(p**i for p in points), Fraction(int(i == OUT - 1))] for i in range(OUT)]
    infinity = [Fraction(0)] * (TAPS - 1) + [Fraction(1)]
    return tuple(tuple(tuple(map(float, row)) for row in m) for m in (inputs, [*taps, infinity], outputs))  # type: ignore[return-value]


def _product(roots: Sequence[Fraction]) -> list[Fraction]:
    """Coefficients of prod (x - root), lowest power first."""
    found = [Fraction(1)]
    for root in roots:
        found = [a - root * b for a, b in zip([Fraction(0), *found], [*found, Fraction(0)], strict=True)]
    return found


def _zero(images: Array) -> Array:
    """0 (beside an infinite first pixel, the least number), known no sooner than the images.

    XLA computes what it can at a program's start: transforms of all kernels, and room for all results, would be there
    at once and until the end.
    """
    kind = jnp.finfo(images.dtype)
    return (images[0, 0, 0, 0] > kind.max).astype(images.dtype) * kind.tiny


def _chunk(shape: tuple[int, ...]) -> int:
    """How many images at a time: a divisor of the batch."""
    batch, height, width, _ = shape
    tiles, most = -(-height // OUT) * -(-width // OUT), _TILES_PER_CORE * (os.cpu_count() or 1)
    return max(n for n in range(1, batch + 1) if batch % n == 0 and (n == 1 or n * tiles <= most))


def _tile(images: Array) -> Array:
    """B^T d B: [b, h, w, c] -> [36, tiles, c]."""
    inputs, _, _ = matrices()
    _, height, width, _ = images.shape
    down, right = (-size % OUT + 1 for size in (height, width))
    padded = jnp.pad(images, ((0, 0), (1, down), (1, right), (0, 0)))
    rows = _along(inputs, _windows(padded, 1), 0)
    return rearrange(_along(inputs, _windows(rows, 3), 0), "j i b h w c -> (j i) (b h w) c")


def _windows(x: Array, axis: int) -> list[Array]:
    """The first, second, ... of every six values along an axis, in steps of four."""
    tiles = (x.shape[axis] - TAPS + 1) // OUT
    return [lax.slice_in_dim(x, i, i + OUT * (tiles - 1) + 1, stride=OUT, axis=axis) for i in range(IN)]


def _untile(products: Array, shape: tuple[int, ...]) -> Array:
    """A^T M A: [36, tiles, c] -> [b, 4 ceil(h/4), 4 ceil(w/4), c]."""
    _, _, outputs = matrices()
    batch, height, width, _ = shape
    across, down = -(-width // OUT), -(-height // OUT)
    grid = products.reshape(IN, IN, batch, down, across, products.shape[-1])
    half = _along(outputs, grid, 4)  # [i, b, h, w, 4, c]
    return rearrange(_along(outputs, half, 2), "b h i w j c -> b (h i) (w j) c")


def _tile_outputs(dy: Array) -> Array:
    """A dY A^T: [b, h, w, c] -> [36, tiles, c]."""
    _, _, outputs = matrices()
    down, right = (-size % OUT for size in dy.shape[1:3])
    padded = jnp.pad(dy, ((0, 0), (0, down), (0, right), (0, 0)))
    split = rearrange(padded, "b (h i) (w j) c -> i j b h w c", i=OUT, j=OUT)
    rows = _along(_transpose(outputs), split, 0)  # [6, j, b, h, w, c]
    return rearrange(_along(_transpose(outputs), rows.swapaxes(0, 1), 0), "j i b h w c -> (j i) (b h w) c")


def _of_kernel(kernel: Array) -> Array:
    """G k G^T: [3, 3, c_in, c_out] -> [36, c_in, c_out]."""
    _, taps, _ = matrices()
    rows = _along(taps, kernel, 0)  # [i, 3, c_in, c_out]
    return rearrange(_along(taps, rows.swapaxes(0, 1), 0), "j i c o -> (j i) c o")


def _along(matrix: Matrix, parts: Array | Sequence[Array], axis: int) -> Array:
    """Linear combinations of parts, one for each row of the matrix, stacked along a new axis."""
    dtype = parts[0].dtype
    sums = []
    for row in matrix:
        terms = [part if a == 1 else part * np.asarray(a, dtype) for a, part in zip(row, parts, strict=True) if a]
        sums.append(functools.reduce(jnp.add, terms))
    return jnp.stack(sums, axis)


def _transpose(matrix: Matrix) -> Matrix:
    return tuple(zip(*matrix, strict=True))
