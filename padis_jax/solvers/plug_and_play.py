"""Plug-and-play: a denoiser at one fixed noise level in the place of a regulariser.

    PnP-ADMM (Venkatakrishnan et al., GlobalSIP 2013)
        x <- argmin_x  ||y - A x||^2 + rho ||x - (v - u)||^2           (A*A + rho) x = A*y + rho (v - u)
        v <- D(x + u, sigma)
        u <- u + x - v                                                 the result is v
    PnP-RED, its fixed-point form (Romano et al., SIAM J. Imaging Sci. 10, 1804, 2017)
        x <- argmin_x  ||y - A x||^2 + rho ||x - D(x, sigma)||^2       (A*A + rho) x = A*y + rho D(x, sigma)

with rho = weight ||A||^2, both linear systems by CG from the last x. For a linear symmetric denoiser W the fixed points
are those of  A*(A x - y) + rho (W^-1 - 1) x = 0  (ADMM) and  A*(A x - y) + rho (1 - W) x = 0  (RED).

The denoiser is any `Prior`: the patch prior, which draws a tiling per iteration, so that the iteration hovers about its
fixed point, or the plain network of cnn.py. The margin of the plane is left at 0.

Cost per iteration: one evaluation, no gradient; cg_steps + 2 pairs of A and A*.
"""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax import Array
from jax.tree_util import Partial
from jax.typing import ArrayLike

from padis_jax.operators.least_squares import conjugate_gradient
from padis_jax.prior import Prior
from padis_jax.solvers import sampling
from padis_jax.solvers.problem import Fit, Problem, build_problem, check_range
from padis_jax.solvers.reconstruct import Reconstruction, start_image
from padis_jax.solvers.sampling import Noise

METHODS = ("admm", "red")


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class PlugAndPlay:
    """Settings. The real-valued ones are arguments of the compiled step, so a search over them compiles once.

    Attributes:
      method: "admm" or "red".
      sigma: the denoiser's noise level, in image units.
      weight: rho relative to ||A||^2.
      cg_steps: CG steps per iteration.
    """

    method: Literal["admm", "red"] = dataclasses.field(default="admm", metadata={"static": True})
    sigma: float | Array = 0.03
    weight: float | Array = 0.01
    cg_steps: int = dataclasses.field(default=10, metadata={"static": True})

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise ValueError(f"PlugAndPlay: method is {self.method!r}: use one of {', '.join(METHODS)}")
        check_range("PlugAndPlay", "sigma", self.sigma, 0, open_low=True)
        check_range("PlugAndPlay", "weight", self.weight, 0, open_low=True)
        check_range("PlugAndPlay", "cg_steps", self.cg_steps, 1)


def plug_and_play(
    key: Array,
    measurement: ArrayLike,
    operator: Any,
    prior: Prior,
    *,
    settings: PlugAndPlay | None = None,
    iterations: int = 50,
    start: Any = "operator",
    progress: sampling.Progress | None = None,
) -> Reconstruction:
    """The image of plug-and-play iterations.

    Args:
      key: for the tilings of the prior.
      measurement: y.
      operator: A, as for `reconstruct`.
      prior: the denoiser and its frame.
      settings: method and weights; None for the defaults.
      iterations: how many.
      start: as for `reconstruct`; an operator without `.start` needs "noise" (zeros), "tv" or an image.
      progress: called with (iterations done, iterations in all, info).

    Returns:
      A `Reconstruction`; residual [iterations] is that of the image after each iteration, sigmas repeats sigma.

    Raises:
      ValueError: if shapes do not fit, numbers are not finite, or a setting is out of range.
    """
    if iterations < 1:
        raise ValueError(f"iterations is {iterations}: use at least one")
    settings = PlugAndPlay() if settings is None else settings
    problem = build_problem(operator, prior.denoise, measurement, prior.frame, channels=prior.channels)
    image = start_image(start, problem, operator, prior.channels)
    sigmas = jnp.full((iterations,), settings.sigma, jnp.float32)
    noises = Noise(sigmas, sigmas, jnp.zeros(iterations, bool))
    state = (image, image, jnp.zeros_like(image))
    (_, image, _), info = sampling.run(key, Partial(step, settings, problem), state, noises, progress=progress)
    return Reconstruction(image, info.residual, sigmas, iterations * prior.tilings)


def step(
    settings: PlugAndPlay, problem: Problem, key: Array, state: tuple[Array, Array, Array], noise: Noise
) -> tuple[tuple[Array, Array, Array], Fit]:
    """One iteration on (x, v, u), images [H, W, C]; v is the result (with "red" it is x). Reports the residual of v."""
    x, v, u = state
    if settings.method == "admm":
        x = _nearest(settings, problem, x, v - u)
        v = _denoised(problem, key, x + u, noise.sigma)
        u = u + x - v
    else:
        x = v = _nearest(settings, problem, x, _denoised(problem, key, x, noise.sigma))
    return (x, v, u), problem.fit(problem.measurement - problem.forward(v))


def _denoised(problem: Problem, key: Array, image: Array, sigma: Array) -> Array:
    return problem.frame.crop(problem.denoise(key, problem.frame.pad(image), sigma))


def _nearest(settings: PlugAndPlay, problem: Problem, x: Array, target: Array) -> Array:
    """The minimum of ||y - A x||^2 + rho ||x - target||^2, by CG from x."""
    weight = settings.weight * jnp.square(jnp.asarray(problem.operator.norm))
    right = problem.adjoint(problem.measurement, x.shape[-1]) + weight * target
    return conjugate_gradient(lambda w: problem.normal(w) + weight * w, right, x, settings.cg_steps)
