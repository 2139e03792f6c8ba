"""Tables and a picture of whatever cells there are."""

from __future__ import annotations

import itertools

import numpy as np
from matplotlib.figure import Figure

from padis_jax.benchmark.paired import interval
from padis_jax.errors import UserError
from studies.schedule.cells import (
    FIRST,
    LAST,
    LEVELS,
    METHODS,
    NEAREST,
    PRESET,
    RULE,
    RULED,
    Cell,
    Found,
    ranked,
)
from studies.schedule.rule import preset_cell
from studies.tasks import validation


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


def rule_table(found: Found) -> str:
    """The means over test images and seeds where the rule was run, and its differences; "" without any."""
    lines = ["| problem | method | levels | images | PSNR (dB) | rule less this (95 %) |", "|---|---|---|---|---|---|"]
    for problem, method in itertools.product(RULED, METHODS):
        own = {c: v for c, v in found.items() if (c.problem, c.method) == (problem, method)}
        of_rule = {c: v["psnr"] for c, v in own.items() if c.spacing == RULE}
        if not of_rule:
            continue
        usual = preset_cell(problem, method, "", 0)
        ends = {
            f"{first:g} to {last:g}": (first, last, "geometric") for first, last in ranked(found, problem, method)[:3]
        }
        ends["preset"] = (usual.first, usual.last, PRESET)
        rows = {"rule": of_rule, "total variation": {c: own[c]["tv"] for c in of_rule}}
        for name, (first, last, spacing) in ends.items():
            beside = {c: c._replace(first=first, last=last, spacing=spacing) for c in of_rule}
            rows[name] = {c: own[other]["psnr"] for c, other in beside.items() if other in own}
        for name, values in rows.items():
            if not values:
                continue
            by_image: dict[str, list[float]] = {}
            for cell, value in values.items():
                by_image.setdefault(cell.image, []).append(of_rule[cell] - value)
            less = "" if name == "rule" else interval([float(np.mean(d)) for d in by_image.values()]).text()
            mean = np.mean(list(values.values()))
            lines.append(f"| {problem} | {method} | {name} | {len(by_image)} | {mean:.2f} | {less} |")
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
