"""Runs one method on one measured image and scores it."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

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
from padis_jax.runs.config import Experiment
from padis_jax.runs.image_config import ImageConfig
from padis_jax.runs.score import score
from padis_jax.runs.solve import TV_ROW, Solved, rows_of, run_classical, run_start, run_tv
from padis_jax.solvers.presets import Plan


class Scene:
    """A case of the grid, and its image of total variation once that was asked for.

    Attributes:
      problem: name of the problem.
      case: the measured image.
      config: the experiment that it is.
    """

    def __init__(self, problem: str, pictures: Pictures, number: int, seed: int, operator: Any = None) -> None:
        self.problem, index = problem, pictures.indices[number]
        self.config = Experiment(seed=seed, image=ImageConfig(index=index))
        truth = jnp.asarray(pictures.images[number])
        operator, measurement = measure_image(PROBLEMS[problem], image_key(seed, index), truth, operator=operator)
        source = ImageSet(pictures.images[number : number + 1], (pictures.names[number],), pictures.window)
        self.case = Case(operator, measurement, pictures.window, source, PROBLEMS[problem], np.asarray(truth))
        self._tv: tuple[Array, float] | None = None

    def tv(self) -> tuple[Array, float]:
        """(image [H, W, C], seconds that it took without XLA's compilation), computed once."""
        if self._tv is None:
            with stopwatch() as clock:
                image = jax.block_until_ready(run_tv(self.config, self.case))
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
    plan = plan_of(method, PROBLEMS[cell.problem], evaluations, trained)
    before = 0.0
    if method.family == "tv" or (plan is not None and plan.start == "tv"):
        before = scene.tv()[1]  # outside of the clock: the first cell that needs it makes it for all
    with stopwatch() as clock:
        solved = _solve(cell.method, plan, scene, trained, patch_batch)
        image = np.asarray(jax.block_until_ready(solved.image))
    scores = score(cell.method, image, scene.case)
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


def _solve(name: str, plan: Plan | None, scene: Scene, trained: Trained | None, patch_batch: int) -> Solved:
    method, case = METHODS[name], scene.case
    if method.family == "start":
        return Solved(run_start(case))
    if method.family == "classical":
        return Solved(run_classical(case, name))
    if method.family == "tv":
        return Solved(scene.tv()[0])
    assert trained is not None  # the grid has no cell without the network that it needs
    if plan is None:
        return Solved(_restore(trained.content.config, trained.content.params, run_start(case)[None])[0], 1)
    prior = prior_of(method, trained, (case.image_shape[0], case.image_shape[1]), patch_batch)
    config = dataclasses.replace(scene.config, samples=method.samples if method.samples > 1 else 0)
    *_, run = rows_of(config, dataclasses.replace(case, prior=prior), plan).values()
    return run({TV_ROW: scene.tv()[0]} if plan.start == "tv" else {})


_restore = jax.jit(restore, static_argnums=0)
