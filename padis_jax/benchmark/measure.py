"""Runs one method on one measured image and scores it."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

import padis_jax
from padis_jax.baselines.supervised import restore
from padis_jax.benchmark.cells import Cell, Result
from padis_jax.benchmark.data import Pictures
from padis_jax.benchmark.methods import METHODS, plan_of, prior_of
from padis_jax.benchmark.networks import Trained
from padis_jax.devices.compile_cache import spent
from padis_jax.images import ImageSet
from padis_jax.problems.registry import PROBLEMS, measure_image
from padis_jax.runs.case import Case, image_key
from padis_jax.runs.score import score
from padis_jax.runs.solve import Solved, options_of, run_classical, run_tv
from padis_jax.solvers.presets import Plan, tv_preset
from padis_jax.solvers.reconstruct import reconstruct
from padis_jax.solvers.samples import draw_samples

PSNR_LIMIT = 150.0  # dB: an error of 3e-8 of the range, below what float32 resolves; infinity has no mean and no JSON


class Scene:
    """A case of the grid, and its image of total variation once that was asked for.

    Attributes:
      problem: name of the problem.
      case: the measured image.
    """

    def __init__(self, problem: str, pictures: Pictures, number: int, seed: int, operator: Any = None) -> None:
        self.problem = problem
        key = image_key(seed, pictures.indices[number])
        truth = jnp.asarray(pictures.images[number])
        operator, measurement = measure_image(PROBLEMS[problem], key, truth, operator=operator)
        source = ImageSet(pictures.images[number : number + 1], (pictures.names[number],), pictures.window)
        self.case = Case(operator, measurement, pictures.window, source, PROBLEMS[problem], np.asarray(truth))
        self._key = jax.random.fold_in(key, 1)
        self._tv: tuple[Array, float] | None = None

    def key(self) -> Array:
        """Of a method: every method draws from the same."""
        return jax.random.clone(self._key)

    def tv(self) -> tuple[Array, float]:
        """(image [H, W, C], seconds that it took without XLA's compilation), computed once."""
        if self._tv is None:
            with stopwatch() as clock:
                image = run_tv(self.case, tv_preset(self.case.kind)).reshape(self.case.image_shape)
                jax.block_until_ready(image)
            self._tv = image, clock.seconds
        return self._tv


class Clock:
    """Seconds of a block: without XLA's compiler (Python's tracing is in it), and within it."""

    seconds = 0.0
    compile_seconds = 0.0


@contextmanager
def stopwatch() -> Iterator[Clock]:
    """Measures its block; what is asynchronous must be awaited inside."""
    clock, begin, compiled = Clock(), time.perf_counter(), spent().seconds
    yield clock
    clock.compile_seconds = spent().seconds - compiled
    clock.seconds = max(0.0, time.perf_counter() - begin - clock.compile_seconds)


def run_cell(
    cell: Cell, scene: Scene, trained: Trained | None, evaluations: int, patch_batch: int = 0
) -> tuple[Result, np.ndarray]:
    """Runs the method of a cell.

    Args:
      cell: which.
      scene: its measured image.
      trained: the network that the method needs.
      evaluations: the budget of a run.
      patch_batch: patches per network call at most; 0 for all at once. It changes a result by rounding only.

    Returns:
      The result, and the image [H, W, C] before clipping.

    Raises:
      ValueError: for what a method refuses.
    """
    method = METHODS[cell.method]
    plan = plan_of(method, PROBLEMS[cell.problem], evaluations)
    before = 0.0
    if method.family == "tv" or (plan is not None and plan.start == "tv"):
        before = scene.tv()[1]  # outside of the clock: the first cell that needs it makes it for all
    with stopwatch() as clock:
        solved = _solve(cell.method, plan, scene, trained, patch_batch)
        image = np.asarray(jax.block_until_ready(solved.image))
    scores = scores_of(image, scene)
    result = Result(
        fingerprint=cell.fingerprint,
        problem=cell.problem,
        method=cell.method,
        image=cell.image,
        seed=cell.seed,
        config=dict(cell.config),
        psnr=scores.psnr,
        ssim=scores.ssim,
        residual=scores.residual,
        evaluations=solved.evaluations,
        seconds=clock.seconds + before,
        compile_seconds=clock.compile_seconds,
        software=f"padis_jax {padis_jax.__version__}, jax {jax.__version__}, {jax.devices()[0].device_kind}",
    )
    return result, image


class Scores(NamedTuple):
    """PSNR, SSIM and residual as in `Result`; all None for a run that diverged."""

    psnr: float | None = None
    ssim: float | None = None
    residual: float | None = None


def scores_of(image: np.ndarray, scene: Scene) -> Scores:
    """The scores of an image [H, W, C], which is clipped for those that compare it with the truth."""
    if not np.isfinite(image).all():
        return Scores()
    case = scene.case
    y = case.measurement.y
    row = score("", image, case)
    residual: float | None = row.residual
    if not bool(jnp.any(y != 0)):  # nothing to be relative to
        residual = None if bool(jnp.any(case.operator(jnp.asarray(image)) != 0)) else 0.0
    if residual is not None and not math.isfinite(residual):  # numbers whose squares overflow
        return Scores()
    return Scores(None if row.psnr is None else min(row.psnr, PSNR_LIMIT), row.ssim, residual)


def _solve(name: str, plan: Plan | None, scene: Scene, trained: Trained | None, patch_batch: int) -> Solved:
    method = METHODS[name]
    y, operator, shape = scene.case.measurement.y, scene.case.operator, scene.case.image_shape
    if method.family == "tv":
        return Solved(scene.tv()[0])
    if method.family == "classical":
        return Solved(run_classical(scene.case, name))
    if method.family == "start":
        return Solved(_quick(operator, y).reshape(shape))
    assert trained is not None  # the grid has no cell without the network that it needs
    if plan is None:
        start = _quick(operator, y).reshape(1, *shape)
        return Solved(_restore(trained.content.config, trained.content.params, start)[0], 1)
    prior = prior_of(method, trained, (shape[0], shape[1]), patch_batch)
    options = options_of(plan, scene.tv()[0] if plan.start == "tv" else None, scene.case.noise_std)
    if method.samples > 1:
        del options["average"]
        drawn = draw_samples(scene.key(), y, operator, prior, method.samples, **options)
        return Solved(drawn.mean, drawn.evaluations)
    found = reconstruct(scene.key(), y, operator, prior, **options)
    return Solved(found.image, found.evaluations)


_restore = jax.jit(restore, static_argnums=0)


@jax.jit
def _quick(operator: Any, y: Array) -> Array:
    return operator.start(y)
