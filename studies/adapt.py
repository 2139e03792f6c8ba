"""Adapting a prior to one measurement: its parameters follow the residual of its own denoised images.

On falling levels sigma, with x the image so far and theta the parameters of the network,

    z = x + sigma noise
    a few steps of Adam on    ||A D_theta(z, sigma) - y||^2 / ||y||^2,    each with a random tiling
    x <- argmin_u ||A u - y||^2 + weight ||A||^2 ||u - D_theta(z, sigma)||^2,    by conjugate gradients

so that the data step of DDS alternates with training on nothing but y. The idea, for priors of patches whose training
images are of another kind than the measured one, is that of Hu, Song, Fessler and Shen, arXiv 2410.11730. A prior is a
pytree whose arrays are its parameters; patches are denoised in chunks with rematerialisation where the prior says so
(`patch_batch`), so that the memory of a step is that of a chunk.

Cost: a step is an evaluation with its gradient, about three evaluations (four in chunks); a level is one more.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array
from jax.tree_util import keystr, tree_map_with_path
from jax.typing import ArrayLike

from padis_jax.fields import check_count
from padis_jax.noise import geometric_ladder
from padis_jax.prior import Prior
from padis_jax.solvers.estimates import solve_weighted
from padis_jax.solvers.problem import Problem, build_problem


@dataclasses.dataclass(frozen=True)
class Adaptation:
    """Settings.

    Attributes:
      levels: how many.
      sigma_max: first level, in image units.
      sigma_min: last level.
      steps: of Adam on each level.
      learning_rate: of Adam, the same in all steps.
      layers: names of the modules that are adapted begin with one of these; () for all. ("dec0",) are the last ones.
      weight: of the denoised image in the data step, relative to ||A||^2.
      cg_steps: of the data step.

    Raises:
      ValueError: for a value out of range.
    """

    levels: int = 5
    sigma_max: float = 0.1
    sigma_min: float = 0.01
    steps: int = 5
    learning_rate: float = 1e-4
    layers: tuple[str, ...] = ()
    weight: float = 2e-3
    cg_steps: int = 10

    def __post_init__(self) -> None:
        for name in ("levels", "steps", "cg_steps"):
            check_count(name, getattr(self, name))
        if not 0 < self.sigma_min <= self.sigma_max or min(self.learning_rate, self.weight) <= 0:
            raise ValueError(
                f"adaptation: sigma_min {self.sigma_min} must be positive and at most sigma_max {self.sigma_max}, "
                f"learning_rate {self.learning_rate} and weight {self.weight} positive"
            )


class Adapted(NamedTuple):
    """The prior with its new parameters, the last image [H, W, C], and losses [levels, steps] before each step."""

    prior: Prior
    image: Array
    losses: Array


def adapt(
    key: Array,
    prior: Prior,
    operator: Any,
    measurement: ArrayLike,
    start: Array,
    settings: Adaptation = Adaptation(),  # noqa: B008 (frozen)
) -> Adapted:
    """Adapts a prior to a measurement.

    Args:
      key: of noise and tilings.
      prior: whose arrays are the parameters of its network.
      operator: A, as `reconstruct` takes it.
      measurement: y, in the operator's units.
      start: image [H, W, C] to begin from, such as that of total variation.
      settings: how.

    Raises:
      ValueError: for what `build_problem` refuses, and layers that the network does not have.
    """
    problem = build_problem(operator, prior.denoise, measurement, prior.frame, channels=prior.channels)
    optimiser = _optimiser(settings, prior)
    state, image, losses = optimiser.init(prior), jnp.asarray(start, jnp.float32), []
    sigmas = geometric_ladder(settings.levels, settings.sigma_max, settings.sigma_min)
    for level, sigma in enumerate(sigmas):
        key_of_level = jax.random.fold_in(key, level)
        prior, state, image, loss = _level(settings, key_of_level, prior, state, problem, image, jnp.float32(sigma))
        losses.append(loss)
    return Adapted(prior, image, jnp.stack(losses))


@functools.partial(jax.jit, static_argnums=0)
def _level(
    settings: Adaptation, key: Array, prior: Prior, state: Any, problem: Problem, image: Array, sigma: Array
) -> tuple[Prior, Any, Array, Array]:
    """One level: (prior, state of the optimiser, image, losses [steps])."""
    noise_key, steps_key, last_key = jax.random.split(key, 3)
    plane = problem.frame.pad(image)
    noisy = plane + sigma * jax.random.normal(noise_key, plane.shape, jnp.float32)
    optimiser = _optimiser(settings, prior)
    scale = jnp.sum(jnp.square(jnp.abs(problem.measurement)))

    def loss_of(prior: Prior, key: Array) -> Array:
        residual = problem.residual(problem.frame.crop(prior.denoise(key, noisy, sigma)))
        return jnp.sum(jnp.square(jnp.abs(residual))) / jnp.where(scale > 0, scale, 1)

    def step(carry: tuple[Prior, Any], key: Array) -> tuple[tuple[Prior, Any], Array]:
        prior, state = carry
        loss, gradient = jax.value_and_grad(loss_of)(prior, key)
        updates, state = optimiser.update(gradient, state, prior)
        return (optax.apply_updates(prior, updates), state), loss

    (prior, state), losses = jax.lax.scan(step, (prior, state), jax.random.split(steps_key, settings.steps))
    clean = problem.frame.crop(prior.denoise(last_key, noisy, sigma))
    weight = settings.weight * jnp.square(problem.norm)
    right = problem.adjoint(problem.measurement) + weight * clean
    return prior, state, solve_weighted(problem, right, clean, weight, settings.cg_steps), losses


def _optimiser(settings: Adaptation, prior: Prior) -> optax.GradientTransformation:
    """Adam for the chosen layers, nothing for the others."""
    layers = settings.layers

    def label(path: Any, _: Array) -> str:
        return "adapted" if not layers or any(f"['{layer}" in keystr(path) for layer in layers) else "kept"

    labels = tree_map_with_path(label, prior)
    if "adapted" not in jax.tree.leaves(labels):
        raise ValueError(f"adaptation: no layer of the network begins with {' or '.join(layers)}")
    parts = {"adapted": optax.adam(settings.learning_rate), "kept": optax.set_to_zero()}
    return optax.multi_transform(parts, labels)
