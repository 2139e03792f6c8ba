"""Cells of the study: which there are, what of them is best, and running those that are not there."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from padis_jax.errors import UserError
from padis_jax.noise import edm_ladder, geometric_ladder
from padis_jax.solvers.presets import Plan, preset
from studies import cells
from studies.tasks import Task, settings, solve, task, validation

FIRST = tuple(float(f"{0.04 * 10 ** (i / 2):.3g}") for i in range(5))  # two decades
LAST = tuple(float(f"{0.001 * 10 ** (i / 2):.3g}") for i in range(4))  # one and a half
SPACINGS = ("geometric", "3", "5", "7")  # or Karras' rho
COUNTS = (10, 15, 25, 50, 100)
LEVELS = 25
METHODS = ("pnp_admm", "dds", "dps")
MAPPED = {"problems": ("ct20", "deblur9"), "methods": METHODS[:2]}
RULED = ("ct20", "deblur9", "ct8", "ct60", "limited120", "sr4", "inpaint_random", "denoise")
PRESET, RULE = "preset", "rule"  # instead of a spacing: the preset as it is, and levels by the rule
NEAREST = {"ct20": "ct20", "ct8": "ct20", "deblur9": "deblur9", "sr4": "deblur9"}  # whose map the lines begin at


class Cell(NamedTuple):
    """A run: problem, method, image, seed, first and last level, spacing, number of levels."""

    problem: str
    method: str
    image: str
    seed: int
    first: float
    last: float
    spacing: str = "geometric"
    levels: int = LEVELS

    @property
    def name(self) -> str:
        """Of its file."""
        return "_".join(f"{value:g}" if isinstance(value, float) else str(value) for value in self) + ".json"

    @property
    def ladder(self) -> np.ndarray:
        """The levels."""
        if self.spacing in ("geometric", PRESET, RULE):
            return geometric_ladder(self.levels, self.first, self.last)
        return edm_ladder(self.levels, self.first, self.last, float(self.spacing))


Found = dict[Cell, dict[str, Any]]


def plan_of(method: str, given: Task, spacing: str = "geometric") -> Plan:
    """The preset, on levels that fall unless it is to be as it is."""
    plan = preset(method, given.kind, LEVELS)
    if spacing == PRESET:
        return plan
    if getattr(plan.settings, "sigma", 0):
        plan = plan._replace(settings=dataclasses.replace(plan.settings, sigma=0.0))
    return plan


def map_cells(problems: Sequence[str], methods: Sequence[str], seeds: Sequence[int]) -> list[Cell]:
    """First and last level, of seed after seed; low first levels come first."""
    grid = itertools.product(seeds, problems, methods, FIRST, LAST)
    return [Cell(p, m, validation(p), s, first, last) for s, p, m, first, last in grid]


def line_cells(found: Found, problems: Sequence[str], methods: Sequence[str], seeds: Sequence[int]) -> list[Cell]:
    """One thing at a time through the best setting of the nearest map (of DDS for DPS).

    Spacing and number where there is a map, first and last level where there is none.

    Raises:
      UserError: where that map is missing.
    """
    lines = []
    for seed, problem, method in itertools.product(seeds, problems, methods):
        nearest = NEAREST[problem], method if method in MAPPED["methods"] else "dds"
        if (best := best_of(found, *nearest)) is None:
            flags = f"--problems {nearest[0]} --methods {nearest[1]}"
            raise UserError(f"no map of {' '.join(nearest)}: run `python -m studies.schedule map {flags}` first")
        middle = Cell(problem, method, validation(problem), seed, *best)
        if nearest == (problem, method):
            lines += [middle._replace(spacing=spacing) for spacing in SPACINGS]
            lines += [middle._replace(levels=levels) for levels in COUNTS]
        else:
            lines += [middle._replace(first=first) for first in FIRST]
            lines += [middle._replace(last=last) for last in LAST]
    return list(dict.fromkeys(lines))


def best_of(found: Found, problem: str, method: str) -> tuple[float, float] | None:
    """First and last level of the highest mean PSNR on the validation image, of 25 geometric levels; None without."""
    return next(iter(ranked(found, problem, method)), None)


def ranked(found: Found, problem: str, method: str) -> list[tuple[float, float]]:
    """First and last levels of the map, the best first."""
    image = validation(problem)
    own: dict[tuple[float, float], list[float]] = {}
    for cell, values in found.items():
        on_grid = cell.first in FIRST and cell.last in LAST
        if on_grid and cell == Cell(problem, method, image, cell.seed, cell.first, cell.last):
            own.setdefault((cell.first, cell.last), []).append(values["psnr"])
    return sorted(own, key=lambda ends: -float(np.mean(own[ends])))


def measure(chosen: Iterable[Cell], out: Path, most: int | None = None) -> None:
    """Runs the cells that have no file, at most so many of them."""

    def run(cell: Cell) -> dict[str, Any]:
        given = task(cell.problem, cell.image, cell.seed)
        solved = solve(given, plan_of(cell.method, given, cell.spacing), cell.ladder)
        about = {"psnr": solved.psnr, "tv": given.score(given.start), "seconds": solved.seconds}
        return about | {"residual": solved.residual}

    cells.belongs(out, settings())
    cells.measure(chosen, out, run, lambda cell: cell.levels, desc="schedule", most=most)


def read(out: Path) -> Found:
    """The cells that are there."""
    return cells.read(out, Cell)
