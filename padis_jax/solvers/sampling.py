"""The one loop of all solvers: x_0 -> step -> step -> ... along a ladder of noise levels.

A solver gives a step, (key, state, noise) -> (state, info), and nothing else. The loop runs it once per noise level and
inner repetition with keys that are split beforehand, so that neither the progress bar nor its interval changes a
result.

The loop is one program whatever the number of levels and of chunks: its bounds are arguments, and the levels lie in
arrays with room for 1024 steps, or for more by powers of two. So any chunk length is bitwise the same as one go, and
neither another chunk nor another number of levels compiles anything. Within a trace (`jit`, `vmap`, `grad`) it is a
scan over just the steps that there are, which autodiff can run backwards.
"""

from __future__ import annotations

import contextlib
import functools
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.typing import ArrayLike

from padis_jax.devices.memory import Memory, analysed
from padis_jax.errors import UserError
from padis_jax.fields import check_count
from padis_jax.operators.kept import on_forget

CAPACITY = 1024  # steps that the compiled loop has room for, at least
LOOPS = 64  # structures of steps whose compiled loops are kept

State = Any  # a pytree of arrays, for most solvers the padded plane [Hp, Wp, C]
Info = Any  # a pytree of arrays


class Noise(NamedTuple):
    """The noise levels of a step: scalars in a step, arrays [steps] in the loop.

    Attributes:
      sigma: the level that the state has before the step.
      sigma_next: the level that it is to have after the step; 0 after the last one.
      final: whether the step belongs to the lowest level of the ladder.
      left: levels of the ladder below that of the step, 0 at the lowest.
    """

    sigma: Array
    sigma_next: Array
    final: Array | bool = False
    left: Array | int = 0


Step = Callable[[Array, State, Noise], tuple[State, Info]]
Progress = Callable[[int, int, Info], None]  # (steps done, steps in all, info of the last step done)
OnMemory = Callable[[Memory], None]


def noises(ladder: ArrayLike, inner: int = 1) -> Noise:
    """The steps of a ladder.

    Args:
      ladder: [levels], noise levels in descending order, positive.
      inner: steps per level. All but the last of a level keep its sigma.

    Returns:
      Noise of arrays [levels * inner], float32.

    Raises:
      ValueError: if the ladder is empty, not positive or not descending, or inner < 1.
    """
    levels = np.asarray(ladder, np.float32)
    if levels.ndim != 1 or levels.size < 1:
        raise ValueError(f"ladder has shape {levels.shape}: give one noise level per entry, at least one")
    if not (np.all(levels > 0) and np.all(np.diff(levels) < 0)):
        raise ValueError(f"ladder goes from {levels[0]} to {levels[-1]}: noise levels must be positive and descend")
    if inner < 1:
        raise ValueError(f"inner is {inner}: use at least one step per level")
    sigma = np.repeat(levels, inner)
    left = np.repeat(np.arange(levels.size - 1, -1, -1, dtype=np.int32), inner)
    below = np.append(sigma[1:], np.float32(0))
    return Noise(jnp.asarray(sigma), jnp.asarray(below), jnp.asarray(left == 0), jnp.asarray(left))


def run(
    key: Array,
    step: Step,
    state: State,
    noises: Noise,
    *,
    owned: bool = False,
    chunk: int | None = None,
    progress: Progress | None = None,
    on_memory: OnMemory | None = None,
) -> tuple[State, Info]:
    """Runs a step along all noise levels.

    Compiled code is kept per step. A step that is a `jax.tree_util.Partial` shares it between all arrays it may hold; a
    plain function is known by its identity, so make it once.

    Args:
      key: split into one key per step.
      step: (key, state, noise) -> (state, info). The state keeps its structure, shapes and types.
      state: the state before the first step.
      noises: arrays [steps].
      owned: whether the state's arrays are overwritten, which saves a copy of it. They must be different arrays that
        nobody uses afterwards.
      chunk: steps between calls of `progress`; the result does not depend on it. None: all at once, or fifty chunks if
        there is a progress. None without a progress also works under `vmap` and `jit`.
      progress: called after each chunk with (steps done, steps in all, info of the last step). What it raises ends
        the run.
      on_memory: called with the compiled loop's memory before it runs. The loop is not compiled a second time for it.

    Returns:
      The last state, and the infos of all steps stacked along a new first axis.

    Raises:
      UserError: if chunk is no whole number, or less than 1.
    """
    steps = noises.sigma.shape[0]
    if chunk is None:
        chunk = steps if progress is None else -(-steps // 50)
    check_count("chunk", chunk)
    if jax.tree_util.all_leaves([step]):
        step = jax.tree_util.Partial(step)
    keys = jax.random.split(key, steps)
    if any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves((step, keys, state, noises))):
        if progress is not None or on_memory is not None:
            raise ValueError("progress and on_memory cannot be called from within jit, vmap or grad: leave them out")
        return _scan(step, keys, state, noises)
    leaves, structure = jax.tree.flatten(step)
    loop = _loop(jax.random.key_impl(keys), structure)
    before = (leaves, with_room(keys))
    noises = with_room(noises)
    infos = loop.empty_infos(*before, state, noises)
    if not owned:
        state = jax.tree.map(jnp.copy, state)
    if on_memory is not None:
        with contextlib.suppress(UserError):  # a backend that does not tell
            on_memory(analysed(loop.advance.lower(*before, state, noises, infos, 0, chunk).compile()))
    for start in range(0, steps, chunk):
        stop = min(start + chunk, steps)
        state, infos = loop.advance(*before, state, noises, infos, start, stop)
        if progress is not None:
            progress(stop, steps, jax.block_until_ready(jax.tree.map(lambda a, last=stop - 1: a[last], infos)))
    return state, jax.tree.map(lambda a: a[:steps], infos)


def shifted(progress: Progress, done: int, total: int) -> Progress:
    """The progress of a part of a run of `total` steps, before which `done` others are finished."""
    return lambda steps, _, info: progress(done + steps, total, info)


def at(arrays: Any, i: Any) -> Any:
    """Entry i of each array."""
    return jax.tree.map(lambda a: a[i], arrays)


def with_room(arrays: Any) -> Any:
    """[steps, ...] filled up to the capacity; what is added is not looked at. Keys become their data."""

    def filled(a: Array) -> Array:
        data = jax.random.key_data(a) if jnp.issubdtype(a.dtype, jax.dtypes.prng_key) else jnp.asarray(a)
        room = max(CAPACITY, 1 << (len(data) - 1).bit_length()) - len(data)
        return jnp.pad(data, ((0, room), *((0, 0),) * (data.ndim - 1)))

    return jax.tree.map(filled, arrays)


@jax.jit
def call(step: Step, key: Array, state: State, noise: Noise) -> tuple[State, Info]:
    """A step."""
    return step(key, state, noise)  # jitted so that the shapes below and the loop share one trace of the network


class _Loop(NamedTuple):
    """The compiled parts of a loop: (leaves of the step, keys, state, noises) -> infos, and the steps of a chunk."""

    empty_infos: Any
    advance: Any


_loops: OrderedDict[Any, _Loop] = OrderedDict()  # of the structures that ran lately
on_forget(_loops.clear)


def _loop(impl: Any, structure: Any) -> _Loop:
    """Of the steps of a structure, whose arrays are arguments.

    The functions that a structure holds would stay in a cache of jax, which nothing clears, if a call that is given
    buffers to overwrite took them as an argument.
    """
    if (impl, structure) not in _loops:
        _loops[impl, structure] = _new_loop(impl, structure)
    _loops.move_to_end((impl, structure))
    if len(_loops) > LOOPS:
        _loops.popitem(last=False)
    return _loops[impl, structure]


def _new_loop(impl: Any, structure: Any) -> _Loop:
    def stepped(step: Step, keys: Array, state: State, noises: Noise, i: Any) -> tuple[State, Info]:
        return call(step, key_at(keys, i, impl), state, at(noises, i))

    @jax.jit
    def empty_infos(leaves: Any, keys: Array, state: State, noises: Noise) -> Info:
        step = jax.tree.unflatten(structure, leaves)
        _, info = jax.eval_shape(lambda: stepped(step, keys, state, noises, 0))
        return jax.tree.map(lambda a: jnp.zeros((keys.shape[0], *a.shape), a.dtype), info)

    @functools.partial(jax.jit, donate_argnames=("state", "infos"))
    def advance(
        leaves: Any, keys: Array, state: State, noises: Noise, infos: Info, start: ArrayLike, stop: ArrayLike
    ) -> tuple[State, Info]:
        step = jax.tree.unflatten(structure, leaves)

        def body(i: Array, carry: tuple[State, Info]) -> tuple[State, Info]:
            state, infos = carry
            state, info = stepped(step, keys, state, noises, i)
            return state, jax.tree.map(lambda every, a: every.at[i].set(a), infos, info)

        return lax.fori_loop(jnp.int32(start), jnp.int32(stop), body, (state, infos))

    return _Loop(empty_infos, advance)


def key_at(data: Array, i: Any, impl: Any) -> Array:
    """Key i of the data that `with_room` makes of keys."""
    return jax.random.wrap_key_data(data[i], impl=impl)


@jax.jit
def _scan(step: Step, keys: Array, state: State, noises: Noise) -> tuple[State, Info]:
    return lax.scan(lambda state, given: call(step, given[0], state, given[1]), state, (keys, noises))
