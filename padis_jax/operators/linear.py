"""Linear operators: what a solver needs of one, and what can be derived from the forward map alone.

An operator is any callable A with `A.T` (the adjoint: the transpose, conjugated for complex data) and `A.norm` (its
largest singular value). The tools here turn a plain function into one and check it by the dot test,

    <A x, y> = <x, A' y>        for all x and y
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jax import Array

from padis_jax.operators.algebra import FLOAT, Composable
from padis_jax.operators.least_squares import Map, pseudo_inverse
from padis_jax.operators.norm import leading_image
from padis_jax.operators.per_channel import check_shape, whole


@runtime_checkable
class Operator(Protocol):
    """What the solvers ask of an operator; `start(y)` and `pinv(y)` are used where there are such methods."""

    def __call__(self, image: Array) -> Array:
        """A x."""
        ...

    def T(self, measurement: Array) -> Array:
        """A' y."""
        ...

    @property
    def norm(self) -> Array:
        """||A||, the largest singular value."""
        ...


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["norm"],
    meta_fields=["forward", "adjoint", "image_shape", "measurement_shape", "dtype"],
)
@dataclasses.dataclass(frozen=True, eq=False)
class LinearOperator(Composable):
    """A frozen operator made of two functions; see `from_functions`."""

    channelwise = False
    iterative = True  # pinv is by CG

    forward: Map
    adjoint: Map
    image_shape: tuple[int, ...]
    measurement_shape: tuple[int, ...]
    norm: Array
    dtype: Any = FLOAT

    def __call__(self, image: Array) -> Array:
        """A x: [*image_shape] -> [*measurement_shape]."""
        check_shape("image", image, self.image_shape)
        return self.forward(image)

    def T(self, measurement: Array) -> Array:
        """A' y: [*measurement_shape] -> [*image_shape]."""
        check_shape("measurement", measurement, self.measurement_shape)
        return self.adjoint(measurement)

    def start(self, measurement: Array) -> Array:
        """A first image without further knowledge of A: A' y / ||A||^2."""
        return self.T(measurement) / self.norm**2

    def pinv(self, measurement: Array) -> Array:
        """The Moore-Penrose solution A+ y by conjugate gradients, to 1e-6 in float32 or 2000 iterations."""
        check_shape("measurement", measurement, self.measurement_shape)
        return pseudo_inverse(self.forward, self.adjoint, measurement)


def from_functions(
    forward: Map,
    transpose: Map | None = None,
    *,
    image_shape: tuple[int, ...],
    dtype: jnp.dtype | type = jnp.float32,
) -> LinearOperator:
    """Make an operator of a linear function and its transpose.

    >>> import jax.numpy as jnp, padis_jax as pj
    >>> A = pj.from_functions(lambda x: x[::2], image_shape=(8, 8))  # every other row
    >>> A(jnp.ones((8, 8))).shape, A.T(jnp.ones((4, 8))).sum().item(), round(float(A.norm), 3)
    ((4, 8), 32.0, 1.0)

    Args:
      forward: x [*image_shape] -> y, linear, traceable by JAX.
      transpose: y -> x, the adjoint of `forward` (conjugated for complex data). Left out, it is derived by `jax.vjp`,
        so that operators with a transpose of their own, such as scans, can be part of `forward`; give one where it is
        faster.
      image_shape: the shape `forward` takes, for instance (H, W, C).
      dtype: the image's type.

    Raises:
      ValueError: `forward` does not take that shape or is not linear, or `transpose` is not its transpose.
    """
    if not isinstance(image_shape, Sequence) or not all(whole(n) for n in image_shape):
        raise ValueError(f"operator: image_shape is {image_shape}: give what forward takes, such as (H, W, C)")
    image_shape = tuple(image_shape)
    template = jax.ShapeDtypeStruct(image_shape, dtype)
    try:
        measured = jax.eval_shape(forward, template)
        if not isinstance(measured, jax.ShapeDtypeStruct):
            raise TypeError(f"forward must return one array, not a {type(measured).__name__}")
        adjoint = _derived_adjoint(forward, template) if transpose is None else transpose
        back = jax.eval_shape(adjoint, measured)
    except jax.errors.TracerArrayConversionError as error:
        raise ValueError(
            "operator: forward or transpose calls NumPy on a traced array: write it with jax.numpy"
        ) from error
    except Exception as error:  # whatever the user's functions and JAX's differentiation of them raise
        raise ValueError(
            f"operator: forward or transpose is no linear JAX function for an image of shape {image_shape}: "
            f"{(str(error).splitlines() or [type(error).__name__])[0]}"
        ) from error
    if getattr(back, "shape", None) != image_shape:
        raise ValueError(
            f"operator: transpose gives shape {getattr(back, 'shape', None)} where forward takes {image_shape}"
        )
    if not _curvature(forward, template, jax.random.key(1)) < 1e-2:
        raise ValueError(
            "operator: forward is not linear: of zeros it is not 0, or of a sum of two images not the sum of both"
        )
    mismatch = float(_mismatch(forward, adjoint, template, measured, jax.random.key(0)))
    if not mismatch < 1e-3:
        raise ValueError(
            f"operator: forward is not linear, or transpose is not its transpose (dot test {mismatch:.1e}, "
            "wanted < 1e-3); leave transpose out to have it derived"
        )
    leading = leading_image(forward, adjoint, image_shape=image_shape, dtype=dtype)
    norm = jnp.linalg.norm(forward(leading).ravel())
    return LinearOperator(forward, adjoint, image_shape, tuple(measured.shape), norm, template.dtype)


def _derived_adjoint(forward: Map, template: jax.ShapeDtypeStruct) -> Map:
    zeros = jnp.zeros(template.shape, template.dtype)  # a linear function has the same derivative everywhere

    @jax.jit  # which drops the forward map at zero that comes with the derivative
    def adjoint(y: Array) -> Array:
        measured, pull = jax.vjp(forward, zeros)
        of_its_kind = jnp.iscomplexobj(measured) or not jnp.iscomplexobj(y)
        return jnp.conj(pull(jnp.conj(y.astype(measured.dtype) if of_its_kind else y))[0])

    return adjoint


def dot_test(
    operator: Operator, image_shape: tuple[int, ...], *, key: Array, dtype: jnp.dtype | type = jnp.float32
) -> Array:
    """|<A x, y> - <x, A' y>| / (||A x|| ||y||), random normal x and y: rounding if A.T is A's adjoint."""
    template = jax.ShapeDtypeStruct(tuple(image_shape), dtype)
    return _mismatch(operator, operator.T, template, jax.eval_shape(operator, template), key)


def _mismatch(
    forward: Map, adjoint: Map, image: jax.ShapeDtypeStruct, measured: jax.ShapeDtypeStruct, key: Array
) -> Array:
    image_key, measurement_key = jax.random.split(key)
    x = jax.random.normal(image_key, image.shape, image.dtype)
    y = jax.random.normal(measurement_key, measured.shape, measured.dtype)
    ax, aty = forward(x), adjoint(y)
    scale = jnp.linalg.norm(ax.ravel()) * jnp.linalg.norm(y.ravel())
    # The conjugates make real images with complex measurements agree: only the real part is an inner product there.
    if jnp.issubdtype(image.dtype, jnp.complexfloating):
        difference = jnp.vdot(y, ax) - jnp.conj(jnp.vdot(x, aty))
    else:
        difference = jnp.real(jnp.vdot(y, ax)) - jnp.vdot(x, jnp.real(aty))
    return jnp.abs(difference) / jnp.maximum(scale, jnp.finfo(scale.dtype).tiny)


def _curvature(forward: Map, image: jax.ShapeDtypeStruct, key: Array) -> Array:
    """||A(x + z) - A x - A z|| / ||A(x + z)||, random normal x and z, and infinite unless A 0 = 0.

    The dot test would do for small images; of a large one a random y sees little of what is not linear.
    """
    x, z = jax.random.normal(key, (2, *image.shape), image.dtype)
    both = forward(x + z)
    size = jnp.linalg.norm(both.ravel())
    gap = jnp.linalg.norm((both - forward(x) - forward(z)).ravel()) / jnp.maximum(size, jnp.finfo(size.dtype).tiny)
    return jnp.where(jnp.any(forward(jnp.zeros_like(x)) != 0), jnp.inf, gap)
