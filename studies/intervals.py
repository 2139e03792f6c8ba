"""A picture of the intervals in the tables of a docs page, so that page and picture cannot differ.

    python -m studies.intervals docs/studies/adaptation.md --column "less plain" --out docs/images/adaptation.png
    python -m studies.intervals docs/studies/other_data.md --column "less TV" --out docs/images/other_data.png

It takes every table that has a column beginning so, with values such as "-1.18 (-1.53 to -0.96)". Under a heading
"SET, PROBLEM" a row is a method of that problem, and each set has a panel; elsewhere the first two columns of a row
name what it is of and the method.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from matplotlib.figure import Figure

from padis_jax.errors import UserError, one_line_errors
from padis_jax.figures import save_figure
from padis_jax.figures.style import COLOURS, SMALL, TEXT

VALUE = re.compile(r"([+-]?[\d.]+)(?: \(([+-]?[\d.]+) to ([+-]?[\d.]+)\))?$")


class Entry(NamedTuple):
    """A value of a table: its panel, what it is of, its method, and the mean with its ends, None without."""

    panel: str
    of: str
    method: str
    mean: float
    low: float | None
    high: float | None


@one_line_errors()
def main(argv: Sequence[str] | None = None) -> None:
    """Draws one picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("page", type=Path)
    parser.add_argument("--column", required=True, help="how its title begins")
    parser.add_argument("--leave-out", nargs="*", default=[], metavar="METHOD")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args(argv)
    if not args.page.is_file():
        raise UserError(f"{args.page}: no such file")
    found = entries(args.page.read_text(), args.column)
    if not found:
        raise UserError(f"{args.page}: no table has values in a column that begins with {args.column!r}")
    label = next(title for title in titles(args.page.read_text()) if title.startswith(args.column))
    save_figure(args.out, figure([entry for entry in found if entry.method not in args.leave_out], label))
    print(args.out)


def entries(page: str, column: str) -> list[Entry]:
    """The values of all tables that have such a column."""
    found: list[Entry] = []
    heading, at = "", None
    for line in page.splitlines():
        if line.startswith("#"):
            heading = line.lstrip("# ").strip()
        if not line.startswith("|"):
            at = None
            continue
        cells = _cells(line)
        if at is None:
            at = next((i for i, title in enumerate(cells) if title.startswith(column)), -1)
        elif at >= 0 and (value := VALUE.match(cells[at])):
            panel, _, of = heading.rpartition(", ")
            names = (panel, of, cells[0]) if panel else ("", *cells[:2])
            found.append(Entry(*names, *(None if v is None else float(v) for v in value.groups())))  # type: ignore[arg-type]
    return found


def titles(page: str) -> list[str]:
    """Of all columns."""
    return [cell for line in page.splitlines() if line.startswith("|") for cell in _cells(line)]


def figure(found: Sequence[Entry], label: str) -> Figure:
    """A panel for each set, a line for each row; methods side by side in colours."""
    panels, methods = list(dict.fromkeys(e.panel for e in found)), list(dict.fromkeys(e.method for e in found))
    most = max(len({e.of for e in found if e.panel == panel}) for panel in panels)
    size = 2.0 + 2.4 * len(panels), 1.2 + (0.14 + 0.12 * len(methods)) * most
    drawn = Figure(figsize=size, layout="constrained")
    for ax, panel in zip(drawn.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        rows = list(dict.fromkeys(e.of for e in found if e.panel == panel))
        for entry in (e for e in found if e.panel == panel):
            index = methods.index(entry.method)
            y = rows.index(entry.of) + (index - (len(methods) - 1) / 2) * 0.7 / len(methods)
            ends = [[entry.mean - low] for low in (entry.low,) if low is not None]
            ends += [[high - entry.mean] for high in (entry.high,) if high is not None]
            style = {"color": COLOURS[index % len(COLOURS)], "markersize": 3, "label": entry.method}
            ax.errorbar([entry.mean], [y], xerr=ends or None, fmt="o", elinewidth=1, **style)
        ax.axvline(0, color="grey", linewidth=0.5)
        ax.set_yticks(range(len(rows)), rows, fontsize=SMALL)
        ax.invert_yaxis()
        ax.set_title(panel, fontsize=TEXT)
        ax.set_xlabel(label, fontsize=SMALL)
        ax.tick_params(axis="x", labelsize=SMALL)
    handles = {text: handle for ax in drawn.axes for handle, text in zip(*ax.get_legend_handles_labels(), strict=True)}
    drawn.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=len(methods), fontsize=SMALL - 1)
    return drawn


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip().strip("|").split("|")]


if __name__ == "__main__":
    main()
