"""Conjugate gradients: a few steps for the solvers, and the pseudo-inverse.

M x = b                                        M symmetric positive semi-definite (Hestenes and Stiefel 1952)
A+ y = argmin ||x|| over argmin ||A x - y||    by conjugate gradients on A'A from zero (CGLS; Bjoerck 1996, 7.4)
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.tree_util import Partial

from padis_jax.operators.unit import length, power_of_two

Map = Callable[[Array], Array]
CgState = tuple[Array, Array, Array, Array, Array]  # count, x, residual, direction, squared gradient
SETTLED = 1e-10  # share of the first squared residual below which steps have no derivative


def conjugate_gradient(
    normal_matvec: Map, rhs: Array, x0: Array, iterations: int, *, least: float | Array = 0.0
) -> Array:
    """`iterations` steps of conjugate gradients on M x = rhs from x0, M symmetric positive semi-definite.

    A pure loop of fixed length. Where the residual reaches 0 exactly, the rest of the steps leave x as it is; and so
    they do from the first direction p on with p'Mp <= least p'p, as M is not what it should be there (Steihaug 1983
    ends at negative curvature): a step along it would be as long as chance has it.

    Differentiable in both modes. Where the steps do not reach the solution, the derivative is that of the steps. Once
    the residual has fallen by 1e5 steps follow rounding, and their derivatives would be quotients of nothing by
    nothing: they count as constants, and the implicit derivative of the system, M^-1 (db - dM x), adds what is left.
    """

    def step(carry: CgState, _: None) -> tuple[CgState, None]:
        x, r, p, rr, live = carry
        live = live & (rr > SETTLED * first)

        def kept(value: Array) -> Array:
            return jnp.where(live, value, lax.stop_gradient(value))

        mp = normal_matvec(p)
        curvature = jnp.real(jnp.vdot(p, mp))
        sound = curvature > least * jnp.real(jnp.vdot(p, p))
        alpha = jnp.where(sound, _ratio(rr, curvature), 0).astype(p.dtype)
        x, r = x + kept(alpha * back * p), r - kept(alpha * mp)
        rr_next = jnp.real(jnp.vdot(r, r))
        p = jnp.where(sound, r + kept(_ratio(rr_next, rr).astype(p.dtype) * p), 0)
        return (x, r, p, rr_next, live), None

    r = rhs - normal_matvec(x0)
    scale = power_of_two(r)
    r, back = scale.astype(r.dtype) * r, (1 / scale).astype(r.dtype)
    first = jnp.real(jnp.vdot(r, r))
    (x, r, _, _, live), _ = lax.scan(step, (x0, r, r, first, first > 0), None, length=iterations)
    nothing = jnp.where(live, 0, r - lax.stop_gradient(r))  # but for its derivative
    return x + back * _implicit(normal_matvec, nothing, lax.stop_gradient(jnp.asarray(least, first.dtype)))


def _implicit(matvec: Map, rhs: Array, least: Array) -> Array:
    """M^-1 rhs by conjugate gradients, which `custom_linear_solve` differentiates; of 0 it costs nothing.

    It ends where directions have next to no curvature: a cotangent need not be in the range of a singular M.
    """

    def solve(matvec: Map, b: Array) -> Array:
        def unfinished(state: tuple[Array, *CgState]) -> Array:
            i, _, _, _, rr, _ = state
            return (rr > SETTLED * size) & (i < 200)

        def step(state: tuple[Array, *CgState]) -> tuple[Array, *CgState]:
            i, x, r, p, rr, best = state
            mp = matvec(p)
            curvature = jnp.real(jnp.vdot(p, mp))
            rayleigh = _ratio(curvature, jnp.real(jnp.vdot(p, p)))
            best = jnp.maximum(best, rayleigh)
            sound = rayleigh > jnp.maximum(least, 1e-6 * best)
            alpha = jnp.where(sound, _ratio(rr, curvature), 0).astype(p.dtype)
            x, r = x + alpha * p, r - alpha * mp
            rr_next = jnp.real(jnp.vdot(r, r))
            return jnp.where(sound, i + 1, 200), x, r, r + _ratio(rr_next, rr).astype(p.dtype) * p, rr_next, best

        scale = power_of_two(b)
        b = scale.astype(b.dtype) * b
        size = jnp.real(jnp.vdot(b, b))
        state = (jnp.zeros((), jnp.int32), jnp.zeros_like(b), b, b, size, jnp.zeros_like(size))
        return lax.while_loop(unfinished, step, state)[1] / scale.astype(b.dtype)

    return lax.custom_linear_solve(matvec, rhs, solve, symmetric=True)


def pseudo_inverse(forward: Map, adjoint: Map, measurement: Array, *, max_iterations: int = 2000) -> Array:
    """A+ y: conjugate gradients on A'A x = A'y from zero, which stay in the range of A', hence of least norm.

    Stops when ||A'(y - A x)|| <= e ||A' y||, e being 8 rounding errors of the type (1e-6 in float32), or, silently,
    after `max_iterations`: the smallest singular values of a blur or of few views may want more.

    The transpose of A+ is (A')+, computed in the same way, so that y can be differentiated in reverse mode. What
    `forward` and `adjoint` hold cannot. Methods of operators, and `Partial`s, compile nothing for other arrays.
    Measurements of less precision, or whole numbers, are taken in float32.
    """
    y = jnp.asarray(measurement)
    with jax.numpy_dtype_promotion("standard"):
        y = y.astype(jnp.promote_types(y.dtype, jnp.float32))
    return _pseudo_inverse(as_partial(forward), as_partial(adjoint), y, max_iterations)


def as_partial(function: Any) -> Partial:
    """A pytree, with the arrays of the operator as leaves where `function` is one or a method of one."""
    if isinstance(function, Partial):
        return function
    owner = getattr(function, "__self__", function)
    if not jax.tree.leaves(owner) or jax.tree_util.all_leaves([owner]):
        return Partial(function)
    return Partial(getattr(function, "__func__", type(function).__call__), owner)


@functools.partial(jax.jit, static_argnums=3)
def _pseudo_inverse(forward: Partial, adjoint: Partial, measurement: Array, max_iterations: int) -> Array:
    @jax.custom_vjp  # autodiff cannot run a loop of unknown length backwards
    def solve(forward: Partial, adjoint: Partial, y: Array) -> Array:
        gradient = adjoint(y)
        limit = 8 * float(jnp.finfo(gradient.dtype).eps) * length(gradient)
        return least_squares(forward, adjoint, y, limit=limit, max_iterations=max_iterations)[0]

    def run(forward: Partial, adjoint: Partial, y: Any) -> tuple[Array, tuple[Partial, Partial]]:
        if any(leaf.perturbed for leaf in jax.tree.leaves((forward, adjoint))):
            raise ValueError("pinv: it has a derivative in the measurement only, not in what the operator holds")
        forward, adjoint = jax.tree.map(lambda leaf: leaf.value, (forward, adjoint))
        return solve(forward, adjoint, y.value), (forward, adjoint)

    def pull(maps: tuple[Partial, Partial], cotangent: Array) -> tuple[None, None, Array]:
        # Conjugated: a cotangent pairs without conjugation.
        back = _pseudo_inverse(*maps[::-1], jnp.conj(cotangent), max_iterations)
        return None, None, jnp.conj(back)

    solve.defvjp(run, pull, symbolic_zeros=True)
    return solve(forward, adjoint, measurement)


def least_squares(
    forward: Map, adjoint: Map, measurement: Array, *, limit: Array, max_iterations: int = 2000
) -> tuple[Array, Array]:
    """(A+ y but for a gradient ||A'(y - A x)|| <= limit, the iterations that it took: one A and one A' each)."""
    gradient = adjoint(measurement)
    scale = power_of_two(gradient)
    target = jnp.square(scale * limit)
    gradient = scale.astype(gradient.dtype) * gradient

    def unfinished(state: CgState) -> Array:
        i, _, _, _, gg = state
        return (gg > target) & (i < max_iterations)

    def step(state: CgState) -> CgState:
        i, x, r, p, gg = state
        ap = forward(p)
        alpha = _ratio(gg, jnp.real(jnp.vdot(ap, ap)))
        x, r = x + (alpha / scale).astype(p.dtype) * p, r - (alpha.astype(ap.dtype) * ap).astype(r.dtype)
        g = adjoint(r)
        gg_next = jnp.real(jnp.vdot(g, g))
        return i + 1, x, r, g + _ratio(gg_next, gg).astype(p.dtype) * p, gg_next

    start = (
        jnp.zeros((), jnp.int32),
        jnp.zeros_like(gradient),
        scale.astype(measurement.dtype) * measurement,
        gradient,
        jnp.real(jnp.vdot(gradient, gradient)),
    )
    count, x, *_ = lax.while_loop(unfinished, step, start)
    return x, count


@jax.custom_jvp
def _ratio(a: Array, b: Array) -> Array:
    """a / b, and 0 where b is 0: conjugate gradients that have converged exactly stand still."""
    return jnp.where(b > 0, a / jnp.where(b > 0, b, 1), 0)


@_ratio.defjvp
def _(primals: tuple[Array, Array], tangents: tuple[Array, Array]) -> tuple[Array, Array]:
    (_, b), (da, db), ratio = primals, tangents, _ratio(*primals)
    return ratio, jnp.where(b > 0, (da - ratio * db) / jnp.where(b > 0, b, 1), 0)  # without b^2, which underflows
