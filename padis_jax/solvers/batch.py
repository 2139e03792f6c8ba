"""Several reconstructions at once: the images of a batch side by side, split over devices.

Chains side by side over keys, measurements, starts and settings, and that under `shard_map` over the images: each
device works on its own and nothing is exchanged. The operator and the prior are the same for all.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import Mesh

from padis_jax.fields import check_count
from padis_jax.keys import root_key
from padis_jax.prior import Prior
from padis_jax.solvers.chain import Chain, begin
from padis_jax.solvers.checks import check_operator, check_prior, checked
from padis_jax.solvers.ladder import sigmas_of
from padis_jax.solvers.problem import as_pytree
from padis_jax.solvers.reconstruct import keys_of_chain, of_levels, posed
from padis_jax.solvers.registry import Settings, find_method, name_of
from padis_jax.solvers.sampling import Noise, OnMemory, noises
from padis_jax.solvers.side_by_side import run_side_by_side


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
    levels: int = 100,
    inner: int = 1,
    sigma_max: float | None = None,
    sigma_min: float | None = None,
    ladder: Literal["geometric", "edm"] | Sequence[float] | np.ndarray = "geometric",
    start_noise: bool = True,
    average: int = 1,
    mesh: Mesh | None = None,
    on_memory: OnMemory | None = None,
) -> Reconstructions:
    """Reconstructs n images from n measurements of one operator.

    It cannot be differentiated in reverse, as its loop has any number of levels; `reconstruct` under `vmap` can.

    Args:
      keys: [n]; a result depends on its own key only, not on the batch.
      measurements: [n, ...].
      operator: as in `reconstruct`.
      prior: as in `reconstruct`; without a mesh of its own.
      settings: n settings of one solver; they may differ in their real-valued fields.
      starts: [n, H, W, C], images to start from.
      noise_std: [n] or [n, ...], of the noise of the measurements, as in `reconstruct`; not looked at.
      levels: as in `reconstruct`, and so are those that follow.
      inner: steps per level.
      sigma_max: first noise level.
      sigma_min: last noise level.
      ladder: spacing, or the levels themselves.
      start_noise: whether noise is added to the starts.
      average: independent chains of each image, one after the other.
      mesh: devices that share the images; n is filled up to a multiple of their number with copies of the last.
      on_memory: called with the memory of the compiled program before it runs.

    Returns:
      The n images and their residuals.

    Raises:
      ValueError: if n differs between the arguments, or for what `reconstruct` refuses.
    """
    check_operator(operator)
    check_prior(prior)
    check_count("average", average)
    measurements, starts = checked("measurements", measurements), checked("starts", starts)  # no value is, in a trace
    counts = (len(keys), len(measurements), len(settings), len(starts))
    if len(set(counts)) > 1 or counts[0] == 0:
        raise ValueError(f"keys, measurements, settings and starts have {counts} entries: give the same number of each")
    method = find_method(name_of(settings[0]))
    if method.begin is not None and average > 1:
        raise ValueError(f"average is {average}, but runs of {method.label} {method.alone}: use 1")
    steps = noises(sigmas_of(ladder, levels, inner, sigma_max, sigma_min, method), inner)
    stacked = jax.tree.map(lambda *leaves: jnp.stack([jnp.asarray(leaf, jnp.float32) for leaf in leaves]), *settings)
    extra = 0 if mesh is None else -counts[0] % mesh.size
    keys, *own = jax.tree.map(
        lambda a: jnp.concatenate([a, jnp.repeat(a[-1:], extra, axis=0)]) if extra else a,
        (keys, measurements, starts, stacked, noise_std),
    )
    found = []
    for number in range(average):
        found.append(
            run_side_by_side(
                jax.vmap(lambda key, number=number: keys_of_chain(root_key(key), number, method))(keys),
                _begin,
                tuple(own),
                (as_pytree(operator), prior),
                steps,
                bool(start_noise),
                mesh=mesh,
                on_memory=on_memory if number == 0 else None,
            )
        )
    images, residuals = (sum(of[1:], of[0]) / average for of in zip(*found, strict=True))
    return Reconstructions(images[: counts[0]], of_levels(residuals[: counts[0]], inner))


def _begin(key: Array | None, own: Any, shared: Any, noises: Noise, start_noise: bool) -> Chain:
    (y, start, settings, noise_std), (operator, prior) = own, shared
    settings, problem, image = posed(y, operator, prior, settings, start, noise_std)
    return begin(key, settings, problem, image, noises, start_noise)
