"""Chains side by side: the loop of `sampling` under `vmap`, and that split over devices.

As there it is one program for every number of levels: keys and levels have room for more, and their number is an
argument. So it cannot be differentiated in reverse; `reconstruct` under `vmap` can.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from padis_jax.devices.memory import analysed
from padis_jax.devices.mesh import AXIS
from padis_jax.errors import UserError
from padis_jax.operators.kept import on_forget
from padis_jax.solvers.chain import Chain
from padis_jax.solvers.sampling import Noise, OnMemory, at, call, key_at, with_room

Begin = Callable[..., Chain]  # (key, own, shared, noises, *options) -> Chain


def run_side_by_side(
    keys: tuple[Array | None, Array],
    begin: Begin,
    own: Any,
    shared: Any,
    noises: Noise,
    *options: Any,
    mesh: Mesh | None = None,
    on_memory: OnMemory | None = None,
) -> tuple[Array, Array]:
    """Runs n chains along all noise levels.

    Args:
      keys: [n], for what is drawn at the start, or None where nothing is, and [n] for the steps.
      begin: makes a chain within the trace; a function of a module, by which the program is known.
      own: a pytree of arrays [n, ...], of each chain.
      shared: a pytree of arrays of all chains.
      noises: arrays [steps].
      options: hashable arguments of `begin`.
      mesh: devices that share the chains, n being a multiple of their number.
      on_memory: called with the memory of the compiled program before it runs.

    Returns:
      Images [n, ...] and the residuals of all steps [n, steps].
    """
    steps = noises.sigma.shape[0]
    of_steps = jax.vmap(lambda key: with_room(jax.random.split(key, steps)))(keys[1])
    program = _program(begin, options, jax.random.key_impl(keys[1]), mesh)
    arguments = (keys[0], of_steps, own, shared, with_room(noises), steps)
    if on_memory is not None:
        with contextlib.suppress(UserError):  # a backend that does not tell
            on_memory(analysed(program.lower(*arguments).compile()))
    images, residuals = program(*arguments)
    return images, residuals[:, :steps]


@functools.lru_cache(maxsize=16)
def _program(begin: Begin, options: tuple[Any, ...], impl: Any, mesh: Mesh | None) -> Any:
    def several(
        keys: Array | None, of_steps: Array, own: Any, shared: Any, noises: Noise, steps: Any
    ) -> tuple[Array, Array]:
        def one(key: Array | None, of_steps: Array, own: Any) -> tuple[Array, Array]:
            chain = begin(key, own, shared, noises, *options)

            def step(state: Any, i: Any) -> tuple[Any, Array]:
                state, info = call(chain.step, key_at(of_steps, i, impl), state, at(chain.noises, i))
                return state, info.residual

            def body(i: Array, carry: tuple[Any, Array]) -> tuple[Any, Array]:
                state, residual = step(carry[0], i)
                return state, carry[1].at[i].set(residual)

            residual = jax.eval_shape(lambda: step(chain.state, 0))[1]
            residuals = jnp.zeros((of_steps.shape[0], *residual.shape), residual.dtype)
            state, residuals = lax.fori_loop(jnp.int32(0), jnp.int32(steps), body, (chain.state, residuals))
            return chain.image(state), residuals

        return jax.vmap(one)(keys, of_steps, own)

    if mesh is None:
        return jax.jit(several)
    each, whole = P(AXIS), P()
    specs = (each, each, each, whole, whole, whole)
    return jax.jit(jax.shard_map(several, mesh=mesh, in_specs=specs, out_specs=each, check_vma=False))


on_forget(_program.cache_clear)
