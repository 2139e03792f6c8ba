"""Estimates of the clean image from the denoised one and the data, D -> u, planes [Hp, Wp, C].

    proximal    argmin_u ||y - A u||^2 + w ||u - D||^2:    (A*A + w) (u - D) = A*(y - A D), by CG from D
    projection  D + A+ (y - A D): of the images that explain y best, the nearest to D

The clean value outside of the image is known to be 0, so `proximal` pads with zeros. DAPS's c (an ODE) and TMPD's
mean (CG with the denoiser's derivative) are in their files. Every estimate comes with the residual of D.
"""

from __future__ import annotations

import jax.numpy as jnp
from jax import Array

from padis_jax.operators.least_squares import conjugate_gradient
from padis_jax.solvers.problem import Fit, Problem


def proximal(problem: Problem, denoised: Array, weight: Array, cg_steps: int) -> tuple[Array, Fit]:
    """The first row; cg_steps + 2 pairs of A and A*."""
    clean = problem.frame.crop(denoised)
    residual, problem = problem.residual(clean), problem.about(clean)
    update = solve_weighted(problem, problem.descent(clean, residual), jnp.zeros_like(clean), weight, cg_steps)
    return problem.frame.pad(clean + update), problem.fit(residual)


def solve_weighted(problem: Problem, right: Array, start: Array, weight: Array, cg_steps: int) -> Array:
    """(A*A + weight) u = right by CG from `start`, images [H, W, C]."""
    return conjugate_gradient(lambda v: problem.normal(v) + weight * v, right, start, cg_steps)


def projection(problem: Problem, denoised: Array, cg_steps: int, tolerance: float | Array) -> tuple[Array, Fit]:
    """The second row, with A+ (to `tolerance` where it has no closed form) or, above 0, `cg_steps` CG steps for it."""
    residual = problem.residual(problem.frame.crop(denoised))
    if cg_steps:
        gradient = problem.adjoint(residual)
        update = conjugate_gradient(problem.normal, gradient, jnp.zeros_like(gradient), cg_steps)
    else:
        update = problem.pinv(residual, tolerance=tolerance)
    return denoised + problem.frame.pad(update), problem.fit(residual)
