"""The problem y = A x that a solver is given: operator, measurement, denoiser and frame, checked against each other."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.typing import ArrayLike

from padis_jax.fields import single
from padis_jax.operators.least_squares import least_squares
from padis_jax.operators.unit import length
from padis_jax.operators.weighting import Weighted, weigh
from padis_jax.patches import Frame
from padis_jax.solvers.checks import check_operator, checked, checked_noise, measured_by, refuse_batch
from padis_jax.solvers.draws import Mix

NUMPY = "the operator calls NumPy on a traced array: write it with jax.numpy"


class Fit(NamedTuple):
    """What a step reports.

    Attributes:
      residual: ||y - A D|| / ||y||, without the quotient where y is 0; not weighted. D is the denoised image; of
        plug-and-play its result so far, of RED-diff mu before the step.
    """

    residual: Array


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Problem:
    """What a step needs to know: y = A crop(x), and a denoiser for x. A pytree.

    Attributes:
      operator: A, called with an image; `.T(y)` is its adjoint, `.norm` its largest singular value; `Weighted` where
        the entries of y differ in their noise, and then y is weighted too.
      denoise: (key, plane [Hp, Wp, C], sigma) -> plane.
      measurement: y.
      frame: pads and crops.
      flat: whether A takes images [H, W] rather than [H, W, C].
    """

    operator: Any
    denoise: Any
    measurement: Any
    frame: Frame = dataclasses.field(metadata={"static": True})
    flat: bool = dataclasses.field(default=False, metadata={"static": True})

    @property
    def norm(self) -> Array:
        """||A||, float32."""
        return jnp.asarray(self.operator.norm, jnp.float32)

    def denoised(self, key: Array, plane: Array, sigma: Array) -> Array:
        """D, float32."""
        return single(self.denoise(key, plane, sigma))

    def forward(self, image: Array) -> Array:
        """A x of an image [H, W, C]."""
        return single(self.operator(image[..., 0] if self.flat else image))

    def image_shape(self, channels: int) -> tuple[int, ...]:
        """(H, W, C)."""
        return (*self.frame.image_shape, channels)

    def drawn(self, key: Array, plane: Array) -> Array:
        """Standard normal noise in the shape of a plane."""
        return jax.random.normal(key, plane.shape, plane.dtype)

    def mixed(self, mix: Mix, key: Array, plane: Array, *others: Array) -> Array:
        """mix(plane, *others, z) with z of `drawn`; mix works pixel by pixel."""
        return mix(plane, *others, self.drawn(key, plane))

    def about(self, image: Array) -> Problem:
        """The problem of a data step from an image: itself, unless something ties the pixels (volumes.py)."""
        return self

    def descent(self, image: Array, residual: Array) -> Array:
        """Minus the gradient of the data term at an image whose residual is known."""
        return self.adjoint(residual)

    def residual(self, image: Array) -> Array:
        """y - A x of an image [H, W, C]."""
        return self.measurement - self.forward(image)

    def adjoint(self, y: Array) -> Array:
        """A* y as an image [H, W, C]; images are real, so that it is the real part of what a complex A gives."""
        return jnp.reshape(single(jnp.real(self.operator.T(y))), (*self.frame.image_shape, -1))

    def normal(self, image: Array) -> Array:
        """A* A x of an image [H, W, C]."""
        return self.adjoint(self.forward(image))

    def pinv(self, y: Array, *, tolerance: float | Array) -> Array:
        """A+ y as an image [H, W, C]: the operator's own `pinv`, or CG where it has none but by CG.

        CG stops when ||A*(y - A x)|| <= tolerance ||A* m||, m the measurement: where y is a residual of m, a tolerance
        relative to y itself would ask for digits that neither m nor float32 has.
        """
        if isinstance(self.operator, Weighted) and not getattr(self.operator.operator, "iterative", True):
            alike = dataclasses.replace(self, operator=self.operator.operator)  # whose weights may all be 1, traced
            solves = [functools.partial(each._pinv, tolerance=tolerance) for each in (alike, self)]
            return lax.cond(jnp.all(self.operator.root == 1), *solves, y)
        return self._pinv(y, tolerance=tolerance)

    def _pinv(self, y: Array, *, tolerance: float | Array) -> Array:
        own = getattr(self.operator, "pinv", None)
        if own is None or getattr(self.operator, "iterative", False):
            scale = lax.stop_gradient(length(self.adjoint(self.measurement)))
            system = dataclasses.replace(self, denoise=None, measurement=None)
            return _solved(system, y, lax.stop_gradient(jnp.asarray(tolerance, jnp.float32)), scale)
        return jnp.reshape(single(jnp.real(own(y))), (*self.frame.image_shape, -1))

    def fit(self, residual: Array) -> Fit:
        """||r|| / ||y||, and ||r|| where y = 0; of the unweighted r and y, so that it compares with other problems'."""
        y = self.measurement
        if isinstance(self.operator, Weighted):
            y, residual = self.operator.unweighted(y), self.operator.unweighted(residual)
        scale = jnp.linalg.norm(jnp.ravel(y))
        return Fit(jnp.linalg.norm(jnp.ravel(residual)) / jnp.where(scale > 0, scale, 1))

    def weighted(self, noise_std: Array) -> tuple[Problem, Array]:
        """(W^(1/2) y = W^(1/2) A x, the deviation s of its noise); see operators/weighting.py."""
        pixels = self.frame.image_shape
        channels = jax.eval_shape(self.operator.T, self.measurement).size // math.prod(pixels)
        shape = pixels if self.flat else self.image_shape(channels)
        operator, y, scale = weigh(self.operator, self.measurement, noise_std, shape)
        return dataclasses.replace(self, operator=operator, measurement=y), scale


@jax.custom_vjp  # autodiff cannot run a loop of unknown length backwards
def _solved(system: Problem, y: Array, tolerance: Array, scale: Array) -> Array:
    """A+ y by CG until ||A*(y - A x)|| <= tolerance * scale."""
    return least_squares(system.forward, system.adjoint, y, limit=tolerance * scale)[0]


def _solved_forward(system: Problem, y: Array, tolerance: Array, scale: Array) -> tuple[Array, Any]:
    x = _solved(system, y, tolerance, scale)
    return x, (system, y, x, tolerance)


def _solved_backward(saved: Any, cotangent: Array) -> tuple[Any, ...]:
    """Of dx = A+ (dy - dA x) + (A*A)+ dA* r + (1 - A+ A) dA* (A*)+ x, with r = y - A x (Golub and Pereyra 1973)."""
    system, y, x, tolerance = saved
    forward, adjoint = system.forward, system.adjoint

    def transposed(image: Array) -> Array:  # (A*)+
        limit = tolerance * length(forward(image))
        return least_squares(adjoint, forward, image, limit=limit)[0]

    of_y, of_x, residual = transposed(cotangent), transposed(x), y - forward(x)
    limit = tolerance * length(adjoint(of_y))
    twice, hidden = least_squares(forward, adjoint, of_y, limit=limit)[0], cotangent - adjoint(of_y)

    def change(system: Problem) -> Array:
        pairs = ((-of_y, x), (residual, twice), (of_x, hidden))
        return sum((jnp.real(jnp.vdot(v, system.forward(u))) for v, u in pairs), jnp.float32(0))

    (of_system,) = jax.vjp(change, system)[1](jnp.float32(1))  # its loops are dead code where A has no derivative
    return of_system, jnp.conj(of_y), jnp.zeros_like(tolerance), jnp.zeros_like(tolerance)


_solved.defvjp(_solved_forward, _solved_backward)


def build_problem(
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
    check_operator(operator)
    y = checked("measurement", measurement)
    h, w = frame.image_shape
    tried = []
    for flat in (False, True) if channels == 1 else (False,):
        image = jax.ShapeDtypeStruct((h, w) if flat else (h, w, channels), jnp.float32)
        try:
            out = jax.eval_shape(lambda x: operator(x), image)
            back = jax.eval_shape(lambda r: operator.T(r), out)
        except jax.errors.TracerArrayConversionError as error:
            raise ValueError(NUMPY) from error
        except (TypeError, ValueError, AssertionError) as error:
            tried.append(f"images {image.shape}: {str(error).splitlines()[0] if str(error) else type(error).__name__}")
            continue
        if getattr(out, "shape", None) == y.shape and getattr(back, "size", None) == h * w * channels:
            return Problem(as_pytree(operator), denoise, measured_by(out.dtype, y), frame, flat)
        refuse_batch("reconstruct", y.shape, getattr(out, "shape", None), "keys and measurements")
        tried.append(
            f"images {image.shape} give {getattr(out, 'shape', '?')} and .T of it {getattr(back, 'shape', '?')}"
        )
    raise ValueError(
        f"measurement {y.shape}, operator and the prior's images {(h, w, channels)} do not fit ({'; '.join(tried)}): "
        f"build the operator for image_shape {(h, w)} and this measurement, or take a prior for the operator's images"
    )


def fitting(name: str, measurement: ArrayLike, operator: Any, noise_std: ArrayLike | None) -> tuple[Any, Array]:
    """(operator, y) of a method without a prior: checked, and weighted where the entries of y differ in their noise.

    Args:
      name: of the function, for messages.
      measurement: y, finite.
      operator: a callable with `.T` and `.norm`.
      noise_std: of y, one number or one for each entry.

    Raises:
      ValueError: if y does not fit the operator or is not finite, and for a noise of another shape or below 0.
    """
    check_operator(operator)
    y, wrapped = checked("measurement", measurement), as_pytree(operator)
    try:
        image = jax.eval_shape(lambda r: wrapped.T(r), y)
        again = jax.eval_shape(lambda x: wrapped(jnp.real(x)), image)
    except jax.errors.TracerArrayConversionError as error:
        raise ValueError(NUMPY) from error
    except (TypeError, ValueError):
        if (expected := getattr(operator, "measurement_shape", None)) is not None:
            for channels in ((), y.shape[-1:]):
                refuse_batch(name, y.shape, (*expected, *channels), "measurements")
        if jnp.iscomplexobj(y):
            measured_by(jnp.float32, y)
        raise
    if again.shape != y.shape:
        raise ValueError(
            f"measurement has shape {y.shape}, but the operator gives {again.shape}: build it for this measurement"
        )
    y, std = measured_by(again.dtype, y), checked_noise(noise_std, y.shape, operator)
    if std is not None and std.ndim:
        wrapped, y, _ = weigh(wrapped, y, std, image.shape)
    return wrapped, y


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
