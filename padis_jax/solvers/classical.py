"""Classical iterations for least squares, stopped early: CGLS and SIRT.

    CGLS   conjugate gradients on A*A x = A*y from x = 0 (Bjoerck, Numerical Methods for Least Squares Problems, 7.4)
    SIRT   x <- x + relaxation C A* R (y - A x),   R = 1 / (A 1),   C = 1 / (A* 1),   from x = 0
           (Gilbert, J. Theor. Biol. 36, 105, 1972; in the form of van der Sluis and van der Vorst, 1987)

with A 1 and A* 1 the sums of the rows and columns of A, which must have no negative entry; where a sum is 0, so is the
factor. Early iterations explain the data, later ones their noise: with `noise_norm` both stop by the discrepancy
principle, at the first x with ||y - A x|| <= noise_norm (Morozov 1966). Where the entries of y differ in their noise, A
and y are W^(1/2) A and W^(1/2) y (operators/weighting.py), and `noise_norm` is that of W^(1/2) y.

Cost: one A and one A* an iteration; no network.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.typing import ArrayLike

from padis_jax.errors import UserError
from padis_jax.fields import check_count, single
from padis_jax.operators.unit import power_of_two
from padis_jax.solvers.problem import fitting

Cgls = tuple[Array, Array, Array, Array, Array]  # iterations, x, y - A x, direction, ||A*(y - A x)||^2


class Iterated(NamedTuple):
    """What `cgls` and `sirt` return.

    Attributes:
      image: in the shape that A.T gives, [H, W] or [H, W, C].
      residual: ||y - A x|| of the image.
      iterations: that it took.
    """

    image: Array
    residual: Array
    iterations: Array


def cgls(
    measurement: ArrayLike,
    operator: Any,
    *,
    iterations: int = 20,
    noise_norm: float | Array = 0.0,
    noise_std: ArrayLike | None = None,
) -> Iterated:
    """Conjugate gradients on the normal equations, from 0.

    >>> import jax.numpy as jnp, padis_jax as pj
    >>> from padis_jax.solvers.classical import cgls
    >>> half = pj.from_functions(lambda x: x / 2, image_shape=(8, 8))
    >>> float(cgls(jnp.full((8, 8), 0.3), half).image[0, 0].round(4))
    0.6

    Args:
      measurement: y, finite.
      operator: a callable with `.T` and `.norm`; the shape of the image is that of `.T(y)`.
      iterations: at most.
      noise_norm: stops at a residual of this; 0 runs all iterations.
      noise_std: of the noise of y, one number or one for each entry; see `total_variation`.

    Raises:
      ValueError: as `total_variation`.
    """
    wrapped, y = _checked("cgls", measurement, operator, iterations, noise_norm, noise_std)
    return _cgls(wrapped, y, jnp.int32(iterations), jnp.float32(noise_norm))


def sirt(
    measurement: ArrayLike,
    operator: Any,
    *,
    iterations: int = 200,
    relaxation: float | Array = 1.0,
    nonnegative: bool = True,
    noise_norm: float | Array = 0.0,
    noise_std: ArrayLike | None = None,
) -> Iterated:
    """Simultaneous iterative reconstruction, from 0.

    >>> import jax.numpy as jnp, padis_jax as pj
    >>> from padis_jax.solvers.classical import sirt
    >>> half = pj.from_functions(lambda x: x / 2, image_shape=(8, 8))
    >>> float(sirt(jnp.full((8, 8), 0.3), half, iterations=5).image[0, 0].round(4))
    0.6

    Args:
      measurement: y, finite and real.
      operator: a callable with `.T` and `.norm`, without negative entries.
      iterations: at most.
      relaxation: above 0, below 2.
      nonnegative: set negative pixels to 0 after each iteration.
      noise_norm: stops at a residual of this; 0 runs all iterations.
      noise_std: of the noise of y, one number or one for each entry; see `total_variation`.

    Raises:
      ValueError: as `total_variation`; and for an operator with sums below 0, or a complex measurement.
    """
    wrapped, y = _checked("sirt", measurement, operator, iterations, noise_norm, noise_std)
    if not 0 < float(relaxation) < 2:
        raise UserError(f"sirt: relaxation is {relaxation}: it must be above 0 and below 2")
    if jnp.iscomplexobj(y):
        raise UserError("sirt: the measurement is complex, and a complex operator has no sums to divide by: take cgls")
    rows, columns = _sums(wrapped, y)
    if not isinstance(rows, jax.core.Tracer) and min(float(rows.min()), float(columns.min())) < 0:
        raise UserError("sirt: the operator has negative entries (a sum of a row or column is below 0): take cgls")
    return _sirt(
        wrapped, y, rows, columns, jnp.int32(iterations), jnp.float32(relaxation), jnp.float32(noise_norm), nonnegative
    )


def _checked(
    name: str, measurement: ArrayLike, operator: Any, iterations: int, noise_norm: Any, noise_std: ArrayLike | None
) -> tuple[Any, Array]:
    check_count(f"{name}: iterations", iterations)
    if not isinstance(noise_norm, jax.Array) and not 0 <= float(noise_norm) < float("inf"):
        raise UserError(f"{name}: noise_norm is {noise_norm}: it must be finite and not negative")
    return fitting(name, measurement, operator, noise_std)


@jax.jit
def _cgls(operator: Any, y: Array, iterations: Array, noise_norm: Array) -> Iterated:
    def adjoint(r: Array) -> Array:
        return single(jnp.real(operator.T(r)))

    def unfinished(state: Cgls) -> Array:
        i, _, r, _, gg = state
        return (i < iterations) & (gg > 0) & (_norm(r) > scale * noise_norm)

    def step(state: Cgls) -> Cgls:
        i, x, r, p, gg = state
        q = single(operator(p))
        alpha = gg / jnp.maximum(jnp.real(jnp.vdot(q, q)), jnp.finfo(jnp.float32).tiny)
        x, r = x + alpha / scale * p, r - alpha.astype(q.dtype) * q
        g = adjoint(r)
        after = jnp.vdot(g, g)
        return i + 1, x, r, g + after / gg * p, after

    g = adjoint(y)
    scale = power_of_two(g)  # of residual and direction, which leaves the image as it is
    g, y = scale * g, scale.astype(y.dtype) * y
    i, x, r, _, _ = lax.while_loop(unfinished, step, (jnp.int32(0), jnp.zeros_like(g), y, g, jnp.vdot(g, g)))
    return Iterated(x, _norm(r) / scale, i)


@jax.jit
def _sums(operator: Any, y: Array) -> tuple[Array, Array]:
    columns = single(operator.T(jnp.ones_like(y)))
    return single(operator(jnp.ones_like(columns))), columns


@functools.partial(jax.jit, static_argnums=7)
def _sirt(
    operator: Any,
    y: Array,
    rows: Array,
    columns: Array,
    iterations: Array,
    relaxation: Array,
    noise_norm: Array,
    nonnegative: bool,
) -> Iterated:
    of_rows, of_columns = (jnp.where(s > 0, 1 / jnp.where(s > 0, s, 1), 0) for s in (rows, columns))

    def unfinished(state: tuple[Array, Array, Array]) -> Array:
        i, _, r = state
        return (i < iterations) & (_norm(r) > noise_norm)

    def step(state: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        i, x, r = state
        x = x + relaxation * of_columns * single(operator.T(of_rows * r))
        x = jnp.maximum(x, 0) if nonnegative else x
        return i + 1, x, y - single(operator(x))

    i, x, r = lax.while_loop(unfinished, step, (jnp.int32(0), jnp.zeros_like(columns), y))
    return Iterated(x, _norm(r), i)


def _norm(a: Array) -> Array:
    return jnp.linalg.norm(jnp.ravel(a))


class Row(NamedTuple):
    """A method by name: its function, its name in tables, the iterations that runs give it, and when it ends."""

    solve: Callable[..., Iterated]
    label: str
    iterations: int
    stop: str


CLASSICAL: dict[str, Row] = {
    name: Row(solve, name.upper(), most, f"stopped at the noise, or after {most} iterations")
    for name, solve, most in (("cgls", cgls, 20), ("sirt", sirt, 200))
}
