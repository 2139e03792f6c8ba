"""The training loop: step after step, without waiting for the device, and hooks in between.

A batch is a function of the step's number, and so is the randomness of a step: a run that is resumed from a saved state
ends as one that was not interrupted.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax import Array

from padis_jax.errors import UserError
from padis_jax.keys import root_key
from padis_jax.training import Metrics, TrainState

FETCH_EVERY = 50  # steps after which metrics are fetched though no hook is due


class Hook(NamedTuple):
    """Something that happens between steps of `fit`.

    Attributes:
      due: (steps done, steps in all) -> whether it happens now; asked after every step, in mid-computation.
      call: (state, metrics of the steps since the last call). The state lasts until the next step: copy it to keep it.
    """

    due: Callable[[int, int], object]
    call: Callable[[TrainState, Metrics], object]


def every(count: int) -> Callable[[int, int], bool]:
    """For `Hook.due`: after every `count` steps, and after the last."""
    return lambda done, steps: done == steps or done % count == 0


def fit(
    key: Array | int,
    state: TrainState,
    batches: Callable[[int], Sequence[Any]],
    step: Callable[..., tuple[TrainState, Metrics]],
    steps: int,
    hooks: Sequence[Hook] = (),
) -> TrainState:
    """Trains from the state's step to `steps`.

    >>> import jax, numpy as np
    >>> from functools import partial
    >>> from padis_jax.batches import PatchConfig, draw_batch
    >>> from padis_jax.config import OptimiserConfig
    >>> from padis_jax.loss import DenoisingLoss
    >>> from padis_jax.training import init_state, train_step
    >>> from padis_jax.training_loop import Hook, every, fit
    >>> from padis_jax.unet import NetworkConfig, init_network
    >>> images = np.random.default_rng(0).random((5, 16, 16, 1), np.float32)
    >>> patches = PatchConfig(sizes=(8,), probabilities=(1.0,), batch=(4,))
    >>> network = NetworkConfig(model_channels=8, channel_mult=(1,), num_blocks=1)
    >>> optimiser = OptimiserConfig(warmup_steps=0)
    >>> state = fit(
    ...     jax.random.key(1),
    ...     init_state(init_network(jax.random.key(0), network), optimiser),
    ...     lambda step: draw_batch(images, patches, 0, step),
    ...     partial(train_step, DenoisingLoss(network), optimiser, 2),
    ...     steps=2,
    ...     hooks=[Hook(every(1), lambda state, metrics: print(int(state.step), metrics.loss.shape))],
    ... )
    1 (1,)
    2 (1,)
    >>> float(state.seen)  # patches; state.ema are the parameters that sample
    8.0

    Args:
      key: of the run, or an int for jax.random.key(int).
      state: where to begin; its memory is given to the first step.
      batches: number of a step, from 0 -> its batch.
      step: (key, state, *batch) -> (state, metrics): `train_step` with its static arguments bound, or `step` compiled
        for a mesh (devices/parallel.py).
      steps: steps in all.
      hooks: called in this order where they are due. An exception in one ends the run.

    Returns:
      The state after the last step.

    Raises:
      UserError: for a key that is none; if a step was refused, before any hook sees the state after it.
    """
    key = root_key(key)
    pending: list[Metrics] = []  # on the device, which is waited for only where a hook is due
    since: list[list[Metrics]] = [[] for _ in hooks]
    for number in range(int(state.step), steps):
        state, metrics = step(key, state, *batches(number))
        pending.append(metrics)
        done = number + 1
        due = [index for index, hook in enumerate(hooks) if hook.due(done, steps)]
        if due or done == steps or len(pending) == FETCH_EVERY:
            fetched = jax.device_get(pending)
            _check(fetched, done)
            pending = []
            for kept in since:
                kept += fetched
        for index in due:
            hooks[index].call(state, jax.tree.map(lambda *values: np.stack(values), *since[index]))
            since[index] = []
    return state


def _check(fetched: Sequence[Metrics], done: int) -> None:
    refused = [bool(metrics.refused) for metrics in fetched]
    if any(refused):
        raise UserError(
            f"the loss or its gradient stopped being finite at step {done - len(refused) + refused.index(True) + 1}; "
            "the step was not taken into the parameters or their average. Lower optimiser.learning_rate or "
            "optimiser.clip_norm, or check the images, and resume from the newest checkpoint"
        )
