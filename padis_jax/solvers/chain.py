"""One run of a method: from an image to the state of its first step, and from the last state to the image."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
from jax import Array
from jax.tree_util import Partial

from padis_jax.solvers.problem import Problem
from padis_jax.solvers.registry import Settings, find_method, name_of
from padis_jax.solvers.sampling import Noise, State, Step
from padis_jax.solvers.volumes import VolumeProblem, step_at


class Chain(NamedTuple):
    """A run that has not begun.

    Attributes:
      step: of the method, on the problem.
      state: before the first step.
      noises: the levels that the method runs along.
      image: state -> image [H, W, C], or volume.
    """

    step: Step
    state: State
    noises: Noise
    image: Callable[[State], Array]


def begin(
    key: Array | None, settings: Settings, problem: Problem, image: Array, noises: Noise, start_noise: bool
) -> Chain:
    """The run of a method from an image.

    Args:
      key: of the noise that is added to the image; None where none is.
      settings: of the method.
      problem: what is solved.
      image: [H, W, C], or a volume.
      noises: arrays of levels, of which plug-and-play takes that of its settings if there is one.
      start_noise: whether noise of the first level is added; never where the state holds none.
    """
    method = find_method(name_of(settings))
    step: Step = Partial(method.step, settings, problem)
    if isinstance(problem, VolumeProblem) and problem.frame.skip > 1:
        step = Partial(step_at, Partial(method.step, settings), problem)
    if method.begin is not None and method.image is not None:
        fixed = getattr(settings, "sigma", jnp.float32(0))
        sigma, sigma_next = (jnp.where(fixed > 0, fixed, s) for s in (noises.sigma, noises.sigma_next))
        return Chain(
            step, method.begin(settings, image), noises._replace(sigma=sigma, sigma_next=sigma_next), method.image
        )
    x = problem.frame.pad(image)
    if start_noise and key is not None:
        x = x + noises.sigma[0] * problem.drawn(key, x)
    return Chain(step, x, noises, problem.frame.crop)
