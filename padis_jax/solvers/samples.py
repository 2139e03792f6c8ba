"""Several independent runs of a solver on one measurement, side by side, with their mean and their spread.

    mean = 1/K sum x_k,     deviation^2 = 1/(K - 1) sum (x_k - mean)^2,   pixel by pixel

Sample k draws from fold_in(key, k): it is chain k of `reconstruct`, and the mean is what `reconstruct` returns with
average = K. What a solver draws is the solver's: whether its spread says anything of the error is a question for
`metrics.coverage`.
"""

from __future__ import annotations

import inspect
from types import SimpleNamespace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from padis_jax.fields import check_count
from padis_jax.keys import root_key
from padis_jax.prior import Prior
from padis_jax.solvers.chain import Chain, begin
from padis_jax.solvers.checks import check_prior
from padis_jax.solvers.ladder import sigmas_of
from padis_jax.solvers.problem import as_pytree
from padis_jax.solvers.reconstruct import keys_of_chain, method_and_settings, of_levels, posed, reconstruct
from padis_jax.solvers.registry import find_method, name_of
from padis_jax.solvers.sampling import Noise, noises
from padis_jax.solvers.side_by_side import run_side_by_side


class Samples(NamedTuple):
    """What `draw_samples` returns.

    Attributes:
      images: [K, H, W, C], in the prior's image units, not clipped.
      mean: [H, W, C].
      deviation: [H, W, C], the samples' standard deviation (divided by K - 1).
      residual: [K, levels], ||y - A D|| / ||y||.
      evaluations: network evaluations of the whole image, of all samples.
    """

    images: Array
    mean: Array
    deviation: Array
    residual: Array
    evaluations: int


def draw_samples(
    key: Array | int, measurement: ArrayLike, operator: Any, prior: Prior, count: int, **options: Any
) -> Samples:
    """`count` runs of a solver in one vmapped program.

    It can be differentiated in arrays that are leaves of its arguments (`jax.tree_util.Partial` makes those of a
    function so), not in what a function's closure holds; `reconstruct` under `vmap` can in both.

    >>> import jax.numpy as jnp, padis_jax as pj
    >>> from padis_jax.patches import frame_for
    >>> from padis_jax.prior import Prior
    >>> prior = Prior(lambda key, plane, sigma: plane / (1 + sigma**2), frame_for((8, 8), 4))  # of white images
    >>> half = pj.from_functions(lambda x: x / 2, image_shape=(8, 8, 1))
    >>> drawn = pj.draw_samples(0, jnp.full((8, 8, 1), 0.3), half, prior, 3, levels=5)
    >>> drawn.images.shape, drawn.deviation.shape
    ((3, 8, 8, 1), (8, 8, 1))

    Args:
      key: root key of this image, or an int for jax.random.key(int).
      measurement: y.
      operator: A.
      prior: whole-image denoiser and frame; with `patch_batch` its memory is that of `count` chunks.
      count: K, at least 2.
      **options: of `reconstruct`, but for `average`, `chunk` and `progress`. With `first_chain` n, sample k is chain
        n + k.

    Raises:
      ValueError: if count < 2, for those three options, and for what `reconstruct` refuses.
    """
    check_count("count", count, -1)
    if count < 2:
        raise ValueError(f"count is {count}: a deviation needs at least 2 samples")
    if excluded := sorted({"average", "chunk", "progress"} & set(options)):
        raise ValueError(f"{excluded[0]} is no option of samples, which run side by side as single chains")
    solver = options.get("solver", "dds")
    method = find_method(solver if isinstance(solver, str) else name_of(solver))
    if method.begin is not None:
        raise ValueError(f"runs of {method.label} {method.alone}: take another solver for samples")
    key, first = root_key(key), options.pop("first_chain", 0)
    if not isinstance(first, jax.Array):
        check_count("first_chain", first, 0)
    given = (key, first, measurement, as_pytree(operator), prior, options)
    if any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(given)):
        return _samples(*_traced(key, measurement, operator, prior, first + jnp.arange(count), options))
    return _samples(*_apart(key, measurement, operator, prior, first + jnp.arange(count), options))


def _samples(images: Array, residual: Array, evaluations: int) -> Samples:
    return Samples(images, jnp.mean(images, 0), jnp.std(images, 0, ddof=1), residual, evaluations)


def _traced(
    key: Array, measurement: ArrayLike, operator: Any, prior: Any, chains: Array, options: dict[str, Any]
) -> tuple[Array, Array, int]:
    """Within a trace, where they can be differentiated: (images, residuals, evaluations)."""
    evaluations = 0

    def one(chain: Array) -> tuple[Array, Array]:
        nonlocal evaluations
        result = reconstruct(key, measurement, operator, prior, first_chain=chain, **options)
        evaluations = result.evaluations
        return result.image, result.residual

    return *jax.vmap(one)(chains), evaluations * len(chains)


def _apart(
    key: Array, measurement: ArrayLike, operator: Any, prior: Any, chains: Array, options: dict[str, Any]
) -> tuple[Array, Array, int]:
    """By a program of any number of levels."""
    bound = inspect.signature(reconstruct).bind(key, measurement, operator, prior, **options)
    bound.apply_defaults()
    given = SimpleNamespace(**bound.arguments)
    check_prior(prior)
    method, settings = method_and_settings(given.solver, given.settings)
    sigmas = sigmas_of(given.ladder, given.levels, given.inner, given.sigma_max, given.sigma_min, method)
    images, residuals = run_side_by_side(
        jax.vmap(lambda chain: keys_of_chain(key, chain, method))(chains),
        _begin,
        (),
        posed(measurement, operator, prior, settings, given.start, given.noise_std, given.along),
        noises(sigmas, given.inner),
        bool(given.start_noise),
        on_memory=given.on_memory,
    )
    evaluations = len(chains) * len(sigmas) * given.inner * method.evaluations(settings) * prior.tilings
    return images, of_levels(residuals, given.inner), evaluations


def _begin(key: Array | None, own: Any, shared: Any, noises: Noise, start_noise: bool) -> Chain:
    settings, problem, image = shared
    return begin(key, settings, problem, image, noises, start_noise)
