"""||A|| = sup ||A x|| / ||x|| by products with A and A' alone: power iteration, and Lanczos' method on A'A."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax

from padis_jax.operators.least_squares import Map, as_partial
from padis_jax.operators.unit import length

TOLERANCE = 1e-3  # of a norm
ROUNDING = 1e-6  # of a product
LARGE = 2**24  # pixels of an image of which ten are too many to keep
TIGHT = 1e-4  # of a norm of operators that are put together, of whose eigenvalues nothing is known
LanczosState = tuple[Array, Array, Array, Array, Array, Array]  # count, basis, matrix, next vector, value, residual


def operator_norm(
    forward: Map,
    adjoint: Map,
    *,
    image_shape: tuple[int, ...],
    dtype: jnp.dtype | type = jnp.float32,
    max_iterations: int = 1000,
) -> Array:
    """||A|| by power iteration on A'A from a fixed random image; a real scalar.

    Stops when ||A'A v - s v|| <= 2 TOLERANCE s, which puts an eigenvalue of A'A so close to s that its root is right
    to TOLERANCE; the change between two iterations would say nothing of the kind where eigenvalues crowd. That it is
    the largest takes a start that holds enough of its image, as those of projectors and blurs do; of other operators
    use `leading_image`.
    """
    start = jax.random.normal(jax.random.key(0), image_shape, dtype)
    return _compiled(_iterate, forward, adjoint, max_iterations)(start)[1]


def leading_image(forward: Map, adjoint: Map, *, image_shape: tuple[int, ...], dtype: jnp.dtype | type) -> Array:
    """A unit image v with ||A v|| = ||A|| to `TIGHT`, by Lanczos' method from a fixed random image.

    A full basis is used unless what is left is rounding: where nearly all singular values are equal and a few pixels
    have larger ones, a random image hardly holds these, and looks like the answer.
    """
    start = jax.random.normal(jax.random.key(0), image_shape, dtype).ravel()
    basis = 10 if start.size < LARGE else 4
    found = _compiled(_lanczos_image, forward, adjoint, image_shape, TIGHT, 300, basis, basis)
    return found(start / jnp.linalg.norm(start).astype(dtype))


def power_image(forward: Map, adjoint: Map, start: Array) -> Array:
    """A unit image v with ||A v|| = ||A||, found like `operator_norm` from an image; 0 if A is."""
    w = _compiled(_iterate, forward, adjoint, 1000)(start)[0]
    return w / jnp.maximum(length(w), jnp.finfo(w.dtype).tiny).astype(w.dtype)


def _compiled(method: Callable[..., Any], forward: Map, adjoint: Map, *numbers: Any) -> Callable[[Array], Any]:
    """`method` as one program, for all operators of one kind where `forward` and `adjoint` are methods of them.

    For other functions it is dropped with its result, as another function is another program.
    """
    forward, adjoint = as_partial(forward), as_partial(adjoint)
    if jax.tree.leaves(forward):
        return functools.partial(_shared, method, numbers, forward, adjoint)
    return jax.jit(lambda v: method(forward, adjoint, v, *numbers))


@functools.partial(jax.jit, static_argnums=(0, 1))
def _shared(method: Callable[..., Any], numbers: tuple[Any, ...], forward: Map, adjoint: Map, v: Array) -> Any:
    return method(forward, adjoint, v, *numbers)


def _iterate(forward: Map, adjoint: Map, v: Array, max_iterations: int) -> tuple[Array, Array]:
    """(A'A v, ||A v||) of the last unit image v."""

    def normal(v: Array) -> tuple[Array, Array, Array]:
        w = adjoint(forward(v)).astype(v.dtype)
        s = jnp.real(jnp.vdot(v, w))
        return w, s, length(w - s.astype(v.dtype) * v)

    def unfinished(state: tuple[Array, Array, Array, Array]) -> Array:
        i, _, s, residual = state
        return (residual > 2 * TOLERANCE * s) & (i < max_iterations)

    def step(state: tuple[Array, Array, Array, Array]) -> tuple[Array, Array, Array, Array]:
        i, w, _, _ = state
        return i + 1, *normal(w / jnp.maximum(length(w), jnp.finfo(w.dtype).tiny).astype(w.dtype))

    first = (jnp.zeros((), jnp.int32), *normal(v / jnp.linalg.norm(v.ravel()).astype(v.dtype)))
    _, w, s, _ = lax.while_loop(unfinished, step, first)
    return w, jnp.sqrt(jnp.maximum(s, 0))


def lanczos_norm(
    forward: Map,
    adjoint: Map,
    image_shape: tuple[int, ...],
    *,
    tolerance: float = TOLERANCE,
    max_iterations: int = 300,
    basis: int = 10,
) -> Array:
    """||A|| of an A without negative entries, by Lanczos' method on A'A from an image of ones; a real scalar.

    It stops by the rule of `operator_norm`, which holds for the largest Ritz value s and its vector v as well:
    ||A'A v - s v|| is what is left of the last product times the last component of v. After `basis` products it
    restarts from v. Golub and Van Loan, Matrix Computations, section 10.1.
    """
    n = math.prod(image_shape)
    start = jnp.full((n,), n**-0.5, jnp.float32)
    return _compiled(_lanczos, forward, adjoint, image_shape, tolerance, max_iterations, basis)(start)


def _lanczos(forward: Map, adjoint: Map, v: Array, *numbers: Any) -> Array:
    return jnp.sqrt(jnp.maximum(_lanczos_loop(forward, adjoint, v, *numbers)[4], 0))


def _lanczos_image(forward: Map, adjoint: Map, v: Array, image_shape: tuple[int, ...], *numbers: Any) -> Array:
    i, vectors, matrix, following, *_ = _lanczos_loop(forward, adjoint, v, image_shape, *numbers)
    ritz = jnp.linalg.eigh(matrix)[1][:, -1] @ vectors
    ritz = jnp.where(i % len(matrix) == 0, following, ritz)  # just restarted from it
    return (ritz / jnp.linalg.norm(ritz).astype(v.dtype)).reshape(image_shape)


def _lanczos_loop(
    forward: Map,
    adjoint: Map,
    v: Array,
    image_shape: tuple[int, ...],
    tolerance: float,
    max_iterations: int,
    basis: int,
    least: int = 0,
) -> LanczosState:
    """The last state; of `least` products, unless what is left before is rounding."""

    def unfinished(state: LanczosState) -> Array:
        i, _, _, _, s, residual = state
        bound = jnp.where(i < least, ROUNDING, 2 * tolerance)
        return (residual > bound * s) & (i < max_iterations)

    def step(state: LanczosState) -> LanczosState:
        i, vectors, matrix, v, _, _ = state
        j = i % basis
        vectors = vectors.at[j].set(v)
        w = adjoint(forward(v.reshape(image_shape))).ravel().astype(v.dtype)
        column = vectors.conj() @ w
        w = w - column @ vectors
        w = w - (vectors.conj() @ w) @ vectors  # once more, against rounding
        matrix = matrix.at[:, j].set(column).at[j].set(column.conj())
        values, parts = jnp.linalg.eigh(matrix)
        left = length(w)
        full = j + 1 == basis
        ritz = parts[:, -1] @ vectors
        following = w / jnp.maximum(left, jnp.finfo(w.dtype).tiny).astype(w.dtype)
        if least:  # w may be hardly more than rounding, and its direction not orthogonal
            following = following - (vectors.conj() @ following) @ vectors
        following = jnp.where(full, ritz / jnp.linalg.norm(ritz).astype(w.dtype), following)
        vectors, matrix = jnp.where(full, 0, vectors), jnp.where(full, 0, matrix)
        return i + 1, vectors, matrix, following, values[-1], left * jnp.abs(parts[j, -1])

    zeros, one = jnp.zeros((basis, v.size), v.dtype), jnp.ones((), v.real.dtype)
    first = (jnp.zeros((), jnp.int32), zeros, jnp.zeros((basis, basis), v.dtype), v, 0 * one, one)
    return lax.while_loop(unfinished, step, first)
