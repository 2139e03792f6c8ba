"""W^(1/2) A: least squares that weigh every entry of a measurement by the variance of its noise (Aitken 1935).

    w_i = (s / s_i)^2,   1 / s^2 = mean over measured j of 1 / s_j^2,    W = diag(w), of mean 1 over measured entries

    ||W^(1/2) (y - A x)||^2 / s^2 = sum_i |y_i - (A x)_i|^2 / s_i^2

s_i is the standard deviation of the noise of y_i. So the noise of W^(1/2) y is white, of deviation s. Entries that are
not measured weigh 0; where all s_i are 0 there is no noise, W = 1 and s = 0.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax

from padis_jax.operators.algebra import Composable
from padis_jax.operators.least_squares import pseudo_inverse
from padis_jax.operators.norm import power_image
from padis_jax.operators.per_channel import check_shape, with_channels
from padis_jax.operators.unit import length

HEAVY = 256  # power of the weights in the start of the power iteration


@functools.partial(
    jax.tree_util.register_dataclass, data_fields=["operator", "root", "norm"], meta_fields=["image_shape"]
)
@dataclasses.dataclass(frozen=True, eq=False)
class Weighted(Composable):
    """W^(1/2) A; built by `weighted`. Its `start` and `pinv` are there where A's are.

    Attributes:
      operator: A.
      root: diagonal of W^(1/2), in the measurement's shape.
      norm: ||W^(1/2) A|| over real images.
      image_shape: of x, channels included.
    """

    operator: Any
    root: Array
    norm: Array
    image_shape: tuple[int, ...]
    channelwise = False

    dtype = property(lambda self: self.operator.dtype)
    measured = property(lambda self: self.operator.measured)
    volumes = property(lambda self: getattr(self.operator, "volumes", False))
    start = property(lambda self: self._quick if hasattr(self.operator, "start") else _missing("start"))
    pinv = property(lambda self: self._inverse if hasattr(self.operator, "pinv") else _missing("pinv"))

    @property
    def measurement_shape(self) -> tuple[int, ...]:
        """Of y, channels included."""
        return tuple(self.root.shape)

    @property
    def iterative(self) -> bool:
        """Whether `pinv` is by conjugate gradients: unless A+ A A+ = A+ makes it A's own (see `pinv`)."""
        return not getattr(self.operator, "onto", False)

    def __call__(self, image: Array) -> Array:
        """W^(1/2) A x."""
        return self.times(self.operator(image))

    def T(self, measurement: Array) -> Array:
        """A' W^(1/2) y."""
        return self.operator.T(self.times(measurement))

    def times(self, measurement: Array) -> Array:
        """W^(1/2) y, of the type of y."""
        check_shape("measurement", measurement, self.measurement_shape)
        return self.root.astype(measurement.dtype) * measurement

    def unweighted(self, measurement: Array) -> Array:
        """y of W^(1/2) y, and 0 where the weight is 0."""
        check_shape("measurement", measurement, self.measurement_shape)
        live = self.root > 0
        inverse = jnp.where(live, 1 / jnp.where(live, self.root, 1), 0)
        return inverse.astype(measurement.dtype) * measurement

    def _quick(self, measurement: Array) -> Array:
        """A's quick image of y, which knows no weights."""
        return self.operator.start(self.unweighted(measurement))

    def _inverse(self, measurement: Array) -> Array:
        """(W^(1/2) A)+ y: A+ of the unweighted y where A x takes every value (`onto`), else by conjugate gradients."""
        if not self.iterative:
            return self.operator.pinv(self.unweighted(measurement))
        return pseudo_inverse(self.__call__, self.T, measurement)


def _missing(name: str) -> Any:
    raise AttributeError(name)


def root_weights(noise_std: Array, measured: Array | None = None) -> tuple[Array, Array]:
    """(diagonal of W^(1/2), s).

    Args:
      noise_std: s_i, real. Where some are positive, those that are 0 are of entries that are not measured.
      measured: 1 where there is a measurement, in the shape of `noise_std` without channels; None for everywhere.
    """
    live = noise_std > 0
    if measured is not None:
        live &= with_channels(measured, live.shape) > 0
    noisy = jnp.any(live)
    safe = jnp.where(live, noise_std, 1)
    least = jnp.min(jnp.where(live, noise_std, jnp.inf))
    ratio = jnp.where(live, jnp.where(noisy, least, 1) / safe, 0)  # at most 1: squares cannot overflow
    mean = jnp.sum(jnp.square(ratio)) / jnp.maximum(jnp.count_nonzero(live), 1).astype(ratio.dtype)
    length = jnp.sqrt(jnp.where(noisy, mean, 1))
    return jnp.where(noisy, ratio / length, 1), jnp.where(noisy, least, 0) / length


@functools.partial(jax.jit, static_argnums=3)
def weigh(
    operator: Any, measurement: Array, noise_std: Array, image_shape: tuple[int, ...]
) -> tuple[Weighted, Array, Array]:
    """(W^(1/2) A, W^(1/2) y, s): the least-squares problem whose noise is white.

    Args:
      operator: A; where it has `measured`, entries that it has not measured weigh 0.
      measurement: y.
      noise_std: s_i, in the shape of y; see `root_weights`.
      image_shape: that A takes, channels included.
    """
    root, scale = root_weights(noise_std, getattr(operator, "measured", None))
    found = weighted(operator, root, image_shape)
    return found, found.times(measurement), scale


def weighted(operator: Any, root: Array, image_shape: tuple[int, ...]) -> Weighted:
    """W^(1/2) A, with its norm by power iteration, or A's where all weights are 1; both within a trace.

    Args:
      operator: A, a pytree with `T` and `norm`.
      root: diagonal of W^(1/2), in the measurement's shape.
      image_shape: that A takes, channels included.
    """
    plain = Weighted(operator, root, jnp.float32(0), tuple(image_shape))
    return dataclasses.replace(plain, norm=_norm(plain))


@jax.jit
def _norm(operator: Weighted) -> Array:
    def found(operator: Weighted) -> Array:
        fixed = jax.tree.map(lax.stop_gradient, operator)
        v = power_image(fixed, functools.partial(_real_adjoint, fixed), _start(fixed))
        return jnp.linalg.norm(operator(v).ravel()).astype(jnp.float32)

    def known(operator: Weighted) -> Array:
        return jnp.asarray(operator.operator.norm, jnp.float32).reshape(())

    return lax.cond(jnp.all(operator.root == 1), known, found, operator)


def _start(operator: Weighted) -> Array:
    """A random image, and as much of what the entries of the largest weights see: it may be a single one of them."""
    image = jax.random.normal(jax.random.key(0), operator.image_shape, jnp.float32)
    heavy = (operator.root / jnp.maximum(jnp.max(operator.root), jnp.finfo(jnp.float32).tiny)) ** HEAVY
    y = operator(jnp.ones_like(image))
    seen = _real_adjoint(operator, heavy.astype(y.dtype) * y)
    image, seen = (v / jnp.maximum(length(v), jnp.finfo(jnp.float32).tiny) for v in (image, seen))
    return image + seen


def _real_adjoint(operator: Weighted, measurement: Array) -> Array:
    return jnp.real(operator.T(measurement)).reshape(operator.image_shape)
