"""First and last noise level of plug-and-play from a measurement alone: the errors that a run itself would make.

    v    the image of a run with the levels of a plan
    y'   A v + noise of the known deviation, or of that of y - A v
    s'   the start from y',   v'  the image of the same run from y' and s'
    first level = FIRST_SHARE rms(s' - v),   last level = LAST_SHARE rms(v' - v)

A first level is to cover the error of the start, a last one is not to smooth more than what is left of it; v stands for
the truth (the parametric bootstrap; Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 6). It costs
two runs, and the start of the second. docs/studies/schedule.md has what the rule gains and loses.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from padis_jax.keys import root_key
from padis_jax.operators.per_channel import with_channels
from padis_jax.operators.weighting import Weighted
from padis_jax.prior import Prior
from padis_jax.solvers.checks import checked_noise
from padis_jax.solvers.presets import Plan
from padis_jax.solvers.problem import Problem
from padis_jax.solvers.reconstruct import problem_of, reconstruct, start_image
from padis_jax.solvers.tv import TV
from padis_jax.solvers.volumes import Along
from padis_jax.volume_prior import VolumePrior

FIRST_SHARE, LAST_SHARE = 4.0, 1.0
RANGE = 0.001, 4.0  # of the levels


class Errors(NamedTuple):
    """Root mean squares of s' - v and of v' - v, in image units."""

    start: float
    image: float


def bootstrap_errors(
    key: Array | int,
    measurement: ArrayLike,
    operator: object,
    prior: Prior | VolumePrior,
    plan: Plan,
    *,
    noise_std: ArrayLike | None = None,
    tv: TV | None = None,
    along: Along | None = None,
) -> Errors:
    """The errors of the start and of the image of a plan's run.

    Args:
      key: root key, or an int.
      measurement: y.
      operator: A.
      prior: whole-image denoiser and frame, or those of volumes.
      plan: of the run.
      noise_std: of y, one number or one for each entry; None where it is not known.
      tv: settings of the start from total variation; None for those of TV.
      along: what ties the slices of a volume, as in `reconstruct`.

    Raises:
      ValueError: for what `reconstruct` refuses.
    """
    key = root_key(key)
    problem = problem_of(operator, prior, measurement, along, plan.method)
    std = checked_noise(noise_std, problem.measurement.shape, operator)

    def run(key: Array, y: Array) -> tuple[Array, Array]:
        again = problem_of(operator, prior, y, along, plan.method)
        start = start_image((tv or TV()) if plan.start == "tv" else plan.start, again, operator, prior.channels, std)
        options = plan.options() | {"start": start, "noise_std": std, "along": along}
        return start, reconstruct(key, y, operator, prior, solver=plan.settings, **options).image

    image = run(jax.random.clone(key), problem.measurement)[1]
    noise_key, run_key = jax.random.split(jax.random.fold_in(key, 1))
    clean = problem.forward(image)
    spread = _spread(problem, clean) if std is None else std
    y = clean + spread * jax.random.normal(noise_key, clean.shape, clean.dtype)
    start, found = run(run_key, y)
    return Errors(_rms(start - image), _rms(found - image))


def range_of(errors: Errors) -> tuple[float, float]:
    """First and last level of these errors, within RANGE, the first at least a tenth above the last."""
    last, first = (
        float(np.clip(share * value, *RANGE))
        for share, value in ((LAST_SHARE, errors.image), (FIRST_SHARE, errors.start))
    )
    return max(first, 1.1 * last), last


def _spread(problem: Problem, clean: Array) -> Array:
    """Of the noise, where it is not known: the root mean square of y - A v over what is measured."""
    residual = jnp.abs(problem.measurement - clean)
    mask = getattr(problem.operator, "measured", None)
    if isinstance(problem.operator, Weighted):  # of which a part may be held out
        mask = problem.operator.root
    if mask is not None:
        mask = with_channels(jnp.asarray(mask), residual.shape) > 0
    return jnp.sqrt(jnp.mean(jnp.square(residual), where=mask))


def _rms(image: Array) -> float:
    return float(np.sqrt(np.mean(np.square(np.asarray(image, np.float64)))))
