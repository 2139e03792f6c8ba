"""The rows of a case: quick image, total variation, solver; each a name and a function that computes its image."""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import Mesh

from padis_jax.errors import user_errors
from padis_jax.measurements.simulate import Measurement
from padis_jax.prior import Prior
from padis_jax.runs.case import Case, image_key
from padis_jax.runs.config import Experiment
from padis_jax.runs.defaults import plan_of, tv_of
from padis_jax.solvers import sampling
from padis_jax.solvers.batch import Reconstructions, reconstruct_batch
from padis_jax.solvers.checks import as_arrays
from padis_jax.solvers.classical import CLASSICAL
from padis_jax.solvers.presets import Plan
from padis_jax.solvers.reconstruct import Reconstruction, quick_image, reconstruct
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
TV_ROW = "TV"


def rows_of(
    config: Experiment,
    case: Case,
    plan: Plan | None,
    *,
    progress: sampling.Progress | None = None,
    on_memory: sampling.OnMemory | None = None,
) -> dict[str, Run]:
    """The rows of a case by their names, in the order in which they are to be computed: start, baselines, solver last.

    What starts from total variation takes its image from those of the rows before.

    Args:
      config: of the run.
      case: with its prior, where there is a plan.
      plan: how the solver runs; None for no solver.
      progress: called with (steps done, steps in all, info).
      on_memory: called with the memory of the compiled loop before it runs.
    """
    rows: dict[str, Run] = {
        case.problem.label: lambda done: Solved(run_start(case)),
        **{CLASSICAL[name].label: functools.partial(_classical, case, name) for name in config.classical},
        TV_ROW: lambda done: Solved(run_tv(config, case)),
    }
    if plan is None:
        return rows
    label, drawn = plan.row.label, {}  # type: tuple[str, dict[str, tuple[Samples, float]]]
    if not config.samples:
        watch = {"progress": progress, "on_memory": on_memory}
        return rows | {label: lambda done: run_solver(config, case, plan, done.get(TV_ROW), **watch)}

    def draw(done: Mapping[str, Array]) -> tuple[Samples, float]:
        if not drawn:
            drawn["all"] = timed(run_samples, config, case, plan, done.get(TV_ROW))
        return drawn["all"]

    def one(done: Mapping[str, Array]) -> Solved:
        samples, seconds = draw(done)
        return Solved(samples.images[0], samples.evaluations // config.samples, None, seconds / config.samples)

    def mean(done: Mapping[str, Array]) -> Solved:
        samples, seconds = draw(done)
        return Solved(samples.mean, samples.evaluations, samples.residual, seconds, samples)

    return rows | {f"{label}, one sample": one, f"{label}, mean of {config.samples}": mean}


def run_start(case: Case) -> Array:
    """The operator's quick image, [H, W, C], not clipped."""
    return quick_image(case.operator, case.measurement.y).reshape(case.image_shape)


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


def run_tv(config: Experiment, case: Case) -> Array:
    """The image of total variation, [H, W, C]."""
    settings = case.smoothed_by(tv_of(config, case.kind, case.problem, case.evenness))
    return _smooth(case.operator, case.measurement.y, case.noise_std, settings).reshape(case.image_shape)


def run_solver(config: Experiment, case: Case, plan: Plan, tv: Array | None, **watch: Any) -> Solved:
    """The solver, from the image of total variation where the plan says so; watched as in `rows_of`."""
    found = jax.block_until_ready(_reconstructed(config, case, plan, tv, **watch))
    return Solved(found.image, found.evaluations, found.residual)


def _reconstructed(config: Experiment, case: Case, plan: Plan, tv: Array | None, **watch: Any) -> Reconstruction:
    return reconstruct(*_problem(config, case), **{**_options(config, case, plan, tv), **watch})


def run_samples(config: Experiment, case: Case, plan: Plan, tv: Array | None) -> Samples:
    """`config.samples` runs of the solver: the chains that `run_solver` would average."""
    options = {name: value for name, value in _options(config, case, plan, tv).items() if name != "average"}
    return draw_samples(*_problem(config, case), config.samples, **options)


def run_sample(config: Experiment, case: Case, plan: Plan, tv: Array | None, chain: int, **watch: Any) -> Solved:
    """Sample `chain` of `run_samples` alone, to rounding; watched as in `rows_of`."""
    options = {name: value for name, value in _options(config, case, plan, tv).items() if name != "average"}
    found = jax.block_until_ready(reconstruct(*_problem(config, case), first_chain=chain, **{**options, **watch}))
    return Solved(found.image, found.evaluations, found.residual)


def run_batch(
    config: Experiment,
    cases: Sequence[Case],
    numbers: Sequence[int],
    *,
    starts: Sequence[Array] = (),
    size: int = 0,
    mesh: Mesh | None = None,
    on_memory: sampling.OnMemory | None = None,
) -> Reconstructions:
    """The solver on several cases of one operator, kind and prior in one program, each image from its own start.

    Args:
      config: of the run.
      cases: with their prior.
      numbers: of the cases, 31 bits each: their keys are folded from these, where one case has its image's index.
      starts: the images [H, W, C] that they start from, where these are there already.
      size: of the program's batch, which is filled up with copies; 0 for the number of cases.
      mesh: devices that share the images.
      on_memory: called with the memory of the compiled program before it runs.
    """
    count = len(cases)
    plans = [plan_of(config, case.kind, case) for case in cases]
    extra = max(0, size - count)
    cases, numbers = [*cases, *[cases[-1]] * extra], [*numbers, *[numbers[-1]] * extra]
    plans += plans[-1:] * extra
    starts = [*starts, *[starts[-1]] * extra] if starts else ()
    options, noise = plans[0].options(), [case.noise_std for case in cases]
    shape = max((std.shape for std in noise), key=len)  # [], or [views, bins, 1] where entries of one differ in it
    told = [jnp.broadcast_to(std, shape) for std in noise]
    del options["start"]
    operator, prior = cases[0].operator, cases[0].prior
    assert prior is not None
    found = reconstruct_batch(
        jax.vmap(lambda number: _key(config, number))(jnp.asarray(numbers)),
        jnp.stack([case.measurement.y for case in cases]),
        operator,
        prior,
        settings=[plan.settings for plan in plans],
        starts=jnp.stack(starts) if starts else _starts(config, cases, plans[0], jnp.stack(told)),
        noise_std=None if told_noise(config, cases[0]) is None else jnp.stack(told),
        mesh=mesh,
        on_memory=on_memory,
        **options,
    )
    return Reconstructions(*(a[:count] for a in found)) if extra else found


def _starts(config: Experiment, cases: Sequence[Case], plan: Plan, noise: Array) -> Array:
    """The images [n, H, W, C] that a plan starts from, one after the other in one program."""
    ys, operator, shape = jnp.stack([case.measurement.y for case in cases]), cases[0].operator, cases[0].image_shape
    if plan.start == "noise":
        return jnp.zeros((len(cases), *shape), jnp.float32)
    if plan.start == "operator":
        images = jnp.clip(_each(operator)[0](ys), 0, 1)
    else:
        settings = [as_arrays(tv_of(config, case.kind, case.problem, case.evenness)) for case in cases]
        images = _each(operator)[1](ys, noise, jax.tree.map(lambda *leaves: jnp.stack(leaves), *settings))
    return images.reshape(len(cases), *shape)


@functools.lru_cache(maxsize=1)
def _each(operator: Any) -> tuple[Callable[..., Array], Callable[..., Array]]:
    """(start, total variation) of several measurements; the operator of a job is a constant of their programs."""
    start = jax.jit(lambda ys: jax.lax.map(lambda y: quick_image(operator, y), ys))
    return start, jax.jit(lambda *of: jax.lax.map(lambda at: _smooth(operator, *at), of))


def _smooth(operator: Any, y: Array, noise: Array, settings: TV) -> Array:
    return total_variation(y, operator, settings=settings, noise_std=noise).image


def _key(config: Experiment, index: int | Array) -> Array:
    """Of the solver; the measurement of a simulated case has other keys below its image's."""
    return jax.random.fold_in(image_key(config.seed, index), 1)


def _problem(config: Experiment, case: Case) -> tuple[Array, Array, Any, Prior]:
    assert case.prior is not None
    return _key(config, config.image.number), case.measurement.y, case.operator, case.prior


def _options(config: Experiment, case: Case, plan: Plan, tv: Array | None) -> dict[str, Any]:
    """The keyword arguments of `reconstruct`; `tv` is the image of total variation, needed if the plan starts there."""
    start = tv if plan.start == "tv" else plan.start
    noise = told_noise(config, case)
    return {"solver": plan.settings, **plan.options(), "start": start, "noise_std": noise, **case.ties}


def told_noise(config: Experiment, case: Case) -> Array | None:
    """The noise that the solver is told: the measurement's, unless the config names it as a setting of the method."""
    return None if "noise" in config.solver.settings else case.noise_std


def timed(function: Callable[..., Any], *args: Any, **options: Any) -> tuple[Any, float]:
    """(result, seconds), waiting for asynchronous work."""
    begin = time.perf_counter()
    result = jax.block_until_ready(function(*args, **options))
    return result, time.perf_counter() - begin


def traced_case(config: Experiment, build: Callable[[], Case]) -> tuple[Case, Plan]:
    """A case and how its solver runs, built and solved while tracing, so that nothing is computed or compiled.

    Args:
      config: of the run.
      build: makes the case with its prior, as for the run.

    Returns:
      The case without its operator, with shapes for the values of its measurement; and the plan.

    Raises:
      UserError: for what the run would refuse before its first image: shapes and settings that do not fit. Values are
        not looked at: see `case.check_measured`.
    """
    found: list[tuple[Case, Plan]] = []

    def trace() -> tuple[Any, ...]:
        case = build()
        plan, tv = plan_of(config, case.kind, case), jnp.zeros(case.image_shape, jnp.float32)
        with user_errors():
            run_samples(config, case, plan, tv) if config.samples else _reconstructed(config, case, plan, tv)
        found.append((case, plan))
        return case.measurement[:2]

    y, noise_std = jax.eval_shape(trace)
    ((case, plan),) = found
    return dataclasses.replace(
        case, operator=None, measurement=Measurement(y, noise_std, case.measurement.protocol)
    ), plan
