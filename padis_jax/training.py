"""One training step as a pure function: loss, gradient, Adam, exponential moving average, and the guard against NaN.

    lr(step) = peak * (linear warm-up, then cosine decay to final_fraction)
    ema <- d ema + (1 - d) params,   d = 2^(-batch / min(half_life, ramp * patches seen))

The parameters that sample are the average. Randomness is fold_in(key(seed), step): a resumed run draws what an
uninterrupted one would have drawn.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array

from padis_jax.config import Config, OptimiserConfig
from padis_jax.loss import denoising_loss
from padis_jax.unet import Params, init_network


class TrainState(NamedTuple):
    """What a checkpoint holds: step int32 [], patches seen float32 [], parameters, their average, Adam's moments."""

    step: Array
    seen: Array
    params: Params
    ema: Params
    optimiser: Any


class Metrics(NamedTuple):
    """Scalars of one step: loss, global gradient norm before clipping, learning rate, whether the step was refused."""

    loss: Array
    grad_norm: Array
    learning_rate: Array
    refused: Array


def learning_rate(config: OptimiserConfig, steps: int) -> optax.Schedule:
    """Step -> learning rate."""
    warmup = min(config.warmup_steps, max(steps - 1, 0))
    return optax.warmup_cosine_decay_schedule(
        init_value=0.0 if warmup else config.learning_rate,
        peak_value=config.learning_rate,
        warmup_steps=warmup,
        decay_steps=max(steps, warmup + 1),
        end_value=config.learning_rate * config.final_fraction,
    )


def make_optimiser(config: OptimiserConfig, steps: int) -> optax.GradientTransformation:
    """Clipping by the global norm, then Adam."""
    adam = optax.adam(learning_rate(config, steps))
    return optax.chain(optax.clip_by_global_norm(config.clip_norm), adam) if config.clip_norm else adam


def init_state(config: Config, params: Params | None = None) -> TrainState:
    """The state before the first step: of these parameters, or of random ones from the config's seed."""
    if params is None:
        params = init_network(jax.random.fold_in(jax.random.key(config.run.seed), 0), config.network)
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        seen=jnp.zeros((), jnp.float32),
        params=params,
        ema=jax.tree.map(jnp.copy, params),  # a buffer of its own: the state is donated
        optimiser=make_optimiser(config.optimiser, config.run.steps).init(params),
    )


def step(config: Config, state: TrainState, patches: Array, positions: Array) -> tuple[TrainState, Metrics]:
    """One step on a batch.

    A step whose loss or gradient is not finite is refused: parameters, average and moments stay as they were, and
    `refused` is set so that the caller can stop.

    Args:
      config: static under jit.
      state: before the step.
      patches: [b, p, p, c], clean.
      positions: [b, p, p, 2].

    Returns:
      The next state and the step's metrics.
    """
    key = jax.random.fold_in(jax.random.fold_in(jax.random.key(config.run.seed), 1), state.step)
    loss, grads = jax.value_and_grad(
        lambda params: denoising_loss(key, config.network, config.noise, params, patches, positions)
    )(state.params)
    norm = optax.tree.norm(grads)
    updates, moments = make_optimiser(config.optimiser, config.run.steps).update(grads, state.optimiser, state.params)
    params = optax.apply_updates(state.params, updates)
    seen = state.seen + patches.shape[0]
    half_life = jnp.minimum(config.optimiser.ema_half_life, config.optimiser.ema_ramp * seen)
    decay = jnp.exp2(-patches.shape[0] / half_life)
    ema = jax.tree.map(lambda old, new: decay * old + (1 - decay) * new, state.ema, params)

    good = jnp.isfinite(loss) & jnp.isfinite(norm)
    proposed = TrainState(state.step, seen, params, ema, moments)
    kept = jax.tree.map(functools.partial(jnp.where, good), proposed, state)
    rate = learning_rate(config.optimiser, config.run.steps)(state.step)
    return kept._replace(step=state.step + 1), Metrics(loss, norm, jnp.asarray(rate), ~good)


train_step = jax.jit(step, static_argnums=0, donate_argnums=1)
"""`step` compiled for one device, once per patch size; the state is donated."""
