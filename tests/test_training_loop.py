"""The training loop: hooks come when they are due, a resumed run is an uninterrupted one, refused steps end it."""

import doctest
import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from padis_jax import training_loop
from padis_jax.config import OptimiserConfig
from padis_jax.errors import UserError
from padis_jax.training import init_state, train_step
from padis_jax.training_loop import FETCH_EVERY, Hook, every, fit

OPTIMISER = OptimiserConfig(learning_rate=0.1, warmup_steps=2, ema_half_life=10)
KEY = jax.random.key(7)


def line(params, key, x, y):
    """A straight line through noisy points."""
    return jnp.mean((params["a"] * x + params["b"] - y + 0.1 * jax.random.normal(key, x.shape)) ** 2)


def points(number):
    x = np.random.default_rng(number).random(4, np.float32)
    return x, 3 * x - 1


def start():
    return init_state({"a": jnp.zeros(1), "b": jnp.zeros(1)}, OPTIMISER)


def train(steps, state=None, hooks=(), batches=points):
    step = functools.partial(train_step, line, OPTIMISER, 300)
    return fit(KEY, start() if state is None else state, batches, step, steps, hooks)


@pytest.mark.slow
def test_the_example_of_the_docstring():
    found = doctest.testmod(training_loop)
    assert found.attempted >= 10 and found.failed == 0


def test_it_learns_and_stays_where_it_is_when_nothing_is_left():
    state = train(300)
    np.testing.assert_allclose([state.params["a"][0], state.params["b"][0]], [3, -1], atol=0.2)
    assert train(300, state) is state


def test_every_hook_sees_the_metrics_of_every_step_once_and_the_last_step():
    seen = {3: [], 5: [], 1: []}

    def look(count, state, metrics):
        assert all(isinstance(values, np.ndarray) for values in metrics)
        seen[count].append((int(state.step), metrics.loss.tolist()))

    train(11, hooks=[Hook(every(count), functools.partial(look, count)) for count in seen])
    assert [done for done, _ in seen[3]] == [3, 6, 9, 11] and [done for done, _ in seen[5]] == [5, 10, 11]
    losses = {count: [loss for _, values in lines for loss in values] for count, lines in seen.items()}
    assert losses[1] == losses[3] == losses[5] and len(set(losses[1])) == 11


def test_a_resumed_run_is_an_uninterrupted_one(monkeypatch):
    """Bit for bit, from what a hook saved; it is asked for the batches that are left, and no other."""
    saved, asked = [], []

    def batches(number):
        asked.append(number)
        return points(number)

    whole = train(6, hooks=[Hook(lambda done, _: done == 4, lambda state, _: saved.append(jax.device_get(state)))])
    resumed = train(6, jax.tree.map(jnp.array, saved[0]), batches=batches)
    chex.assert_trees_all_equal(jax.device_get(resumed), jax.device_get(whole))
    assert asked == [4, 5]


@pytest.mark.parametrize(("hooks", "fetches"), [(2, [2, 2, 1]), (0, [FETCH_EVERY, FETCH_EVERY, 20])])
def test_the_device_is_waited_for_only_where_a_hook_is_due(monkeypatch, hooks, fetches):
    """Metrics are fetched for all hooks at once; without hooks now and then, for what was refused."""
    found, original = [], jax.device_get
    monkeypatch.setattr(jax, "device_get", lambda tree: found.append(len(tree)) or original(tree))
    train(sum(fetches), hooks=[Hook(every(2), lambda state, metrics: None)] * hooks)
    assert found == fetches


def test_a_refused_step_ends_the_run_before_any_hook_sees_it():
    saved = []

    def batches(number):
        x, y = points(number)
        return x, y * (np.nan if number == 4 else 1)

    with pytest.raises(UserError, match="stopped being finite at step 5;.*learning_rate"):
        train(9, hooks=[Hook(every(3), lambda state, _: saved.append(int(state.step)))], batches=batches)
    assert saved == [3]
