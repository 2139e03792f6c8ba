"""A plain training loop for the networks that are compared with: Adam with linear warm-up and cosine decay.

(The prior has its own, with an average of the parameters and checkpoints: training.py.)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array

from padis_jax.errors import UserError
from padis_jax.unet import Params

Loss = Callable[..., Array]  # (params, key, *batch) -> scalar


def fit(
    loss: Loss,
    params: Params,
    draw: Callable[[int], tuple[Any, ...]],
    *,
    steps: int,
    learning_rate: float = 1e-3,
    seed: int = 0,
    progress: Callable[[int, float], None] | None = None,
) -> tuple[Params, np.ndarray]:
    """Minimises a loss.

    Args:
      loss: (params, key, *batch) -> scalar.
      params: a nested dict of float32 arrays; left as they are.
      draw: number of a step -> its batch, arrays of the same shapes for every step.
      steps: training steps.
      learning_rate: the peak, after a tenth of the steps (at most 500); it falls to a hundredth.
      seed: step i passes fold_in(key(seed), i) to the loss.
      progress: called after each step with (steps done, loss).

    Returns:
      The parameters after the last step, and the loss of each step [steps].

    Raises:
      ValueError: if steps < 1 or the rate is not positive.
      UserError: if the loss stops being finite.
    """
    if steps < 1 or not learning_rate > 0:
        raise ValueError(f"fit: steps {steps} must be at least 1 and learning_rate {learning_rate} positive")
    warmup = min(500, steps // 10)
    rate = optax.warmup_cosine_decay_schedule(
        learning_rate / max(warmup, 1), learning_rate, warmup, max(steps, warmup + 1), learning_rate / 100
    )
    optimiser = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(rate))

    @jax.jit
    def advance(params: Params, moments: Any, key: Array, batch: tuple[Any, ...]) -> tuple[Params, Any, Array]:
        value, gradient = jax.value_and_grad(loss)(params, key, *batch)
        updates, moments = optimiser.update(gradient, moments, params)
        return optax.apply_updates(params, updates), moments, value

    moments, losses = optimiser.init(params), np.empty(steps, np.float32)
    for i in range(steps):
        batch = jax.tree.map(jnp.asarray, draw(i))
        params, moments, value = advance(params, moments, jax.random.fold_in(jax.random.key(seed), i), batch)
        losses[i] = value
        if not np.isfinite(losses[i]):
            raise UserError(f"the loss stopped being finite at step {i + 1}: lower the learning rate")
        if progress is not None:
            progress(i + 1, float(losses[i]))
    return params, losses
