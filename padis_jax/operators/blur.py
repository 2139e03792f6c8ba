"""Blur: convolution with a kernel k, whose centre is its element (h // 2, w // 2),

    (A x)[i, j] = sum_{a, b} k[a, b] x[i + h // 2 - a, j + w // 2 - b].

What x is outside of the image is the boundary's choice:
    circular   the image repeats; A is diagonal in the Fourier basis, and so is A+ (frequencies which A damps to less
               than RCOND of the strongest are taken as lost)
    reflect    mirrored at the edge, d c b a | a b c d | d c b a (numpy's 'symmetric')
    zero       0

The measurement has the size of the image. Sums are done by FFT, on the image itself for a circular boundary, else on
the image with a rim of the kernel's reach; the transpose, which folds the rim back, is derived and exact.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from padis_jax.operators.kept import kept
from padis_jax.operators.least_squares import pseudo_inverse
from padis_jax.operators.norm import operator_norm
from padis_jax.operators.per_channel import PerChannel, checked_size, leaf

Boundary = Literal["circular", "reflect", "zero"]
PAD = {"reflect": "symmetric", "zero": "constant"}  # numpy's names
RCOND = 1e-6
LARGEST, WIDEST = 1e15, 4096  # sum of a kernel, whose square float32 holds, and pixels of its length


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["transfer", "norm"],
    meta_fields=["image_shape", "reach", "boundary"],
)
@dataclasses.dataclass(frozen=True, eq=False)
class Convolution(PerChannel):
    """A blur; built by `Blur`. `start` is the blurred image itself.

    Attributes:
      image_shape: (H, W).
      reach: pixels of the rim on every side, per axis.
      boundary: see the module.
      transfer: spectrum of the kernel on the padded image, as of `rfft2`.
      norm: ||A||.
    """

    image_shape: tuple[int, int]
    reach: tuple[int, int]
    boundary: Boundary
    transfer: Array
    norm: Array

    def _filter(self, plane: Array, transfer: Array) -> Array:
        spectrum = jnp.fft.rfft2(plane)
        return jnp.fft.irfft2(spectrum * transfer.astype(spectrum.dtype), s=plane.shape).astype(plane.dtype)

    def forward(self, plane: Array) -> Array:
        """k * x."""
        if self.boundary == "circular":
            return self._filter(plane, self.transfer)
        (h, w), (up, left) = self.image_shape, self.reach
        padded = jnp.pad(plane, ((up, up), (left, left)), mode=PAD[self.boundary])
        return self._filter(padded, self.transfer)[up : up + h, left : left + w]

    @property
    def iterative(self) -> bool:
        """Whether `pinv` is by conjugate gradients."""
        return self.boundary != "circular"

    def inverse(self, plane: Array) -> Array:
        """Division by the spectrum where the boundary is circular, else conjugate gradients.

        These stop at 1e-6 (in float32) or 2000 iterations (`least_squares.pseudo_inverse`), which a kernel that damps
        strongly may reach.
        """
        if self.boundary != "circular":
            return pseudo_inverse(self.forward, self.adjoint, plane)
        size = jnp.abs(self.transfer)
        kept = size > RCOND * size.max()
        return self._filter(plane, jnp.where(kept, 1 / jnp.where(kept, self.transfer, 1), 0))


def Blur(  # noqa: N802 (a factory named like the object it makes)
    *, image_shape: tuple[int, int], kernel: np.ndarray | Array, boundary: Boundary = "circular"
) -> Convolution:
    """Convolution with a given kernel.

    >>> import jax.numpy as jnp, numpy as np, padis_jax as pj
    >>> A = pj.Blur(image_shape=(8, 8), kernel=np.full((3, 3), 1 / 9), boundary="reflect")
    >>> bool(jnp.allclose(A(jnp.ones((8, 8, 1))), 1))
    True

    Args:
      image_shape: (H, W) in pixels.
      kernel: [h, w], of any sign and sum; each side at most the image's. See `uniform_kernel`, `gaussian_kernel` and
        `motion_kernel`.
      boundary: "circular", "reflect" or "zero".

    Raises:
      ValueError: a kernel that is not a finite real matrix, is 0 or larger than the image, or whose sum of magnitudes
        float32 cannot square; an unknown boundary.
    """
    shape = checked_size("Blur", image_shape)
    if np.iscomplexobj(kernel):
        raise ValueError("Blur: kernel must be real; make an operator of a complex one with from_functions")
    k = np.asarray(kernel, np.float64)
    if k.ndim != 2 or k.size == 0 or not np.isfinite(k).all() or not k.any():
        raise ValueError(f"Blur: kernel must be a finite matrix which is not 0, got shape {k.shape}")
    if not 1 / LARGEST <= (total := np.abs(k).sum()) <= LARGEST:
        raise ValueError(f"Blur: the kernel's magnitudes sum to {total:g}: scale it to between {1 / LARGEST:g} and "
                         f"{LARGEST:g}, whose squares float32 can hold")  # fmt: skip
    if k.shape[0] > shape[0] or k.shape[1] > shape[1]:
        raise ValueError(f"Blur: a kernel of {k.shape} is larger than the image of {shape}")
    if boundary not in get_args(Boundary):
        raise ValueError(f"Blur: boundary must be one of {', '.join(get_args(Boundary))}, got {boundary!r}")
    return _convolution(k.tobytes(), k.shape, shape, boundary)


@kept
def _convolution(values: bytes, size: tuple[int, int], shape: tuple[int, int], boundary: Boundary) -> Convolution:
    k = np.frombuffer(values).reshape(size)
    centre = k.shape[0] // 2, k.shape[1] // 2
    reach = (0, 0) if boundary == "circular" else centre
    grid = np.zeros((shape[0] + 2 * reach[0], shape[1] + 2 * reach[1]))
    grid[: k.shape[0], : k.shape[1]] = k
    transfer = np.fft.rfft2(np.roll(grid, (-centre[0], -centre[1]), (0, 1)))
    operator = Convolution(shape, reach, boundary, leaf(transfer), leaf(np.abs(transfer).max()))
    if boundary == "circular":
        return operator
    norm = operator_norm(operator.forward, operator.adjoint, image_shape=shape)
    return dataclasses.replace(operator, norm=norm)


def uniform_kernel(size: int) -> np.ndarray:
    """The mean of size x size pixels."""
    size = _side("uniform_kernel: size", size)
    return np.full((size, size), 1.0 / size**2)


def gaussian_kernel(sigma: float, size: int | None = None) -> np.ndarray:
    """exp(-r^2 / (2 sigma^2)) on size x size pixels, of sum 1.

    Args:
      sigma: in pixels.
      size: odd; cut off at four sigma without it.
    """
    if not 0 < sigma <= WIDEST:
        raise ValueError(f"gaussian_kernel: sigma must be positive, and at most {WIDEST} pixels, got {sigma}")
    size = _side("gaussian_kernel: size", 2 * math.ceil(4 * sigma) + 1 if size is None else size)
    if size % 2 == 0:
        raise ValueError(f"gaussian_kernel: size must be odd and positive, got {size}")
    line = np.exp(-0.5 * ((np.arange(size) - size // 2) / sigma) ** 2)
    kernel = np.outer(line, line)
    return kernel / kernel.sum()


def motion_kernel(length: float, angle: float) -> np.ndarray:
    """Uniform motion along a line, of sum 1.

    The line is centred on the kernel's centre; each of its points is shared by the four pixels around it, bilinearly.

    Args:
      length: in pixels; 0 leaves the image as it is.
      angle: in radians, counter-clockwise from the direction of the rows (y up).
    """
    if not (0 <= length <= WIDEST and math.isfinite(angle)):
        raise ValueError(
            f"motion_kernel: length must be from 0 to {WIDEST} pixels, the angle finite, got {length} and {angle}"
        )
    points = max(1, math.ceil(64 * length))
    along = ((np.arange(points) + 0.5) / points - 0.5) * length
    half = math.ceil(length / 2) + 1
    row, column = half - along * math.sin(angle), half + along * math.cos(angle)
    kernel = np.zeros((2 * half + 1, 2 * half + 1))
    r, c = np.floor(row).astype(int), np.floor(column).astype(int)
    for dr in (0, 1):
        for dc in (0, 1):
            weight = (1 - np.abs(row - r - dr)) * (1 - np.abs(column - c - dc))
            np.add.at(kernel, (np.minimum(r + dr, 2 * half), np.minimum(c + dc, 2 * half)), weight)
    used = kernel > 1e-12
    margin = min(int(np.flatnonzero(used.any(1))[0]), int(np.flatnonzero(used.any(0))[0]))
    trimmed = kernel[margin : 2 * half + 1 - margin, margin : 2 * half + 1 - margin]
    return trimmed / trimmed.sum()


def _side(name: str, size: int) -> int:
    """A kernel's side; ValueError unless it is whole, positive and not beyond that of the largest images."""
    if not (1 <= size <= 8 * WIDEST + 1 and size % 1 == 0):
        raise ValueError(f"{name} must be a positive whole number, at most {8 * WIDEST + 1}, got {size}")
    return int(size)
