"""The noise levels of a run: first, last, spacing and number; docs/studies/schedule.md.

    python -m studies.schedule map                  first x last level, 25 levels, validation images
    python -m studies.schedule map --problems ct20 --methods pnp_admm --seeds 0 --most 5
    python -m studies.schedule lines                through the best of the map: spacing, number, other problems
    python -m studies.schedule table                the tables of whatever cells there are
    python -m studies.schedule figure               the maps as a picture

All else is the preset of the problem's kind. Every cell has a file in --out: rerun the same command to resume. `lines`
begins at what `map` found.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure
from tqdm import tqdm

from padis_jax.errors import UserError, one_line_errors
from padis_jax.figures import save_figure
from padis_jax.files import write_json
from padis_jax.noise import edm_ladder, geometric_ladder
from padis_jax.solvers.presets import Plan, preset
from studies.tasks import Task, solve, task, validation

FIRST = tuple(float(f"{0.04 * 10 ** (i / 2):.3g}") for i in range(5))  # two decades
LAST = tuple(float(f"{0.001 * 10 ** (i / 2):.3g}") for i in range(4))  # one and a half
SPACINGS = ("geometric", "3", "5", "7")  # or Karras' rho
COUNTS = (10, 15, 25, 50, 100)
LEVELS = 25
METHODS = ("pnp_admm", "dds", "dps")
MAPPED = {"problems": ("ct20", "deblur9"), "methods": METHODS[:2]}
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
        if self.spacing == "geometric":
            return geometric_ladder(self.levels, self.first, self.last)
        return edm_ladder(self.levels, self.first, self.last, float(self.spacing))


Found = dict[Cell, dict[str, Any]]


@one_line_errors()
def main(argv: Sequence[str] | None = None) -> None:
    """Runs one part."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=("map", "lines", "table", "figure"))
    parser.add_argument("--problems", nargs="+", choices=tuple(NEAREST), help="default: of map two of them, else all")
    parser.add_argument("--methods", nargs="+", choices=METHODS, help="default: of map two of them, else all")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--most", type=int, help="new cells in this call, for a machine that others use too")
    parser.add_argument("--out", type=Path, default=Path("results/schedule"))
    args = parser.parse_args(argv)
    mapped = MAPPED if args.part == "map" else {"problems": tuple(NEAREST), "methods": METHODS}
    problems, methods = (getattr(args, name) or mapped[name] for name in ("problems", "methods"))
    if args.part == "map":
        measure(map_cells(problems, methods, args.seeds), args.out, args.most)
    elif args.part == "lines":
        cells = line_cells(read(args.out), problems, methods, args.seeds)
        measure(cells, args.out, args.most)
    elif args.part == "figure":
        save_figure(args.out / "map.png", figure(read(args.out)))
        print(args.out / "map.png")
    else:
        print(tables(read(args.out)))


def plan_of(method: str, given: Task) -> Plan:
    """The preset, on levels that fall."""
    plan = preset(method, given.kind, LEVELS)
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
    cells = []
    for seed, problem, method in itertools.product(seeds, problems, methods):
        nearest = NEAREST[problem], method if method in MAPPED["methods"] else "dds"
        if (best := best_of(found, *nearest)) is None:
            flags = f"--problems {nearest[0]} --methods {nearest[1]}"
            raise UserError(f"no map of {' '.join(nearest)}: run `python -m studies.schedule map {flags}` first")
        middle = Cell(problem, method, validation(problem), seed, *best)
        if nearest == (problem, method):
            cells += [middle._replace(spacing=spacing) for spacing in SPACINGS]
            cells += [middle._replace(levels=levels) for levels in COUNTS]
        else:
            cells += [middle._replace(first=first) for first in FIRST]
            cells += [middle._replace(last=last) for last in LAST]
    return list(dict.fromkeys(cells))


def best_of(found: Found, problem: str, method: str) -> tuple[float, float] | None:
    """First and last level of the highest mean PSNR on the validation image, of 25 geometric levels; None without."""
    image = validation(problem)
    own: dict[tuple[float, float], list[float]] = {}
    for cell, values in found.items():
        if cell == Cell(problem, method, image, cell.seed, cell.first, cell.last):
            own.setdefault((cell.first, cell.last), []).append(values["psnr"])
    return max(own, key=lambda ends: float(np.mean(own[ends])), default=None)


def measure(cells: Iterable[Cell], out: Path, most: int | None = None) -> None:
    """Runs the cells that have no file, at most so many of them, and says what they cost."""
    left = [cell for cell in cells if not (out / "cells" / cell.name).exists()]
    known = [values["seconds"] for values in read(out).values()]
    each = f", {np.median(known):.0f} s each by those there are" if known else ""
    print(f"{len(left)} cells to run, {sum(c.levels for c in left)} evaluations{each}", flush=True)
    for cell in tqdm(left[:most], desc="schedule", unit="cell"):
        given = task(cell.problem, cell.image, cell.seed)
        solved = solve(given, plan_of(cell.method, given), cell.ladder)
        about = {"psnr": solved.psnr, "tv": given.score(given.start), "seconds": solved.seconds}
        write_json(out / "cells" / cell.name, cell._asdict() | about | {"residual": solved.residual})
        tqdm.write(f"{solved.psnr:6.2f} dB  {cell.name}")


def read(out: Path) -> Found:
    """The cells that are there."""
    found = {}
    for file in sorted((out / "cells").glob("*.json")):
        values = json.loads(file.read_text())
        found[Cell(**{name: values[name] for name in Cell._fields})] = values
    return found


def grid_of(found: Found, problem: str, method: str) -> np.ndarray:
    """Mean PSNR over seeds on the validation image: [last, first], NaN where nothing was run."""
    grid = np.full((len(LAST), len(FIRST)), np.nan)
    for (i, last), (j, first) in itertools.product(enumerate(LAST), enumerate(FIRST)):
        own = [v["psnr"] for c, v in found.items() if c == Cell(problem, method, c.image, c.seed, first, last)]
        grid[i, j] = np.mean(own) if own else np.nan
    return grid


def tables(found: Found) -> str:
    """The maps, then a row for each setting that was run beside them."""
    lines: list[str] = []
    for problem, method in itertools.product(NEAREST, METHODS):
        own = {
            c: v for c, v in found.items() if (c.problem, c.method, c.image) == (problem, method, validation(problem))
        }
        if not own:
            continue
        tv = np.mean([v["tv"] for v in own.values()])
        seeds = ", ".join(map(str, sorted({c.seed for c in own})))
        lines += [f"**{problem}, {method}**, {validation(problem)}, TV {tv:.2f} dB, seeds {seeds}", ""]
        if np.isfinite(grid := grid_of(own, problem, method)).any():
            lines += [f"| last, first | {' | '.join(f'{first:g}' for first in FIRST)} |", "|---" * 6 + "|"]
            lines += [f"| {last:g} | {' | '.join(map(_shown, row))} |" for last, row in zip(LAST, grid, strict=True)]
            lines.append("")
        rest = sorted({c._replace(seed=0) for c in own if (c.spacing, c.levels) != ("geometric", LEVELS)})
        if rest:
            lines += ["| first | last | spacing | levels | PSNR (dB) |", "|---|---|---|---|---|"]
            for cell in rest:
                value = np.mean([v["psnr"] for c, v in own.items() if c._replace(seed=0) == cell])
                spacing = cell.spacing if cell.spacing == "geometric" else f"rho {cell.spacing}"
                lines.append(f"| {cell.first:g} | {cell.last:g} | {spacing} | {cell.levels} | {value:.2f} |")
            lines.append("")
    return "\n".join(lines)


def _shown(value: float) -> str:
    return f"{value:.2f}" if np.isfinite(value) else "-"


def figure(found: Found) -> Figure:
    """A heat map for each problem and method that has one; the best of each with a ring, 3 dB below it is white."""
    pairs = list(itertools.product(NEAREST, METHODS))
    maps = {pair: grid for pair in pairs if np.isfinite(grid := grid_of(found, *pair)).sum() > len(FIRST) + len(LAST)}
    if not maps:
        raise UserError("no map is there yet: run `python -m studies.schedule map` first")
    drawn = Figure(figsize=(2.9 * len(maps), 2.6), layout="constrained")
    for ax, ((problem, method), grid) in zip(np.atleast_1d(drawn.subplots(1, len(maps))), maps.items(), strict=True):
        top = np.nanmax(grid)
        ax.imshow(grid, cmap="Blues", vmin=top - 3, vmax=top, aspect="auto")
        for (i, j), value in np.ndenumerate(grid):
            ax.text(j, i, _shown(value), ha="center", va="center", fontsize=7, color="w" if value > top - 1 else "k")
        i, j = np.unravel_index(np.nanargmax(grid), grid.shape)
        ax.plot(j, i, "o", markersize=26, markerfacecolor="none", markeredgecolor="#d55e00")
        ax.set_xticks(range(len(FIRST)), [f"{first:g}" for first in FIRST], fontsize=7)
        ax.set_yticks(range(len(LAST)), [f"{last:g}" for last in LAST], fontsize=7)
        ax.set_xlabel("first level", fontsize=8)
        ax.set_ylabel("last level", fontsize=8)
        ax.set_title(f"{problem}, {method}: PSNR (dB)", fontsize=8)
    return drawn


if __name__ == "__main__":
    main()
