"""Several reconstructions at once: the images of a batch side by side, split over devices.

`reconstruct` under `vmap` over keys, measurements, starts and settings, and that under `shard_map` over the images:
each device works on its own and nothing is exchanged. The operator and the prior are the same for all.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from padis_jax.devices.memory import analysed
from padis_jax.devices.mesh import AXIS
from padis_jax.errors import UserError
from padis_jax.prior import Prior
from padis_jax.solvers.checks import check_operator, check_prior, checked
from padis_jax.solvers.problem import as_pytree
from padis_jax.solvers.reconstruct import reconstruct
from padis_jax.solvers.registry import Settings
from padis_jax.solvers.sampling import OnMemory


class Reconstructions(NamedTuple):
    """images [n, H, W, C] as `reconstruct` gives them, residual [n, levels]."""

    images: Array
    residual: Array


def reconstruct_batch(
    keys: Array,
    measurements: Array,
    operator: Any,
    prior: Prior,
    *,
    settings: Sequence[Settings],
    starts: Array,
    noise_std: Array | None = None,
    mesh: Mesh | None = None,
    on_memory: OnMemory | None = None,
    **options: Any,
) -> Reconstructions:
    """Reconstructs n images from n measurements of one operator.

    Args:
      keys: [n]; a result depends on its own key only, not on the batch.
      measurements: [n, ...].
      operator: as in `reconstruct`.
      prior: as in `reconstruct`; without a mesh of its own.
      settings: n settings of one solver; they may differ in their real-valued fields.
      starts: [n, H, W, C], images to start from.
      noise_std: [n] or [n, ...], of the noise of the measurements, as in `reconstruct`; not looked at.
      mesh: devices that share the images; n is filled up to a multiple of their number with copies of the last.
      on_memory: called with the memory of the compiled program before it runs.
      options: `levels`, `inner`, `sigma_max`, `sigma_min`, `ladder`, `start_noise`, `average` of
        `reconstruct`.

    Returns:
      The n images and their residuals.

    Raises:
      ValueError: if n differs between the arguments, or for what `reconstruct` refuses.
    """
    check_operator(operator)
    check_prior(prior)
    measurements, starts = checked("measurements", measurements), checked("starts", starts)  # no value is, in a trace
    counts = (len(keys), len(measurements), len(settings), len(starts))
    if len(set(counts)) > 1 or counts[0] == 0:
        raise ValueError(f"keys, measurements, settings and starts have {counts} entries: give the same number of each")
    stacked = jax.tree.map(lambda *leaves: jnp.stack([jnp.asarray(leaf, jnp.float32) for leaf in leaves]), *settings)
    extra = 0 if mesh is None else -counts[0] % mesh.size
    arguments = jax.tree.map(
        lambda a: jnp.concatenate([a, jnp.repeat(a[-1:], extra, axis=0)]) if extra else a,
        (keys, measurements, starts, stacked, noise_std),
    )
    if not isinstance(ladder := options.get("ladder", ""), str):
        options["ladder"] = tuple(np.ravel(ladder).tolist())  # levels by themselves, as what a program is known by
    compiled = _compiled(mesh, tuple(sorted(options.items())))
    arguments = (*arguments, as_pytree(operator), prior)
    if on_memory is not None:
        with contextlib.suppress(UserError):  # a backend that does not tell
            on_memory(analysed(compiled.lower(*arguments).compile()))
    found = compiled(*arguments)
    return Reconstructions(*(a[: counts[0]] for a in found))


@functools.lru_cache(maxsize=16)
def _compiled(mesh: Mesh | None, options: tuple[tuple[str, Any], ...]) -> Any:
    def several(
        keys: Array, ys: Array, starts: Array, settings: Settings, noise: Array | None, operator: Any, prior: Prior
    ) -> Any:
        def one(key: Array, y: Array, start: Array, settings: Settings, std: Array | None) -> tuple[Array, Array]:
            result = reconstruct(key, y, operator, prior, solver=settings, start=start, noise_std=std, **dict(options))
            return result.image, result.residual

        return jax.vmap(one)(keys, ys, starts, settings, noise)

    if mesh is None:
        return jax.jit(several)
    each, whole = P(AXIS), P()
    specs = (each, each, each, each, each, whole, whole)
    return jax.jit(jax.shard_map(several, mesh=mesh, in_specs=specs, out_specs=each, check_vma=False))
