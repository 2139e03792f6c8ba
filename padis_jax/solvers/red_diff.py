"""RED-diff: the variational form of diffusion posterior sampling (Mardani et al., ICLR 2024, arXiv 2305.04391,
algorithm 1), in the variance-exploding form.

A Gaussian around mu is fitted to the posterior by Adam, one noise level an iteration, from the highest down:

    D = denoise(pad(mu) + sigma z, sigma),   z standard normal
    g = A*(A mu - y) / ||A||^2 + weight (mu - D)
    mu <- mu - learning_rate Adam(g)

mu - D = sigma (e - z), where e = (mu + sigma z - D) / sigma is the network's estimate of the noise: the paper's
gradient with its weight lambda sigma, the inverse of the square root of the signal-to-noise ratio. Unlike plug-and-play
RED it adds noise before the denoiser, and its data term is a gradient step. A step of Adam is about as long as
`learning_rate` whatever the gradient, so that few iterations want a larger one, and the image keeps noise of that size.

Cost per iteration: one evaluation, no gradient; one A and one A*.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import optax
from jax import Array

from padis_jax.solvers.checks import check_settings
from padis_jax.solvers.problem import Fit, Problem
from padis_jax.solvers.sampling import Noise

_ADAM = optax.scale_by_adam(b1=0.9, b2=0.99)
State = tuple[Array, optax.ScaleByAdamState]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class REDDiff:
    """Settings. The real-valued ones are arguments of the compiled step, so a search over them compiles once.

    Source: Mardani et al., arXiv 2305.04391, algorithm 1: mu follows Adam along A* (A mu - y) / ||A||^2 + weight
    (mu - D).

    >>> import padis_jax as pj
    >>> pj.REDDiff(weight=0.1).weight  # reconstruct(key, y, A, prior, solver=...)
    0.1

    Attributes:
      weight: lambda, of the prior against the data term, which is divided by ||A||^2.
      learning_rate: of Adam, in image units.

    Raises:
      ValueError: for a field of another type or outside of its interval: weight (0, inf], learning_rate (0, inf].
    """

    weight: float | Array = 0.02
    learning_rate: float | Array = 0.005

    def __post_init__(self) -> None:
        check_settings(self, weight="(0, inf]", learning_rate="(0, inf]")


def begin(settings: REDDiff, image: Array) -> State:
    """mu and Adam's moments before the first iteration."""
    return image, _ADAM.init(image)  # type: ignore[return-value]


def image(state: State) -> Array:
    """The result, mu."""
    return state[0]


def step(settings: REDDiff, problem: Problem, key: Array, state: State, noise: Noise) -> tuple[State, Fit]:
    """One iteration on mu [H, W, C] and Adam's moments. Reports the residual of mu before it."""
    mean, moments = state
    tiling_key, noise_key = jax.random.split(key)
    plane = problem.frame.pad(mean)
    noisy = plane + noise.sigma * jax.random.normal(noise_key, plane.shape, plane.dtype)
    denoised = problem.frame.crop(problem.denoised(tiling_key, noisy, noise.sigma))
    residual = problem.residual(mean)
    gradient = settings.weight * (mean - denoised) - problem.adjoint(residual) / jnp.square(problem.norm)
    with jax.numpy_dtype_promotion("standard"):  # Optax counts its steps in integers
        update, moments = _ADAM.update(gradient, moments)
    return (mean - settings.learning_rate * update, moments), problem.fit(residual)
