"""One training step as a pure function: loss, gradient, Adam, exponential moving average, and the guard against NaN.

    lr(step) = peak * (linear warm-up, then cosine decay to final_fraction)
    ema <- d ema + (1 - d) params,   d = 2^(-batch / min(half_life, ramp * patches seen))

The parameters that sample are the average. Randomness is fold_in(key, step): a resumed run draws what an uninterrupted
one would have drawn. training_loop.py has the loop.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array

from padis_jax.config import OptimiserConfig
from padis_jax.unet import NetworkConfig, Params, init_network

Loss = Callable[..., Array]
"""(params, key, *batch) -> scalar; equal ones share compiled code (`loss.DenoisingLoss` is hashable by value)."""


class TrainState(NamedTuple):
    """What a checkpoint holds: step int32 [], patches seen float32 [], parameters, their average, Adam's moments."""

    step: Array
    seen: Array
    params: Params
    ema: Params
    optimiser: Any


class Metrics(NamedTuple):
    """Scalars of one step: loss, global gradient norm before clipping, learning rate, whether the step was refused.

    On the way to a hook: NumPy arrays [n] of n steps.
    """

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


def init_state(params: Params, optimiser: OptimiserConfig) -> TrainState:
    """The state before the first step; it holds copies of `params`, because a step takes its state's memory."""
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        seen=jnp.zeros((), jnp.float32),
        params=jax.tree.map(jnp.copy, params),
        ema=jax.tree.map(jnp.copy, params),
        optimiser=make_optimiser(optimiser, 1).init(params),  # moments do not depend on the schedule
    )


def state_shapes(network: NetworkConfig, optimiser: OptimiserConfig) -> TrainState:
    """Shapes and types of a prior's state, which `checkpoint.restore` asks for; nothing is computed."""
    return jax.eval_shape(lambda: init_state(init_network(jax.random.key(0), network), optimiser))


def step(
    loss: Loss, optimiser: OptimiserConfig, steps: int, key: Array, state: TrainState, *batch: Array
) -> tuple[TrainState, Metrics]:
    """One step on a batch.

    A step whose loss or gradient is not finite is refused: parameters, average and moments stay as they were, and
    `refused` is set so that the caller can stop.

    Args:
      loss: (params, key, *batch) -> scalar; static under jit, as are the next two.
      optimiser: Adam's settings and the average's.
      steps: where the learning rate ends.
      key: of the run; the step draws from fold_in(key, state.step).
      state: before the step.
      batch: arrays [b, ...]; for `DenoisingLoss` clean patches [b, p, p, c] and positions [b, p, p, 2].

    Returns:
      The next state and the step's metrics.
    """
    value, grads = jax.value_and_grad(loss)(state.params, jax.random.fold_in(key, state.step), *batch)
    norm = optax.tree.norm(grads)
    updates, moments = make_optimiser(optimiser, steps).update(grads, state.optimiser, state.params)
    params = optax.apply_updates(state.params, updates)
    count = batch[0].shape[0]
    seen = state.seen + count
    decay = jnp.exp2(-count / jnp.minimum(optimiser.ema_half_life, optimiser.ema_ramp * seen))
    ema = jax.tree.map(lambda old, new: decay * old + (1 - decay) * new, state.ema, params)

    good = jnp.isfinite(value) & jnp.isfinite(norm)
    proposed = TrainState(state.step, seen, params, ema, moments)
    kept = jax.tree.map(functools.partial(jnp.where, good), proposed, state)
    rate = learning_rate(optimiser, steps)(state.step)
    return kept._replace(step=state.step + 1), Metrics(value, norm, jnp.asarray(rate, jnp.float32), ~good)


train_step = jax.jit(step, static_argnums=(0, 1, 2), donate_argnums=4)
"""`step` compiled for one device, once per loss, optimiser, steps and shape of the batch; the state is donated."""
