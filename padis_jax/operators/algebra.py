"""Operators out of operators, A @ B and scale * A: frozen pytrees with exact transposes. `stack` has the third, [A; B].

    (A B) x = A (B x)        (A B)' = B' A'
    (s A) x = s (A x)        (s A)' = s A'        ||s A|| = |s| ||A||

A @ I is A, and scales move to the front, so that the norm follows where it can. Else Lanczos' method finds it, once,
when the operators are put together (within the trace if that is in one); its derivative is u' dA v, with the singular
vectors u and v.

    >>> import jax.numpy as jnp
    >>> from padis_jax.operators import Blur, Downsample, uniform_kernel
    >>> blur = Blur(image_shape=(8, 12), kernel=uniform_kernel(3))
    >>> small = 0.5 * Downsample(image_shape=(8, 12), factor=4) @ blur
    >>> small(jnp.ones((8, 12, 3))).shape, small.T(jnp.ones((2, 3))).shape
    ((2, 3, 3), (8, 12))
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Hashable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from padis_jax.operators.kept import kept
from padis_jax.operators.least_squares import pseudo_inverse
from padis_jax.operators.norm import leading_image

Shape = tuple[int, ...]
FLOAT = jnp.dtype(jnp.float32)


class Composable:
    """An operator of this package, which has `image_shape`, `measurement_shape`, `norm`, `T`, `start` and `pinv`.

    Some have `channelwise`, False where the shapes are exact, not those of planes that may have channels last;
    `volumes`, True where images are volumes; `dtype`, of the images of such; `identity`, True where A x = x;
    `iterative`, True where `pinv` is by conjugate gradients; `onto`, True where the rows of A are orthogonal, so that
    measured entries can have any values; `measured`, 1 where there is a measurement, in its shape without channels.
    """

    __array_ufunc__ = None  # numpy leaves scale * A to __rmul__

    def structure(self) -> Hashable:
        """By which an operator is known while it lives: equal where it is put together of the same ones alike."""
        return id(self)

    def __matmul__(self, inner: Any) -> Any:
        """A @ B, x -> A (B x). `start` is B's of A's; `pinv` is by conjugate gradients, since (A B)+ is not B+ A+.

        Raises:
          ValueError: B's measurements are no images of A.
        """
        return _compose(self, inner) if isinstance(inner, Composable) else NotImplemented

    def __rmul__(self, scale: Any) -> Any:
        """scale * A, of a finite real number or an array without axes. What A has of y it has of y / scale.

        Raises:
          ValueError: any other array or number.
        """
        if not isinstance(scale, (int, float, complex, np.generic, np.ndarray, jax.Array)):
            return NotImplemented
        factor = jnp.asarray(scale)
        if factor.ndim or jnp.iscomplexobj(factor):
            raise ValueError(f"scale * A: the scale is a real number, not {factor.dtype}{list(factor.shape)}")
        if not isinstance(factor, jax.core.Tracer) and not jnp.isfinite(factor):
            raise ValueError(f"scale * A: the scale is {factor}: it must be finite")
        factor = factor.astype(jnp.float64 if factor.dtype == jnp.float64 else jnp.float32)
        return Scaled(factor * self.scale, self.operator) if isinstance(self, Scaled) else Scaled(factor, self)


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["outer", "inner", "norm"],
    meta_fields=["image_shape", "measurement_shape", "channelwise", "dtype", "real"],
)
@dataclasses.dataclass(frozen=True, eq=False)
class Composition(Composable):
    """A @ B."""

    outer: Any
    inner: Any
    norm: Array
    image_shape: Shape
    measurement_shape: Shape
    channelwise: bool
    dtype: Any
    real: bool  # whether B x is
    iterative = True  # pinv is by CG

    def structure(self) -> Hashable:
        """Of A and B."""
        return "@", self.outer.structure(), self.inner.structure()

    @property
    def measured(self) -> Array:
        """A's, where A has such."""
        return self.outer.measured

    @property
    def volumes(self) -> bool:
        """Whether images are volumes."""
        return getattr(self.inner, "volumes", False)

    def __call__(self, image: Array) -> Array:
        """A (B x)."""
        return self.outer(self.inner(image))

    def T(self, measurement: Array) -> Array:
        """B' (A' y)."""
        y = self.outer.T(measurement)
        return self.inner.T(jnp.real(y) if self.real else y)

    def start(self, measurement: Array) -> Array:
        """B's start from A's."""
        return self.inner.start(self.outer.start(measurement))

    def pinv(self, measurement: Array) -> Array:
        """(A B)+ y (`least_squares.pseudo_inverse`)."""
        return pseudo_inverse(self.__call__, self.T, measurement)


@functools.partial(jax.tree_util.register_dataclass, data_fields=["scale", "operator"], meta_fields=[])
@dataclasses.dataclass(frozen=True, eq=False)
class Scaled(Composable):
    """scale * A."""

    scale: Array
    operator: Any

    image_shape = property(lambda self: self.operator.image_shape)
    measurement_shape = property(lambda self: self.operator.measurement_shape)
    channelwise = property(lambda self: self.operator.channelwise)
    dtype = property(lambda self: self.operator.dtype)
    iterative = property(lambda self: self.operator.iterative)
    measured = property(lambda self: self.operator.measured)
    volumes = property(lambda self: getattr(self.operator, "volumes", False))
    norm = property(lambda self: jnp.abs(self.scale) * self.operator.norm)

    def structure(self) -> Hashable:
        """Of the number and A."""
        number = id(self.scale) if isinstance(self.scale, jax.core.Tracer) else float(self.scale)
        return "*", number, self.operator.structure()

    def __call__(self, image: Array) -> Array:
        """scale (A x)."""
        y = self.operator(image)
        return self.scale.astype(y.dtype) * y

    def T(self, measurement: Array) -> Array:
        """scale (A' y)."""
        x = self.operator.T(measurement)
        return self.scale.astype(x.dtype) * x

    def start(self, measurement: Array) -> Array:
        """A's start from y / scale."""
        return self.operator.start(self._divided(measurement))

    def pinv(self, measurement: Array) -> Array:
        """A+ (y / scale), and 0 where the scale is."""
        return self.operator.pinv(self._divided(measurement))

    def _divided(self, measurement: Array) -> Array:
        zero, y = self.scale == 0, jnp.asarray(measurement)
        inverse = jnp.where(zero, 0, 1 / jnp.where(zero, 1, self.scale))
        inexact = jnp.issubdtype(y.dtype, jnp.inexact)
        dtype = np.result_type(y.dtype, np.float32) if inexact else inverse.dtype
        return inverse.astype(dtype) * y.astype(dtype)


def _compose(outer: Any, inner: Any) -> Any:
    takes, gives = outer.image_shape, inner.measurement_shape
    outer_any, inner_any = (getattr(operator, "channelwise", True) for operator in (outer, inner))
    if not (fits(gives, takes, channels=not inner_any) if outer_any else fits(takes, gives, channels=inner_any)):
        raise ValueError(f"A @ B: A takes images of shape {takes}, but B gives measurements of shape {gives}")
    if isinstance(outer, Scaled):
        return outer.scale * _compose(outer.operator, inner)
    if isinstance(inner, Scaled):
        return inner.scale * _compose(outer, inner.operator)
    if getattr(inner, "identity", False):
        return outer
    if getattr(outer, "identity", False):
        return inner
    channels = takes[len(gives) :] or gives[len(takes) :]
    images = (*inner.image_shape, *(channels if inner_any else ()))
    measurements = (*outer.measurement_shape, *(channels if outer_any else ()))
    dtype = getattr(outer if inner_any else inner, "dtype", FLOAT)
    real = not inner_any and gives_real(inner, images, dtype)
    return with_norm(
        Composition(outer, inner, jnp.float32(0), images, measurements, outer_any and inner_any, dtype, real)
    )


def gives_real(operator: Any, image_shape: Shape, dtype: Any) -> bool:
    """Whether A x is real for images of that type: then A' is that of the real part of y."""
    measured = jax.eval_shape(operator, jax.ShapeDtypeStruct(image_shape, dtype))
    return not jnp.issubdtype(measured.dtype, jnp.complexfloating)


def with_norm(operator: Any) -> Any:
    """The operator with the norm that Lanczos' method finds, to 1e-4 (`norm.leading_image`)."""
    return dataclasses.replace(operator, norm=_known(_Parts(operator))[0])


class _Parts:
    """An operator by its structure. It holds what it is put together of, by whose identity that goes."""

    def __init__(self, operator: Any):
        self.operator, self.structure = operator, operator.structure()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Parts) and self.structure == other.structure

    def __hash__(self) -> int:
        return hash(self.structure)


@kept
def _known(parts: _Parts) -> tuple[Array, Any]:
    """The norm, with what it is of, which counts as kept."""
    return _norm(parts.operator), parts.operator


@jax.jit
def _norm(operator: Any) -> Array:
    fixed = jax.tree.map(lax.stop_gradient, operator)
    v = leading_image(fixed, fixed.T, image_shape=fixed.image_shape, dtype=fixed.dtype)
    return jnp.linalg.norm(operator(v).ravel())


def fits(shape: Shape, plane: Shape, *, channels: bool) -> bool:
    """Whether a shape is that of a plane, or, where it may have `channels`, of one with another axis last."""
    return tuple(shape[: len(plane)]) == tuple(plane) and len(shape) - len(plane) <= channels
