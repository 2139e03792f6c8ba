"""Tables and a picture of whatever cells there are: differences paired by slice, means over the seeds of both."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from matplotlib.figure import Figure

from padis_jax.benchmark.paired import Interval, interval
from padis_jax.errors import UserError
from padis_jax.figures.style import COLOURS, SMALL, TEXT
from studies.position.cells import POSES, Cell, Found

WAYS = ("coordinates", "none", "dropped", "fourier", "table")


def checked(found: Found) -> Found:
    """The cells.

    Raises:
      UserError: where there are none, or two networks of one name or two presets: their cells must not be mixed.
    """
    if not found:
        raise UserError("no cell is there yet: run `python -m studies.position measure` first")
    seen: dict[object, str] = {}
    for cell in found:
        for of, digest in ((cell[:4], cell.weights), (cell.method, cell.settings)):
            if seen.setdefault(of, digest) != digest:
                name = of if isinstance(of, str) else "_".join(map(str, of))
                raise UserError(f"cells of {name} are of two trainings or presets, {seen[of]} and {digest}: keep one")
    return found


def paired(found: Found, cells: list[Cell], other: Callable[[Cell], Cell], what: str = "psnr") -> list[float]:
    """For each slice the mean over seeds of a cell's value less that of its other, where both are there."""
    each: dict[str, list[float]] = {}
    for cell in cells:
        if (against := other(cell)) in found:
            each.setdefault(cell.image, []).append(_value(found, cell, what) - _value(found, against, what))
    return [float(np.mean(values)) for _, values in sorted(each.items())]


def tables(found: Found) -> str:
    """In the right pose, then the poses."""
    checked(found)
    return "\n".join([*_right(found), "", *_poses(found)]).strip() + "\n"


def _right(found: Found) -> list[str]:
    head = ("method", "P", "slices", "steps", "way", "given", "cells", "PSNR (dB)", "less TV", "less own coordinates")
    lines = [f"| {' | '.join((*head, 'wins', 'seeds apart'))} |", "|---" * (len(head) + 2) + "|"]
    groups: dict[tuple[object, ...], list[Cell]] = {}
    for cell in sorted(found, key=lambda c: (c.method, -c.patch, c.slices, c.steps, _place(c.way), c.given != "own")):
        if (cell.shift, cell.turn) == (0, 0):
            about: tuple[object, ...] = (
                cell.method,
                cell.patch,
                cell.slices or "all",
                cell.steps,
                cell.way,
                cell.given,
            )
            groups.setdefault(about, []).append(cell)
    for key, cells in groups.items():
        less = paired(found, cells, lambda cell: baseline(found, cell))
        mean = np.mean([found[cell]["psnr"] for cell in cells])
        lead = interval(tv_less(found, cells)).text()
        own = cells[0] == baseline(found, cells[0])
        against = interval(less).text() if less and not own else ""
        wins = f"{sum(value > 0 for value in less)} of {len(less)}" if against else ""
        words = (*map(str, key), str(len(cells)), f"{mean:.2f}", lead, against, wins, apart(found, cells))
        lines.append(f"| {' | '.join(words)} |")
    return lines


def _poses(found: Found) -> list[str]:
    groups = posed_groups(found)
    if not groups:
        return []
    titles = [_pose(pose) for pose in POSES[1:]]
    head = ("method", "network", "given", "right: less TV", *titles)
    lines = ["Change of PSNR less TV's from the right pose (dB):", ""]
    lines += [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for (method, network, given), by_pose in groups.items():
        right = interval(tv_less(found, by_pose[0, 0])).text() if (0, 0) in by_pose else ""
        shown = [change.text() if (change := lost(found, by_pose.get(pose, []))) else "" for pose in POSES[1:]]
        lines.append(f"| {' | '.join((method, network, given, right, *shown))} |")
    return lines


def posed_groups(found: Found) -> dict[tuple[str, str, str], dict[tuple[int, int], list[Cell]]]:
    """(method, network, given) -> pose -> cells, of what has a pose other than the right one."""
    every: dict[tuple[str, str, str], dict[tuple[int, int], list[Cell]]] = {}
    for cell in sorted(found, key=lambda c: (c.method, -c.patch, c.slices, c.steps, _place(c.way), c.given)):
        name = f"{cell.way}, P = {cell.patch}, {cell.slices or 'all'} slices, {cell.steps} steps"
        by_pose = every.setdefault((cell.method, name, cell.given), {})
        by_pose.setdefault((cell.shift, cell.turn), []).append(cell)
    return {key: by_pose for key, by_pose in every.items() if set(by_pose) - {(0, 0)}}


def lost(found: Found, cells: list[Cell]) -> Interval | None:
    """Of cells in a pose: the change of PSNR less TV's from the right pose; None without a pair."""
    change = paired(found, cells, lambda cell: cell._replace(shift=0, turn=0), "lead")
    return interval(change) if change else None


def tv_less(found: Found, cells: list[Cell]) -> list[float]:
    """For each slice the mean over seeds of PSNR less TV's."""
    each: dict[str, list[float]] = {}
    for cell in cells:
        each.setdefault(cell.image, []).append(_value(found, cell, "lead"))
    return [float(np.mean(values)) for _, values in sorted(each.items())]


def apart(found: Found, cells: list[Cell]) -> str:
    """Mean over slices of the deviation between seeds, "" with one."""
    each: dict[str, list[float]] = {}
    for cell in cells:
        each.setdefault(cell.image, []).append(found[cell]["psnr"])
    spread = [np.std(values, ddof=1) for values in each.values() if len(values) > 1]
    return f"{np.mean(spread):.2f}" if spread else ""


def baseline(found: Found, cell: Cell) -> Cell:
    """The cell that it is held against: coordinates with the same budget; of a weights file its own positions."""
    if cell.way not in WAYS:
        return cell._replace(given="own")
    weights = {c.weights for c in found if c[:4] == ("coordinates", *cell[1:4])}
    return cell._replace(way="coordinates", weights=min(weights, default=""), given="own")


def figure(found: Found) -> Figure:
    """Left: what positions are worth by the size of the patch, after the longest training; right: what a pose costs."""
    checked(found)
    drawn = Figure(figsize=(7.2, 2.8), layout="constrained")
    worth, cost = drawn.subplots(1, 2)
    for colour, slices in zip(COLOURS, sorted({c.slices for c in found if c.way == "none"}), strict=False):
        own = [c for c in found if c[7:11] == ("own", "pnp_admm", 0, 0) and c.way == "none" and c.slices == slices]
        for patch in sorted({c.patch for c in own}):
            longest = max(c.steps for c in own if c.patch == patch)
            those = [c for c in own if (c.patch, c.steps) == (patch, longest)]
            less = paired(found, those, lambda cell: baseline(found, cell))
            if less:
                _bar(worth, patch, interval([-value for value in less]), colour, f"{slices or 'all'} slices")
    for colour, ((method, network, given), by_pose) in zip(COLOURS, posed_groups(found).items(), strict=False):
        for index, pose in enumerate(POSES[1:]):
            if change := lost(found, by_pose.get(pose, [])):
                _bar(cost, index, change, colour, f"{method}, {network.split(' slices')[0]}, {given}")
    cost.set_xticks(range(len(POSES) - 1), [_pose(pose) for pose in POSES[1:]], fontsize=SMALL)
    for ax, title, label in (
        (worth, "coordinates less none (dB)", "P (pixels)"),
        (cost, "change of PSNR less TV's (dB)", "pose"),
    ):
        ax.set_title(title, fontsize=TEXT)
        ax.set_xlabel(label, fontsize=TEXT)
        ax.axhline(0, color="grey", linewidth=0.5)
        handles = dict(zip(*reversed(ax.get_legend_handles_labels()), strict=True))
        if handles:
            ax.legend(handles.values(), handles.keys(), fontsize=SMALL - 1)
    return drawn


def _bar(ax: object, at: float, value: Interval, colour: str, label: str) -> None:
    ends = [[0.0], [0.0]] if value.low is None else [[value.mean - value.low], [(value.high or 0.0) - value.mean]]
    ax.errorbar([at], [value.mean], yerr=ends, fmt="o", color=colour, label=label, markersize=3)  # type: ignore[attr-defined]


def _value(found: Found, cell: Cell, what: str) -> float:
    row = found[cell]
    return float(row["psnr"] - row["tv"] if what == "lead" else row[what])


def _place(way: str) -> int:
    return WAYS.index(way) if way in WAYS else -1


def _pose(pose: tuple[int, int]) -> str:
    shift, turn = pose
    return f"{shift} px" if shift else f"{turn} deg"
