"""First and last noise level by the rule of padis_jax/solvers/level_range.py, beside the best of the map."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Sequence
from pathlib import Path

from padis_jax.files import write_json
from padis_jax.problems.registry import PROBLEMS
from padis_jax.solvers.level_range import Errors, bootstrap_errors, range_of
from padis_jax.solvers.presets import Plan, preset, tv_preset
from studies.schedule.cells import LEVELS, PRESET, RULE, Cell, Found, ranked
from studies.tasks import Task, task, tests


def errors_of(given: Task, plan: Plan) -> Errors:
    """Of a task by a plan."""
    noise, tv = given.noise, tv_preset(given.kind)
    return bootstrap_errors(given.key, given.y, given.operator, given.prior, plan, noise_std=noise, tv=tv)


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
        found = errors_of(given, usual)
        write_json(file, {"start": found.start, "error": found.image})
    errors = json.loads(file.read_text())
    first, last = range_of(Errors(errors["start"], errors["error"]))
    return float(f"{first:.3g}"), float(f"{last:.3g}")


def rule_file(cell: Cell, out: Path) -> Path:
    """Where the errors behind the rule are."""
    return out / "rules" / f"{cell.problem}_{cell.method}_{cell.image}_{cell.seed}.json"
