"""Diffusion posterior sampling with a variance-exploding Langevin step (PaDIS, arXiv 2406.02462, algorithm 1; Chung
et al., arXiv 2209.14687). One network evaluation per step, from which both terms are taken:

    D = denoise(x, sigma),   alpha = eps sigma^2,   r = y - A crop(D),   g = grad_x 1/2 ||r||^2 = -J_D* pad(A* r)
    x <- x + alpha/2 (D - x) / sigma^2 + sqrt(alpha) z - step(g)

The prior's part is the paper's Langevin step; `prior_step="ancestral"` takes that of Chung et al., which needs fewer
levels (transitions.py).

step(g), with N = ||A||, and the zeta of "squared" that makes the same step at the same residual without noise:

    form       step(g)              as "squared"        source
    squared    zeta g / M           zeta                the default: free of the units of A and the image's size
    norm       zeta g / (N ||r||)   zeta N / ||r||      the authors', made free of the operator's units
    paper      2 zeta g / ||r||     2 zeta N^2 / ||r||  the paper's zeta_i grad ||r||^2 with zeta_i = zeta / ||r||
    authors    zeta g / ||r||       zeta N^2 / ||r||    their code: zeta grad ||r||, half of the paper's step

M = N^2 + (s / sigma)^2, s the noise of y if it is given: where D knows the image better than y does, y counts for less
(Bayes' rule, as in dds.py; with zeta = 1 the step is the first of a descent to the minimum there). s = 0 leaves N^2.

So zeta_paper = zeta_authors / 2 and zeta_norm = zeta_authors N for the same step. The forms that divide by ||r|| take
steps of constant length however good the fit: they do not settle, but jitter about it. With "squared", s = 0, the
Langevin chain at level sigma samples as if y had white noise of variance alpha N^2 / (2 zeta): it tightens with sigma.

The authors' code differs further: it starts from the clamped FBP (`start="operator", start_noise=False` in
`reconstruct`), takes EDM's rho = 7 ladder, zeta 0.3 and eps 0.5, adds no noise in the last level
(`last_level_noise=False`), and sets D to 0 on the whole ring around the image, not only outside of the tiles
(`zero_ring=True`). It makes the data step before the prior step, with the score taken before both; since both terms
are of the same x, their order changes nothing but rounding and is no option here.

Cost per step: one evaluation and one gradient through it; one A and one A*.
"""

from __future__ import annotations

import dataclasses
from typing import Literal

import jax
import jax.numpy as jnp
from jax import Array

from padis_jax.solvers.checks import check_settings
from padis_jax.solvers.problem import Fit, Problem
from padis_jax.solvers.sampling import Noise
from padis_jax.solvers.transitions import PriorStep, prior_step

Form = Literal["squared", "norm", "paper", "authors"]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class DPS:
    """Settings. The real-valued ones are arguments of the compiled step, so a search over them compiles once.

    Source: PaDIS, arXiv 2406.02462, algorithm 1, and Chung et al., arXiv 2209.14687: a step along the gradient of
    1/2 ||y - A D(x)||^2.

    >>> import padis_jax as pj
    >>> pj.DPS(zeta=1.7, prior_step="ancestral").zeta  # reconstruct(key, y, A, prior, solver=...)
    1.7

    Attributes:
      zeta: data step, in the units of `step_form`.
      eps: Langevin step, alpha = eps sigma^2; the paper's formula is stable for eps < 4. Not used by "ancestral".
      prior_step: "langevin" or "ancestral".
      step_form: "squared", "norm", "paper" or "authors"; see the table above.
      noise: s, in the units of y; used by "squared".
      last_level_noise: whether the lowest level of the ladder adds noise.
      zero_ring: set D to 0 on the whole margin of the plane.

    Raises:
      ValueError: for a field of another type or outside of its interval: zeta (0, inf], eps (0, inf], noise [0,
        inf].
    """

    zeta: float | Array = 1.0
    eps: float | Array = 0.5
    prior_step: PriorStep = dataclasses.field(default="langevin", metadata={"static": True})
    step_form: Form = dataclasses.field(default="squared", metadata={"static": True})
    noise: float | Array = 0.0
    last_level_noise: bool = dataclasses.field(default=True, metadata={"static": True})
    zero_ring: bool = dataclasses.field(default=False, metadata={"static": True})

    def __post_init__(self) -> None:
        check_settings(self, zeta="(0, inf]", eps="(0, inf]", noise="[0, inf]")


def data_scale(problem: Problem, residual: Array, form: str, ratio: float | Array) -> Array:
    """1 / M for "squared", 1 / (N ||r||) for "norm", else 1 / ||r||, of which the last two are 0 where r is.

    `ratio` is s / sigma.
    """
    norm = problem.norm
    if form == "squared":
        return 1 / (jnp.square(norm) + jnp.square(ratio))
    length = jnp.linalg.norm(jnp.ravel(residual))
    per_length = jnp.where(length > 0, 1 / jnp.where(length > 0, length, 1), 0)
    return per_length / norm if form == "norm" else per_length


def step(settings: DPS, problem: Problem, key: Array, x: Array, noise: Noise) -> tuple[Array, Fit]:
    """One step at noise level noise.sigma; x is a plane [Hp, Wp, C]. Returns the next plane and the residual of D."""
    tiling_key, noise_key = jax.random.split(key)
    frame = problem.frame
    pull, spread = prior_step(settings, noise)

    def respond(projection: Array) -> tuple[Array, Array, Array, Fit]:
        """A crop(D) -> (w, v, s, fit): the next state has w D + s J_D* v, of which s J_D* v = -step(g)."""
        residual = problem.measurement - projection
        scale = data_scale(problem, residual, settings.step_form, settings.noise / noise.sigma)
        if settings.step_form == "paper":
            scale = 2 * scale
        weight = jnp.broadcast_to(pull, x.shape)
        if settings.zero_ring:
            weight = frame.pad(frame.crop(weight))
        covector = frame.pad(problem.adjoint(residual))
        return weight, covector, settings.zeta * scale, problem.fit(residual)

    shared = getattr(problem.denoise, "descend", None)
    if shared is not None:  # patches on several devices: D is nowhere whole
        mixed, fit = shared(tiling_key, x, noise.sigma, lambda plane: problem.forward(frame.crop(plane)), respond)
        return problem.mixed(lambda x, mixed, z: (1 - pull) * x + mixed + spread * z, noise_key, x, mixed), fit
    denoised, transpose = jax.vjp(lambda plane: problem.denoised(tiling_key, plane, noise.sigma), x)
    _, covector, scale, fit = respond(problem.forward(frame.crop(denoised)))
    (pulled,) = transpose(covector)
    if settings.zero_ring:
        denoised = frame.pad(frame.crop(denoised))

    def moved(x: Array, denoised: Array, pulled: Array, z: Array) -> Array:
        return x + pull * (denoised - x) + spread * z + scale * pulled

    return problem.mixed(moved, noise_key, x, denoised, pulled), fit
