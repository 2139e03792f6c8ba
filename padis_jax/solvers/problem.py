"""The problem y = A x that a solver is given: operator, measurement, denoiser and frame, checked against each other."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, Literal, NamedTuple, get_args, get_origin, get_type_hints

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from padis_jax.operators.least_squares import least_squares
from padis_jax.patches import Frame


class Fit(NamedTuple):
    """What a step reports.

    Attributes:
      residual: ||y - A D|| / ||y||, of the denoised image D.
    """

    residual: Array


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Problem:
    """What a step needs to know: y = A crop(x), and a denoiser for x. A pytree.

    Attributes:
      operator: A, called with an image; `.T(y)` is its adjoint, `.norm` its largest singular value.
      denoise: (key, plane [Hp, Wp, C], sigma) -> plane.
      measurement: y.
      frame: pads and crops.
      flat: whether A takes images [H, W] rather than [H, W, C].
    """

    operator: Any
    denoise: Callable[[Array, Array, Array], Array]
    measurement: Array
    frame: Frame = dataclasses.field(metadata={"static": True})
    flat: bool = dataclasses.field(default=False, metadata={"static": True})

    def forward(self, image: Array) -> Array:
        """A x of an image [H, W, C]."""
        return self.operator(image[..., 0] if self.flat else image)

    def residual(self, image: Array) -> Array:
        """y - A x of an image [H, W, C]."""
        return self.measurement - self.forward(image)

    def adjoint(self, y: Array) -> Array:
        """A* y as an image [H, W, C]."""
        return jnp.reshape(self.operator.T(y), (*self.frame.image_shape, -1))

    def normal(self, image: Array) -> Array:
        """A* A x of an image [H, W, C]."""
        return self.adjoint(self.forward(image))

    def pinv(self, y: Array, *, tolerance: float | Array) -> Array:
        """A+ y as an image [H, W, C]: the operator's own `pinv`, or CG where it has none but by CG.

        CG stops when ||A*(y - A x)|| <= tolerance ||A* m||, m the measurement: where y is a residual of m, a tolerance
        relative to y itself would ask for digits that neither m nor float32 has.
        """
        own = getattr(self.operator, "pinv", None)
        if own is None or getattr(self.operator, "iterative", False):
            limit = tolerance * jnp.linalg.norm(jnp.ravel(self.adjoint(self.measurement)))
            return least_squares(self.forward, self.adjoint, y, limit=limit)[0]
        return jnp.reshape(own(y), (*self.frame.image_shape, -1))

    def fit(self, residual: Array) -> Fit:
        """||r|| / ||y||, safe at y = 0."""
        scale = jnp.linalg.norm(jnp.ravel(self.measurement))
        return Fit(jnp.linalg.norm(jnp.ravel(residual)) / jnp.maximum(scale, jnp.finfo(scale.dtype).tiny))


def pose(
    operator: Any,
    denoise: Callable[[Array, Array, Array], Array],
    measurement: ArrayLike,
    frame: Frame,
    *,
    channels: int,
) -> Problem:
    """Checks that operator, measurement and frame fit, and joins them.

    Args:
      operator: any callable with `.T` and `.norm`, for images [H, W, C] or, with one channel, [H, W].
      denoise: on planes [Hp, Wp, channels].
      measurement: y, finite.
      frame: of the prior.
      channels: of the prior.

    Returns:
      The problem.

    Raises:
      ValueError: with what does not fit and the remedy.
    """
    for name in ("T", "norm"):
        if not hasattr(operator, name):
            raise ValueError(
                f"the operator has no .{name}: give one with .T and .norm, or make it with operators.linear"
            )
    y = checked("measurement", measurement)
    h, w = frame.image_shape
    tried = []
    for flat in (False, True) if channels == 1 else (False,):
        image = jax.ShapeDtypeStruct((h, w) if flat else (h, w, channels), jnp.float32)
        try:
            out = jax.eval_shape(lambda x: operator(x), image)
            back = jax.eval_shape(lambda r: operator.T(r), out)
        except (TypeError, ValueError, AssertionError) as error:
            tried.append(f"images {image.shape}: {str(error).splitlines()[0] if str(error) else type(error).__name__}")
            continue
        if getattr(out, "shape", None) == y.shape and getattr(back, "size", None) == h * w * channels:
            return Problem(as_pytree(operator), denoise, y, frame, flat)
        tried.append(
            f"images {image.shape} give {getattr(out, 'shape', '?')} and .T of it {getattr(back, 'shape', '?')}"
        )
    raise ValueError(
        f"measurement {y.shape}, operator and the prior's images {(h, w, channels)} do not fit ({'; '.join(tried)}): "
        f"build the operator for image_shape {(h, w)} and this measurement, or take a prior for the operator's images"
    )


def checked(name: str, array: ArrayLike) -> Array:
    """The array, float32 or complex64, refused where not finite (not looked at while tracing)."""
    if isinstance(array, jax.core.Tracer):
        return array
    host = np.asarray(array)
    if host.size == 0 or not np.issubdtype(host.dtype, np.number):
        raise ValueError(f"{name} has shape {host.shape} and type {host.dtype}: give an array of numbers")
    if bad := int(host.size - np.count_nonzero(np.isfinite(host))):
        raise ValueError(f"{name} has {bad} values of {host.size} that are NaN or infinite: mask or repair them first")
    return jnp.asarray(array, jnp.complex64 if np.iscomplexobj(host) else jnp.float32)


def check_settings(settings: Any, **intervals: str) -> None:
    """Refuses fields outside of their interval, such as "(0, 2]", and those that are none of their `Literal`'s values.

    Arrays and traced values are not looked at.

    Raises:
      ValueError: with the method, field, value and limits.
    """
    kind: Any = type(settings)
    for field, interval in intervals.items():
        value, (low, high) = getattr(settings, field), interval[1:-1].split(", ")
        left_out = [float(end) for end, bracket in ((low, "("), (high, ")")) if bracket in interval]
        if isinstance(value, (int, float)) and not (float(low) <= value <= float(high) and value not in left_out):
            limits = f"{'above' if '(' in interval else 'at least'} {low}"
            limits += "" if high == "inf" else f" and {'below' if ')' in interval else 'at most'} {high}"
            raise ValueError(f"{kind.__name__}: {field} is {value}: it must be {limits}")
    for field, values in _choices(kind).items():
        if (value := getattr(settings, field)) not in values:
            raise ValueError(f"{kind.__name__}: {field} is {value!r}: use one of {', '.join(values)}")


@functools.cache
def _choices(settings: type) -> dict[str, tuple[str, ...]]:
    hints = get_type_hints(settings)
    return {field: get_args(hint) for field, hint in hints.items() if get_origin(hint) is Literal}


def as_pytree(operator: Any) -> Any:
    """The operator itself if it is a pytree of arrays, else a wrapper that is a pytree without leaves.

    A wrapped operator is known by its identity: what it holds becomes constants of the compiled code, so it must not be
    changed after its first use.
    """
    if isinstance(operator, Opaque):
        return operator
    leaves = jax.tree.leaves(operator)
    numbers = (jax.Array, np.ndarray, np.generic, int, float, complex)
    if not jax.tree_util.all_leaves([operator]) and all(isinstance(leaf, numbers) for leaf in leaves):
        return operator
    return Opaque(operator)


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True, eq=False)
class Opaque:
    """An operator that is not a pytree, compared by identity."""

    wrapped: Any

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Opaque) and self.wrapped is other.wrapped

    def __hash__(self) -> int:
        return id(self.wrapped)

    def __call__(self, image: Array) -> Array:
        return self.wrapped(image)

    def __getattr__(self, name: str) -> Any:  # what an operator has besides: T, norm, start, pinv, ...
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(self.wrapped, name)
