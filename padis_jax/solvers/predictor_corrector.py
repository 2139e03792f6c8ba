"""Predictor-corrector sampling (Song et al., arXiv 2011.13456, algorithm 2) with the data step of PaDIS
(arXiv 2406.02462).

    predictor   x <- x + (s^2 - t^2) S(x, s) + f z,      s = sigma, t = the next sigma
    data        x <- x + step(A*(y - A x))
    corrector   x <- x + e S(x, t) + sqrt(2 e) z'
    data        x <- x + step(A*(y - A x))

with the score S(x, sigma) = (D(x, sigma) - x) / sigma^2 and z, z' standard normal. The predictor's f:

    form               f                        source
    reverse_diffusion  sqrt(s^2 - t^2)          Song et al., appendix E: Euler-Maruyama, for small steps from s to t
    ancestral          t sqrt(1 - (t / s)^2)    Song et al., appendix F: leaves the noise of level t, however far t is

On a ladder of few levels the first leaves noise that the network is not told of (solvers/transitions.py). The
corrector's e:

    form    e                                source
    song    2 (r ||z'|| / ||S(x, t)||)^2     Song et al.; e has the dimension of sigma^2, as a Langevin step must
    paper    2 r ||z'|| / ||S(x, t)||        the PaDIS paper and code: e S is 2 r ||z'|| long, the same at every sigma

Since ||S|| is about ||z|| / sigma, e is about 2 (r t)^2 or 2 r t. The step of the second is stable only while
t > r, below which it is longer than the noise that it is to remove; it is here to be compared, not recommended.
step(d) is the table in solvers/langevin.py. After the last level (t = 0) x is D: nothing is drawn and there is no
corrector, whose score does not exist.

Cost per step: two evaluations, no gradient; three A and two A*. Take one inner step per level: the predictor does
nothing between equal levels.
"""

from __future__ import annotations

import dataclasses
from typing import Literal

import jax
import jax.numpy as jnp
from jax import Array

from padis_jax.solvers.checks import check_settings
from padis_jax.solvers.langevin import Form, data_step
from padis_jax.solvers.problem import Fit, Problem
from padis_jax.solvers.sampling import Noise
from padis_jax.solvers.transitions import ancestral, towards


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class PredictorCorrector:
    """Settings. The real-valued ones are arguments of the compiled step, so a search over them compiles once.

    Source: Song et al., arXiv 2011.13456, algorithm 2, with the data step of PaDIS, arXiv 2406.02462.

    >>> import padis_jax as pj
    >>> pj.PredictorCorrector(predictor="ancestral").snr  # reconstruct(key, y, A, prior, solver=...)
    0.16

    Attributes:
      predictor: "reverse_diffusion" or "ancestral"; see the first table above.
      snr: r, the corrector's ratio of signal to noise.
      corrector: "song" or "paper"; see the second table above.
      zeta: data step, in the units of `step_form`; "squared" is stable below 2.
      step_form: "squared", "norm" or "paper"; see solvers/langevin.py.
      noise: s, in the units of y; used by "squared".

    Raises:
      ValueError: for a field of another type or outside of its interval: snr (0, inf], zeta (0, inf], noise [0,
        inf].
    """

    predictor: Literal["reverse_diffusion", "ancestral"] = dataclasses.field(
        default="reverse_diffusion", metadata={"static": True}
    )
    snr: float | Array = 0.16
    corrector: Literal["song", "paper"] = dataclasses.field(default="song", metadata={"static": True})
    zeta: float | Array = 1.0
    step_form: Form = dataclasses.field(default="squared", metadata={"static": True})
    noise: float | Array = 0.0

    def __post_init__(self) -> None:
        check_settings(self, snr="(0, inf]", zeta="(0, inf]", noise="[0, inf]")


def step(settings: PredictorCorrector, problem: Problem, key: Array, x: Array, noise: Noise) -> tuple[Array, Fit]:
    """One noise level; x is a plane [Hp, Wp, C]. Returns the plane at noise.sigma_next and the residual of D(x, s)."""
    tiling_key, noise_key, second_tiling_key, second_noise_key = jax.random.split(key, 4)
    denoised = problem.denoised(tiling_key, x, noise.sigma)
    fit = problem.fit(problem.residual(problem.frame.crop(denoised)))

    last = noise.sigma_next == 0
    weight, spread = ancestral(noise)
    if settings.predictor == "reverse_diffusion":
        spread = jnp.sqrt(weight) * noise.sigma
    x = towards(noise_key, x, denoised, weight, jnp.where(last, 0, spread))
    x = data_step(problem, x, settings.zeta, settings.step_form, settings.noise / noise.sigma)

    sigma = jnp.where(last, noise.sigma, noise.sigma_next)  # any sigma at which the network can be asked
    score = (problem.denoised(second_tiling_key, x, sigma) - x) / jnp.square(sigma)
    z = jax.random.normal(second_noise_key, x.shape, x.dtype)
    length = jnp.linalg.norm(jnp.ravel(score))
    ratio = settings.snr * jnp.linalg.norm(jnp.ravel(z)) / jnp.where(length > 0, length, 1)
    e = jnp.where(last | (length == 0), 0, 2 * (jnp.square(ratio) if settings.corrector == "song" else ratio))
    moved = x + e * score + jnp.sqrt(2 * e) * z
    corrected = data_step(problem, moved, settings.zeta, settings.step_form, settings.noise / sigma)
    return jnp.where(last, x, corrected), fit
