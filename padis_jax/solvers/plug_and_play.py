"""Plug-and-play: a denoiser takes the role of a regulariser, at noise levels sigma that fall along the iterations.

    PnP-ADMM (Venkatakrishnan et al., GlobalSIP 2013)
        x <- argmin_x  ||y - A x||^2 + rho ||x - (v - u)||^2           (A*A + rho) x = A*y + rho (v - u)
        v <- D(x + u, sigma)
        u <- damping rho / rho' (u + x - v)                            rho' is the next; the result is v
    PnP-RED, its fixed-point form (Romano et al., SIAM J. Imaging Sci. 10, 1804, 2017)
        x <- argmin_x  ||y - A x||^2 + rho ||x - D(x, sigma)||^2       (A*A + rho) x = A*y + rho D(x, sigma)
    rho = weight ||A||^2 / sigma^power

With `momentum` m the denoiser is given what is extrapolated from its last argument,

    z <- (ADMM) x + u   or   (RED) x,      D(z + m (z - z_last), sigma)   instead of   D(z, sigma)

and in ADMM's last line z + m (z - z_last) stands for u + x. The dual in z_last is scaled by rho / rho', as u is, so
that both are in the same units where levels fall. At one level, where ADMM's z is the variable of
Douglas-Rachford splitting, that is its inertial form (Bot, Csetnek and Hendrich, Appl. Math. Comput. 256, 472, 2015,
arXiv 1403.3330); for RED it is Nesterov's step with a constant factor (accelerated in this way by Reehorst and
Schniter, IEEE TCI 5, 52, 2019, arXiv 1806.02296). It moves no fixed point. The first z_last is the start; without
momentum none is kept.

With `averaging` a the result is not v but its weighted mean over the iterations, sum_i a^(k-i) v_i / sum_i a^(k-i): one
random tiling leaves its borders in the v of its iteration, and the mean has those of several. The iteration does not
see it.

With `spectral` s the denoiser is given noise where the data have left little: w is white and

    n = s sigma (w - rho (A*A + rho)^-1 w),      D(z + n, sigma)   instead of   D(z, sigma)

in both forms; u does not see n. In a direction in which A*A has the eigenvalue l, the data step leaves the share
rho / (l + rho) of the error, and n has the share l / (l + rho) of w: noise where there is least of it, since the
denoiser knows white noise of level sigma. That such noise helps at a limited angle is in arXiv 2602.23214.

Both linear systems are solved by CG from the last x. u is the dual variable divided by rho. With `damping` 1 it
remembers where data and denoiser disagreed; with 0 this is half-quadratic splitting (HQS), which forgets. HQS on a
ladder of falling levels with `power` 2 is DPIR (Zhang et al., IEEE TPAMI 44, 6360, 2022, arXiv 2008.13751), whose rho
is a number times the measurement's variance over sigma^2. That the dual gains from falling levels, too, is in arXiv
2602.23214. The levels are the run's ladder; `sigma` above 0 is one level for all iterations.

At one level and for a linear symmetric denoiser W, with R = W^-1 - 1, the fixed points are those of

    ADMM   A*(A x - y) + rho R v = 0,   x = v + (1 - damping) R v
    RED    A*(A x - y) + rho (1 - W) x = 0

The denoiser is that of any `Prior`: the patch prior, which draws a tiling per iteration, so that the iteration hovers
about its fixed point, or a plain network (baselines/cnn.py). The margin of the plane is left at 0.

Cost per iteration: one evaluation, no gradient; cg_steps + 2 pairs of A and A*, with `spectral` 2 cg_steps + 3.
"""

from __future__ import annotations

import dataclasses
from typing import Literal

import jax
import jax.numpy as jnp
from jax import Array

from padis_jax.solvers.checks import check_settings
from padis_jax.solvers.estimates import solve_weighted
from padis_jax.solvers.problem import Fit, Problem
from padis_jax.solvers.sampling import Noise


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class PlugAndPlay:
    """Settings. The real-valued ones are arguments of the compiled step (not `momentum`, `averaging`): one compilation.

    Source: ADMM of Venkatakrishnan et al., GlobalSIP 2013; RED of Romano et al., SIAM J. Imaging Sci. 10, 1804,
    2017; rho = weight ||A||^2 / sigma^power.

    >>> import padis_jax as pj
    >>> pj.PlugAndPlay(damping=0.0).method  # HQS; reconstruct(key, y, A, prior, solver=..., sigma_max=0.1, ...)
    'admm'

    Attributes:
      method: "admm" or "red".
      sigma: one noise level for all iterations, in image units; 0 for the levels of the run.
      weight: rho relative to ||A||^2, times sigma^power.
      power: how fast rho grows while sigma falls.
      damping: of the dual variable: 1 is ADMM, 0 is HQS; not of "red".
      momentum: how far the denoiser's argument is extrapolated along its last change; 0 for none.
      averaging: of the denoised images, how much less each counts in the result than the one after it; 0 for the last.
      cg_steps: CG steps per iteration.
      spectral: noise given to the denoiser in the directions that the data fix, relative to its level; 0 for none.

    Raises:
      ValueError: for a field of another type or outside of its interval: sigma [0, inf], weight (0, inf], power [0,
        4], damping [0, 1], momentum [0, 1], averaging [0, 1], cg_steps [1, inf], spectral [0, 1].
    """

    method: Literal["admm", "red"] = dataclasses.field(default="admm", metadata={"static": True})
    sigma: float | Array = 0.0
    weight: float | Array = 0.002
    power: float | Array = 0.0
    damping: float | Array = 1.0
    momentum: float = dataclasses.field(default=0.0, metadata={"static": True, "later": True})
    averaging: float = dataclasses.field(default=0.0, metadata={"static": True, "later": True})
    cg_steps: int = dataclasses.field(default=10, metadata={"static": True})
    spectral: float = dataclasses.field(default=0.0, metadata={"static": True, "later": True})

    def __post_init__(self) -> None:
        check_settings(
            self,
            sigma="[0, inf]",
            weight="(0, inf]",
            power="[0, 4]",
            damping="[0, 1]",
            momentum="[0, 1]",
            averaging="[0, 1]",
            cg_steps="[1, inf]",
            spectral="[0, 1]",
        )


State = tuple[Array, ...]


def begin(settings: PlugAndPlay, image: Array) -> State:
    """The state (x, v, u) before the first iteration; then z_last with momentum; then the mean and its weight."""
    state = image, image, jnp.zeros_like(image)
    last = (image,) if settings.momentum else ()
    mean = (jnp.zeros_like(image), jnp.zeros((), image.dtype)) if settings.averaging else ()
    return (*state, *last, *mean)


def image(state: State) -> Array:
    """The result: v, or the mean."""
    averaged = jnp.ndim(state[-1]) == 0  # by the weight of the mean, the only number in a state
    return state[-2] if averaged else state[1]


def step(settings: PlugAndPlay, problem: Problem, key: Array, state: State, noise: Noise) -> tuple[State, Fit]:
    """One iteration on the state, images [H, W, C]; with "red" x is v. Reports the residual of the result."""
    (x, v, u), last = state[:3], state[3 : 4 if settings.momentum else 3]
    scale = (noise.sigma_next / noise.sigma) ** settings.power
    if settings.method == "admm":
        x = _nearest(settings, problem.about(v), x, v - u, noise.sigma)
        z = x + u
        given = _extrapolated(settings, z, last)
        v = _denoised(settings, problem, key, given, noise.sigma)
        kept = (x + scale * u,) if last else ()
        u = settings.damping * scale * (given - v)
    else:
        given, kept = _extrapolated(settings, x, last), (x,) if last else ()
        d = _denoised(settings, problem, key, given, noise.sigma)
        x = v = _nearest(settings, problem.about(d), x, d, noise.sigma)
    result: Array = v
    mean: State = ()
    if settings.averaging:
        before, weight = state[-2:]
        weight = settings.averaging * weight + 1
        result = before + (v - before) / weight
        mean = (result, weight)
    return (x, v, u, *kept, *mean), problem.fit(problem.residual(result))


def _extrapolated(settings: PlugAndPlay, z: Array, last: State) -> Array:
    return z + settings.momentum * (z - last[0]) if last else z


def _denoised(settings: PlugAndPlay, problem: Problem, key: Array, image: Array, sigma: Array) -> Array:
    if settings.spectral:
        key, noise_key = jax.random.split(key)
        white, weight = problem.drawn(noise_key, image), _weight(settings, problem, sigma)
        left = solve_weighted(problem, weight * white, white, weight, settings.cg_steps)
        image = image + settings.spectral * sigma * (white - left)
    return problem.frame.crop(problem.denoised(key, problem.frame.pad(image), sigma))


def _nearest(settings: PlugAndPlay, problem: Problem, x: Array, target: Array, sigma: Array) -> Array:
    """The minimum of ||y - A x||^2 + rho ||x - target||^2, by CG from x."""
    weight = _weight(settings, problem, sigma)
    right = problem.adjoint(problem.measurement) + weight * target
    return solve_weighted(problem, right, x, weight, settings.cg_steps)


def _weight(settings: PlugAndPlay, problem: Problem, sigma: Array) -> Array:
    """rho."""
    return settings.weight * jnp.square(problem.norm) / sigma**settings.power
