"""The rows of a case: quick image, total variation, solver; each a name and a function that computes its image."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from padis_jax.errors import UserError
from padis_jax.prior import Prior
from padis_jax.runs.case import Case, image_key
from padis_jax.runs.config import Experiment
from padis_jax.runs.defaults import tv_of
from padis_jax.solvers import sampling
from padis_jax.solvers.classical import CLASSICAL
from padis_jax.solvers.presets import Plan
from padis_jax.solvers.reconstruct import Reconstruction, reconstruct
from padis_jax.solvers.samples import Samples, draw_samples
from padis_jax.solvers.tv import TV, total_variation


class Solved(NamedTuple):
    """An image and what it took.

    Attributes:
      image: [H, W, C], not clipped.
      evaluations: network evaluations of the whole image.
      residuals: per level, or per sample and level; None for a method without levels.
      seconds: wall-clock, where it is not that of the whole call.
      samples: what the image is the mean of, if it is one.
    """

    image: Array
    evaluations: int = 0
    residuals: Array | None = None
    seconds: float | None = None
    samples: Samples | None = None


Run = Callable[[Mapping[str, Array]], Solved]  # of the images of the rows before


def rows_of(
    config: Experiment,
    case: Case,
    plan: Plan,
    *,
    progress: sampling.Progress | None = None,
    on_memory: sampling.OnMemory | None = None,
) -> list[tuple[str, Run]]:
    """The rows of a run of sample.py, in the order in which they are to be computed.

    Args:
      config: of the run.
      case: with its prior.
      plan: how the solver runs.
      progress: called with (steps done, steps in all, info).
      on_memory: called with the memory of the compiled loop before it runs.
    """
    label, settings = plan.row.label, tv_of(config, case.kind, case.problem, case.evenness)
    rows: list[tuple[str, Run]] = [
        (case.problem.label, lambda done: Solved(case.operator.start(case.measurement.y))),
        *((CLASSICAL[name].label, functools.partial(_classical, case, name)) for name in config.classical),
        ("TV", lambda done: Solved(run_tv(case, settings))),
    ]
    if not config.samples:
        watch = {"progress": progress, "on_memory": on_memory}
        rows.append((label, lambda done: run_solver(config, case, plan, done["TV"], **watch)))
        return rows
    drawn: list[tuple[Samples, float]] = []

    def one(done: Mapping[str, Array]) -> Solved:
        drawn.append(timed(run_samples, config, case, plan, done["TV"]))
        samples, seconds = drawn[0]
        return Solved(samples.images[0], samples.evaluations // config.samples, None, seconds / config.samples)

    def mean(done: Mapping[str, Array]) -> Solved:
        samples, seconds = drawn[0]
        return Solved(samples.mean, samples.evaluations, samples.residual, seconds, samples)

    return [*rows, (f"{label}, one sample", one), (f"{label}, mean of {config.samples}", mean)]


def run_classical(case: Case, name: str) -> Array:
    """The image of a method of `CLASSICAL`, [H, W, C], stopped by the discrepancy principle where there is noise."""
    row, std = CLASSICAL[name], np.asarray(case.measurement.noise_std, np.float64)
    std = std[std > 0]
    mean = 1 / np.mean(std**-2) if case.noise_std.ndim else np.mean(std**2) if std.size else 0.0  # of the variance
    found = row.solve(
        case.measurement.y,
        case.operator,
        iterations=row.iterations,
        noise_norm=float(np.sqrt(std.size * mean)),
        noise_std=case.noise_std,
    )
    return found.image.reshape(case.image_shape)


def _classical(case: Case, name: str, _: Mapping[str, Array]) -> Solved:
    return Solved(run_classical(case, name))


def run_tv(case: Case, settings: TV) -> Array:
    """The image of total variation, [H, W, C]."""
    return total_variation(case.measurement.y, case.operator, settings=settings, noise_std=case.noise_std).image


def run_solver(
    config: Experiment,
    case: Case,
    plan: Plan,
    tv: Array,
    **watch: Any,
) -> Solved:
    """The solver, from the image of total variation where the plan says so; watched as in `rows_of`."""
    options = {**_options(config, case, plan, tv), **watch}
    found: Reconstruction = jax.block_until_ready(reconstruct(*_problem(config, case), **options))
    return Solved(found.image, found.evaluations, found.residual)


def run_samples(config: Experiment, case: Case, plan: Plan, tv: Array) -> Samples:
    """`config.samples` runs of the solver: the chains that `run_solver` would average."""
    options = {name: value for name, value in _options(config, case, plan, tv).items() if name != "average"}
    return draw_samples(*_problem(config, case), config.samples, **options)


def _problem(config: Experiment, case: Case) -> tuple[Array, Array, Any, Prior]:
    assert case.prior is not None
    key = jax.random.fold_in(image_key(config.seed, config.image.index), 1)
    return key, case.measurement.y, case.operator, case.prior


def _options(config: Experiment, case: Case, plan: Plan, tv: Array) -> dict[str, Any]:
    return options_of(plan, tv, told_noise(config, case))


def options_of(plan: Plan, tv: Array | None, noise_std: Array | None) -> dict[str, Any]:
    """The keyword arguments of `reconstruct` for a plan; `tv` is the image of total variation, if it starts there."""
    start = tv if plan.start == "tv" else plan.start
    return {"solver": plan.settings, **plan.options(), "start": start, "noise_std": noise_std}


def told_noise(config: Experiment, case: Case) -> Array | None:
    """The noise that the solver is told: the measurement's, unless the config names it as a setting of the method."""
    return None if "noise" in config.solver.settings else case.noise_std


def timed(function: Callable[..., Any], *args: Any, **options: Any) -> tuple[Any, float]:
    """(result, seconds), waiting for asynchronous work."""
    begin = time.perf_counter()
    result = jax.block_until_ready(function(*args, **options))
    return result, time.perf_counter() - begin


def check_traced(config: Experiment, case: Case, plan: Plan) -> None:
    """Traces the solver without computing anything; refuses what the run would refuse.

    Raises:
      UserError: for shapes and settings that do not fit.
    """
    tv = jnp.zeros(case.image_shape, jnp.float32)
    try:
        if config.samples:
            jax.eval_shape(lambda: run_samples(config, case, plan, tv)[:2])
        else:
            key, y, operator, prior = _problem(config, case)
            options = _options(config, case, plan, tv)
            jax.eval_shape(lambda y: reconstruct(key, y, operator, prior, **options)[:2], y)
    except ValueError as error:
        raise UserError(str(error)) from error


def refuse_divergence(name: str, image: Any) -> None:
    """Raises UserError for an image with NaN or infinity."""
    if not np.isfinite(image).all():
        raise UserError(
            f"{name} diverged: its image is not finite. Lower --solver.zeta or --solver.damping, or raise "
            "--solver.consistency or --solver.weight, whichever the solver has"
        )
