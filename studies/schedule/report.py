"""Tables and a picture of whatever cells there are."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from padis_jax.errors import UserError
from studies.schedule.cells import FIRST, LAST, LEVELS, MAPPED, METHODS, NEAREST, Cell, Found, ranked
from studies.schedule.rule import ends_of_preset, rule_file, rule_of
from studies.tasks import tests, validation


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


def rule_table(found: Found, out: Path) -> str:
    """The means over test images and seeds of what was run on all of them, and the loss of the rule; "" without any."""
    lines = ["| problem | method | levels | PSNR (dB) | less the best of the map |", "|---|---|---|---|---|"]
    for problem, method in itertools.product(*MAPPED.values()):
        own = {c: v["psnr"] for c, v in found.items() if (c.problem, c.method) == (problem, method)}
        own = {c: psnr for c, psnr in own.items() if c.image in tests(problem) and rule_file(c, out).exists()}
        of_rule = {c: psnr for c, psnr in own.items() if (c.first, c.last) == rule_of(c, out)}
        names = {f"{first:g} to {last:g}": (first, last) for first, last in ranked(found, problem, method)[:3]}
        best = list(names)
        names |= dict(zip(("preset",), ends_of_preset(problem, method), strict=False))
        means = {
            name: float(np.mean(values))
            for name, ends in names.items()
            if len(values := [own[c] for r in of_rule if (c := r._replace(first=ends[0], last=ends[1])) in own])
            == len(of_rule)
            > 0
        }
        if not of_rule or len(means) < len(names):
            continue
        means["rule"] = float(np.mean(list(of_rule.values())))
        top = max(means[name] for name in best)
        lines += [f"| {problem} | {method} | {n} | {m:.2f} | {m - top:+.2f} |" for n, m in means.items()]
    return "\n".join(lines) + "\n" if len(lines) > 2 else ""


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
