"""The best PSNR of few evaluations: docs/studies/evaluations.md.

    python -m studies.evaluations curves --problems ct20            2 to 100 evaluations, four methods
    python -m studies.evaluations curves --budgets 2 5 10 --most 12
    python -m studies.evaluations search --budgets 2 5 10           levels by coordinate search from the best range
    python -m studies.evaluations table                             of whatever there is
    python -m studies.evaluations figure

A method is run with the ranges of noise levels that `WAYS` lists and the best of them counts, on the validation image,
which it is chosen on. Every cell has a file in --out: rerun the same command to resume. `search` begins at what
`curves` found. All other settings are the preset's for so many evaluations, momentum and averaging included.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import json
import math
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure

from padis_jax.errors import UserError, one_line_errors
from padis_jax.figures import save_figure
from padis_jax.figures.style import COLOURS
from padis_jax.files import write_json
from padis_jax.noise import geometric_ladder
from padis_jax.solvers.presets import Plan, preset
from studies import cells
from studies.tasks import Task, settings, solve, task, validation

PROBLEMS = ("ct20", "ct8", "deblur9", "inpaint_random")
BUDGETS = (2, 5, 10, 25, 50, 100)
FIXED_WEIGHT = {"ct": 0.003, "few": 0.003, "small": 0.03}  # docs/studies/tune.md, at one level
# way -> method and the ranges it is tried with, first and last level; one level where both are the same
WAYS: dict[str, tuple[str, tuple[tuple[float, float], ...]]] = {
    "plug-and-play, falling": ("pnp_admm", ((0.1, 0.01), (0.1, 0.03), (0.3, 0.03))),
    "plug-and-play, one level": ("pnp_admm", ((0.02, 0.02), (0.03, 0.03), (0.05, 0.05))),
    "DDS": ("dds", ((0.2, 0.003), (0.2, 0.02), (0.05, 0.01))),
    "DPS": ("dps", ((0.2, 0.003), (0.2, 0.02), (0.05, 0.01))),
}
FALLING = "plug-and-play, falling"
TRIALS = 24  # runs of a search, at most
FACTOR = 2.0  # of its first steps


class Cell(NamedTuple):
    """A run: problem, way, image, seed, evaluations, first and last level."""

    problem: str
    way: str
    image: str
    seed: int
    budget: int
    first: float
    last: float

    @property
    def name(self) -> str:
        """Of its file."""
        parts = (f"{value:g}" if isinstance(value, float) else str(value) for value in self)
        return "_".join(parts).replace(", ", "-").replace(" ", "-") + ".json"


Found = dict[Cell, dict[str, Any]]


@one_line_errors()
def main(argv: Sequence[str] | None = None) -> None:
    """Runs one part."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=("curves", "search", "table", "figure"))
    parser.add_argument("--problems", nargs="+", choices=PROBLEMS, default=PROBLEMS)
    parser.add_argument("--ways", nargs="+", choices=tuple(WAYS), default=tuple(WAYS))
    parser.add_argument("--budgets", nargs="+", type=int, default=BUDGETS, help="evaluations, 2 or more")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--most", type=int, help="new cells in this call")
    parser.add_argument("--out", type=Path, default=Path("results/evaluations"))
    args = parser.parse_args(argv)
    if min(args.budgets) < 2:
        raise UserError(f"--budgets {args.budgets}: a range of levels needs 2 evaluations or more")
    if args.part == "curves":
        measure(curve_cells(args), args.out, args.most)
    elif args.part == "search":
        for problem, budget, seed in itertools.product(args.problems, args.budgets, args.seeds):
            searched(problem, budget, seed, args.out)
    elif args.part == "figure":
        save_figure(args.out / "curves.png", figure(read(args.out)))
        print(args.out / "curves.png")
    else:
        print(tables(args.out))


def curve_cells(args: argparse.Namespace) -> list[Cell]:
    """Every way with every range, small budgets first."""
    grid = itertools.product(args.seeds, args.problems, sorted(args.budgets), args.ways)
    return [Cell(p, w, validation(p), s, b, *ends) for s, p, b, w in grid for ends in WAYS[w][1]]


def best_of(found: Found, problem: str, way: str, budget: int, seed: int) -> Cell:
    """The cell of the highest PSNR.

    Raises:
      UserError: where `curves` has not been run.
    """
    wanted = (problem, way, validation(problem), seed, budget)
    own = [c for c in found if c[:5] == wanted]
    if not own:
        flags = f"--problems {problem} --budgets {budget} --seeds {seed}"
        raise UserError(f"no {way} at {budget}: run `python -m studies.evaluations curves {flags}` first")
    return max(own, key=lambda cell: float(found[cell]["psnr"]))


def plan_of(cell: Cell, given: Task) -> Plan:
    """The preset of the cell's way, with its one level if it has one."""
    plan = preset(WAYS[cell.way][0], given.kind, cell.budget)
    if plan.method != "pnp_admm":
        return plan
    changed: dict[str, Any] = {"sigma": 0.0}
    if cell.first == cell.last:
        changed = {"sigma": cell.first, "weight": FIXED_WEIGHT[given.kind]}
    return plan._replace(settings=dataclasses.replace(plan.settings, **changed))


def ladder_of(cell: Cell) -> np.ndarray:
    """The levels; of one level a ladder that is not looked at."""
    ends = (cell.first, cell.last) if cell.first > cell.last else (1.0, 0.1)
    return geometric_ladder(cell.budget, *ends)


def measure(chosen: Iterable[Cell], out: Path, most: int | None = None) -> None:
    """Runs the cells that have no file, at most so many of them."""

    def run(cell: Cell) -> dict[str, Any]:
        given = task(cell.problem, cell.image, cell.seed)
        solved = solve(given, plan_of(cell, given), ladder_of(cell))
        return {"psnr": solved.psnr, "tv": given.score(given.start), "seconds": solved.seconds}

    cells.belongs(out, settings())
    cells.measure(chosen, out, run, lambda cell: cell.budget, desc="evaluations", most=most)


def read(out: Path) -> Found:
    """The cells that are there."""
    return cells.read(out, Cell)


def searched(problem: str, budget: int, seed: int, out: Path) -> dict[str, Any]:
    """The levels of plug-and-play by coordinate search from its best range; a file keeps every run."""
    begin = best_of(read(out), problem, FALLING, budget, seed)
    file = out / "search" / f"{problem}_{budget}_{seed}.json"
    kept = {tuple(row["levels"]): row["psnr"] for row in (json.loads(file.read_text()) if file.exists() else [])}
    given = task(problem, begin.image, seed)
    plan = plan_of(begin, given)

    def value(levels: tuple[float, ...]) -> float:
        if levels not in kept:
            kept[levels] = solve(given, plan, levels).psnr
            write_json(file, [{"levels": known, "psnr": psnr} for known, psnr in kept.items()])
            print(f"{kept[levels]:6.2f} dB  {problem}, {', '.join(f'{level:.3g}' for level in levels)}", flush=True)
        return kept[levels]

    start = tuple(float(f"{level:.4g}") for level in ladder_of(begin))
    best = coordinate_search(value, start, TRIALS)
    return {"levels": best, "psnr": value(best), "start": value(start)}


def coordinate_search(
    value: Callable[[tuple[float, ...]], float], start: tuple[float, ...], trials: int
) -> tuple[float, ...]:
    """Descending levels of a high value: one level at a time is multiplied or divided by a factor, if that is better.

    Where no level's change is better the factor becomes its root. Changes that would break the order are passed over.

    Args:
      value: of levels, to be made high.
      start: levels, descending.
      trials: calls of `value` at most, that of `start` included.
    """
    best, top, left, factor = start, value(start), trials - 1, FACTOR
    while left > 0 and factor > 1.01:
        moved = False
        for index, power in itertools.product(range(len(start)), (1, -1)):
            changed = float(f"{best[index] * factor**power:.4g}")
            levels = (*best[:index], changed, *best[index + 1 :])
            if left <= 0 or any(low >= high for high, low in itertools.pairwise(levels)):
                continue
            left -= 1
            if (found := value(levels)) > top:
                best, top, moved = levels, found, True
        factor = factor if moved else math.sqrt(factor)
    return best


def rows(out: Path) -> dict[str, dict[str, dict[int, tuple[float, str]]]]:
    """problem -> row -> budget -> (mean PSNR over seeds of each one's best, with what)."""
    found = read(out)
    table: dict[str, dict[str, dict[int, list[tuple[float, str]]]]] = {}
    for problem, way, budget, seed in dict.fromkeys((c.problem, c.way, c.budget, c.seed) for c in found):
        cell = best_of(found, problem, way, budget, seed)
        what = f"{cell.first:g}" + (f" to {cell.last:g}" if cell.first > cell.last else "")
        own = table.setdefault(problem, {}).setdefault(way, {})
        own.setdefault(budget, []).append((found[cell]["psnr"], what))
    for file in sorted((out / "search").glob("*.json")):
        problem, evaluations, _ = file.stem.rsplit("_", 2)
        best = max(json.loads(file.read_text()), key=lambda row: row["psnr"])
        levels = ", ".join(f"{level:.2g}" for level in best["levels"])
        at = table.setdefault(problem, {}).setdefault("plug-and-play, searched", {})
        at.setdefault(int(evaluations), []).append((best["psnr"], levels))
    return {
        problem: {
            name: {b: (float(np.mean([psnr for psnr, _ in each])), each[0][1]) for b, each in sorted(row.items())}
            for name, row in own.items()
        }
        for problem, own in table.items()
    }


def tables(out: Path) -> str:
    """A table for each problem; a cell has the PSNR and, in brackets, the levels."""
    lines: list[str] = []
    for problem, own in rows(out).items():
        budgets = sorted({budget for row in own.values() for budget in row})
        lines += [f"**{problem}**, {validation(problem)}", "", f"| evaluations | {' | '.join(map(str, budgets))} |"]
        lines.append("|---" * (len(budgets) + 1) + "|")
        for name, row in own.items():
            shown = (f"{row[b][0]:.2f} ({row[b][1]})" if b in row else "-" for b in budgets)
            lines.append(f"| {name} | {' | '.join(shown)} |")
        lines.append("")
    return "\n".join(lines)


def figure(found: Found) -> Figure:
    """A curve of each way for each problem, of the first seed."""
    problems = list(dict.fromkeys(cell.problem for cell in found))
    if not problems:
        raise UserError("no cell is there yet: run `python -m studies.evaluations curves` first")
    drawn = Figure(figsize=(3.2 * len(problems), 2.8), layout="constrained")
    for ax, problem in zip(np.atleast_1d(drawn.subplots(1, len(problems))), problems, strict=True):
        for colour, way in zip(COLOURS, WAYS, strict=False):
            own = sorted({(c.budget, c.seed) for c in found if (c.problem, c.way) == (problem, way)})
            best = [best_of(found, problem, way, budget, seed) for budget, seed in own if seed == own[0][1]]
            along = [cell.budget for cell in best]
            ax.plot(along, [found[cell]["psnr"] for cell in best], "o-", color=colour, label=way, markersize=3)
        ax.set_xscale("log")
        ax.set_xticks(BUDGETS, map(str, BUDGETS), fontsize=7)
        ax.set_xlabel("evaluations", fontsize=8)
        ax.set_ylabel("PSNR (dB)", fontsize=8)
        ax.set_title(problem, fontsize=8)
    drawn.axes[0].legend(fontsize=6)
    return drawn


if __name__ == "__main__":
    main()
