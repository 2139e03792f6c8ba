"""Operators that map every channel of an image alike: shapes, channels, and what follows from the forward map.

Such an operator is a frozen dataclass, registered as a pytree, with `image_shape`, `measurement_shape`, `norm` and
`forward`, a linear map of one plane. Its transpose is derived (`jax.linear_transpose`), which is exact, unless it
defines `adjoint`; its pseudo-inverse is by conjugate gradients (2000 iterations at most) unless it defines `inverse`.
All of them are real: of a complex image they take real and imaginary part alike.
"""

from __future__ import annotations

import abc
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from padis_jax.operators.algebra import Composable, fits
from padis_jax.operators.least_squares import Map, pseudo_inverse


class PerChannel(Composable, abc.ABC):
    """Methods of an operator on images [H, W] or [H, W, C]."""

    image_shape: tuple[int, int]
    norm: Array

    @property
    def measurement_shape(self) -> tuple[int, int]:
        """Shape of a measured plane."""
        return self.image_shape

    @abc.abstractmethod
    def forward(self, plane: Array) -> Array:
        """A x of one plane: [H, W] -> [*measurement_shape]."""

    def adjoint(self, plane: Array) -> Array:
        """A' y of one plane."""
        template = jax.ShapeDtypeStruct(self.image_shape, plane.dtype)
        return jax.linear_transpose(self.forward, template)(plane)[0]

    def inverse(self, plane: Array) -> Array:
        """A+ y of one plane."""
        return pseudo_inverse(self.forward, self.adjoint, plane)

    def first(self, plane: Array) -> Array:
        """The quick classical image of one measured plane."""
        return plane

    def __call__(self, image: Array) -> Array:
        """A x: [H, W(, C)] -> [*measurement_shape(, C)]."""
        return per_channel(self.forward, checked("image", image, self.image_shape))

    def T(self, measurement: Array) -> Array:
        """The exact transpose, A' y: [*measurement_shape(, C)] -> [H, W(, C)]."""
        return per_channel(self.adjoint, checked("measurement", measurement, self.measurement_shape))

    def pinv(self, measurement: Array) -> Array:
        """The Moore-Penrose solution A+ y."""
        return per_channel(self.inverse, checked("measurement", measurement, self.measurement_shape))

    def start(self, measurement: Array) -> Array:
        """The quick classical image; what it is, the operator's own description says."""
        return per_channel(self.first, checked("measurement", measurement, self.measurement_shape))


def check_shape(what: str, array: Array, expected: Sequence[int], *, channels: bool = False) -> None:
    """ValueError unless `array` has the shape that the operator was built for, or, with `channels`, those too."""
    shape = tuple(expected)
    if not fits(array.shape, shape, channels=channels):
        more = f" or {(*shape, 'C')}" if channels else ""
        raise ValueError(f"operator: expected {what} of shape {shape}{more}, got {tuple(array.shape)}")


def checked(what: str, array: Array, plane: tuple[int, int]) -> Array:
    """`array` in float32 or better; ValueError unless its shape is `plane`, or `plane` with channels last."""
    array = jnp.asarray(array)
    check_shape(what, array, plane, channels=True)
    return array.astype(at_least_single(array.dtype))


def at_least_single(dtype: jnp.dtype) -> jnp.dtype:
    """float32, or the type itself where that is wider or complex."""
    with jax.numpy_dtype_promotion("standard"):  # a promotion on purpose, also where users want none by chance
        return jnp.promote_types(dtype, jnp.float32)


def with_channels(mask: Any, shape: Sequence[int]) -> Any:
    """A mask, NumPy's or JAX's, in a shape that has more axes behind its own (channels): the same for all of them."""
    xp: Any = np if isinstance(mask, np.ndarray) else jnp
    return xp.broadcast_to(mask.reshape(mask.shape + (1,) * (len(shape) - mask.ndim)), shape)


def per_channel(function: Map, array: Array) -> Array:
    """Apply a real linear map of planes to [a, b], or to every channel of [a, b, C]."""
    if jnp.iscomplexobj(array):
        return jax.lax.complex(per_channel(function, array.real), per_channel(function, array.imag))
    if array.ndim == 2:
        return function(array)
    if array.shape[2] == 1:
        return function(array[:, :, 0])[:, :, None]
    return jax.vmap(function, in_axes=2, out_axes=2)(array)


def checked_size(name: str, image_shape: Sequence[int]) -> tuple[int, int]:
    """(H, W) as integers; ValueError unless there are two whole numbers, both positive."""
    sides = image_shape if isinstance(image_shape, Sequence | np.ndarray) else ()
    if len(sides) != 2 or not all(whole(n) for n in sides):
        raise ValueError(f"{name}: image_shape must be (H, W), whole and positive, got {image_shape}")
    return int(image_shape[0]), int(image_shape[1])


def whole(value: Any) -> bool:
    """Whether it is a whole number from 1."""
    return real(value) and value >= 1 and value % 1 == 0


def real(value: Any) -> bool:
    """Whether it is a real number, or an array of one."""
    kind = np.dtype(value.dtype).kind if isinstance(value, np.ndarray | jax.Array) and not value.shape else ""
    return kind in set("iuf") if kind else isinstance(value, int | float | np.integer | np.floating)


def leaf(values: np.ndarray | float) -> Array:
    """A real or complex array in JAX's default precision."""
    array = np.asarray(values)
    return jnp.asarray(array, jax.dtypes.canonicalize_dtype(array.dtype))
