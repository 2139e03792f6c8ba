"""First and last noise level without a truth: from the errors that the run's own image would be given (bootstrap).

    v    the image of a run with the preset's levels
    y'   A v + noise of the known deviation
    s'   total variation of y',   v'  the image of the same run from y' and s'
    first level = FIRST_SHARE rms(s' - v),   last level = LAST_SHARE rms(v' - v)

A first level is to cover the error of the start, a last one is not to smooth more than what is left of it (Efron and
Tibshirani, An Introduction to the Bootstrap, 1993, chapter 6, of the parametric bootstrap). It costs two runs and one
total variation before the run itself. The shares are those of docs/studies/schedule.md.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from padis_jax.files import write_json
from padis_jax.noise import geometric_ladder
from padis_jax.problems.registry import PROBLEMS
from padis_jax.solvers.presets import Plan, preset, tv_preset
from padis_jax.solvers.tv import total_variation
from studies.schedule.cells import LEVELS, PRESET, RULE, Cell, Found, ranked
from studies.tasks import Task, solve, task, tests

FIRST_SHARE, LAST_SHARE = 4.0, 1.0
RANGE = 0.001, 4.0  # of the levels


def measured_again(given: Task, image: np.ndarray) -> Task:
    """The task whose truth is `image` [H, W, C]: fresh noise, and total variation of it as the start."""
    problem = given.problem
    clean = problem.forward(jnp.asarray(image, jnp.float32))
    noise_key, key = jax.random.split(jax.random.fold_in(given.key, 1))
    y = clean + given.noise * jax.random.normal(noise_key, clean.shape)
    start = total_variation(y, given.operator, settings=tv_preset(given.kind), noise_std=given.noise).image
    return given._replace(y=y, truth=np.asarray(image), start=start.reshape(image.shape), key=key)


def errors_of(given: Task, plan: Plan, ladder: np.ndarray) -> tuple[float, float]:
    """Root mean squares of s' - v and v' - v."""
    image = solve(given, plan, ladder).image
    again = measured_again(given, image)
    return _rms(again.start - image), _rms(solve(again, plan, ladder).image - image)


def range_of(start_error: float, error: float) -> tuple[float, float]:
    """First and last level of these errors, within RANGE, the first at least a tenth above the last."""
    last, first = (
        float(np.clip(share * value, *RANGE)) for share, value in ((LAST_SHARE, error), (FIRST_SHARE, start_error))
    )
    return max(first, 1.1 * last), last


def _rms(image: object) -> float:
    return float(np.sqrt(np.mean(np.square(np.asarray(image, np.float64)))))


def rule_cells(
    found: Found, problems: Sequence[str], methods: Sequence[str], seeds: Sequence[int], out: Path
) -> Iterable[Cell]:
    """On each test image: the three best of the map, if there is one, the preset, and the rule's, found on the way."""
    for seed, problem, method in itertools.product(seeds, problems, methods):
        for image in tests(problem):
            cell = preset_cell(problem, method, image, seed)
            best = [cell._replace(first=f, last=e, spacing="geometric") for f, e in ranked(found, problem, method)[:3]]
            yield from (*best, cell)
            first, last = rule_of(cell, out)
            yield cell._replace(first=first, last=last, spacing=RULE)


def preset_cell(problem: str, method: str, image: str, seed: int) -> Cell:
    """The preset as it is."""
    usual = preset(method, PROBLEMS[problem].kind, LEVELS)
    return Cell(problem, method, image, seed, usual.sigma_max, usual.sigma_min, PRESET)


def rule_of(cell: Cell, out: Path) -> tuple[float, float]:
    """What the rule says of the cell's image, from runs of the preset; a file keeps the errors behind it."""
    file = rule_file(cell, out)
    if not file.exists():
        print(f"errors for the rule, two runs of {LEVELS} evaluations: {file.name}", flush=True)
        usual = preset(cell.method, PROBLEMS[cell.problem].kind, LEVELS)
        given = task(cell.problem, cell.image, cell.seed)
        ladder = geometric_ladder(LEVELS, usual.sigma_max, usual.sigma_min)
        start, error = errors_of(given, usual, ladder)
        write_json(file, {"start": start, "error": error})
    errors = json.loads(file.read_text())
    first, last = range_of(errors["start"], errors["error"])
    return float(f"{first:.3g}"), float(f"{last:.3g}")


def rule_file(cell: Cell, out: Path) -> Path:
    """Where the errors behind the rule are."""
    return out / "rules" / f"{cell.problem}_{cell.method}_{cell.image}_{cell.seed}.json"
