"""Tables and pictures of finished cells: results.md, results.json, pictures/PROBLEM.png; their names end in _only
where --only chose a part of the grid.
"""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from padis_jax.benchmark.cells import Result, read_image
from padis_jax.benchmark.data import Pictures
from padis_jax.benchmark.grid import Benchmark, Entry
from padis_jax.benchmark.methods import METHODS
from padis_jax.benchmark.networks import Networks
from padis_jax.benchmark.work import Work
from padis_jax.figures import gallery, save_figure
from padis_jax.files import write_bytes, write_json
from padis_jax.problems.registry import PROBLEMS

SCORES = ("psnr", "ssim", "residual", "evaluations", "seconds")
DIGITS = {"psnr": ".2f", "ssim": ".4f", "residual": ".2g", "evaluations": ".0f", "seconds": ".1f"}
HEADS = {"psnr": "PSNR (dB)", "ssim": "SSIM", "residual": "residual", "evaluations": "evaluations", "seconds": "s"}


class Spread(NamedTuple):
    """Mean and sample standard deviation (divided by n - 1; None for one value) of n values."""

    mean: float
    deviation: float | None
    n: int

    def text(self, digits: str) -> str:
        """As a table shows it."""
        mean = format(self.mean, digits)
        return mean if not self.deviation else f"{mean} ± {format(self.deviation, digits)}"


def spread(values: Sequence[float]) -> Spread:
    """Of at least one value."""
    return Spread(statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None, len(values))


class Line(NamedTuple):
    """A method on a problem, over images and seeds.

    Attributes:
      problem: the problem.
      method: the method.
      refused: why it is not run, or "".
      expected: cells in all.
      finished: cells that are done.
      diverged: finished cells without a score.
      failed: why cells could not be computed, each reason once.
      scores: name -> Spread over the finished cells that have that score; without a name where none has.
    """

    problem: str
    method: str
    refused: str
    expected: int
    finished: int
    diverged: int
    failed: tuple[str, ...]
    scores: dict[str, Spread]

    @property
    def note(self) -> str:
        """What is written instead of figures, or next to them."""
        if self.refused:
            return self.refused
        failures = [f"failed: {reason}" for reason in self.failed]
        if not self.finished:
            return ", ".join(failures) or "not run yet"
        notes = failures
        notes += [f"diverged: {self.diverged} of {self.finished}"] if self.diverged else []
        notes += [f"{self.finished} of {self.expected} cells"] if self.finished < self.expected else []
        return ", ".join(notes)

    def field(self, score: str) -> str:
        """One figure, with the note where there is one."""
        if score not in self.scores:
            return self.note
        return self.scores[score].text(DIGITS[score]) + (f" ({self.note})" if self.note else "")


def line(entry: Entry, results: Sequence[Result], expected: int, failed: Sequence[str] = ()) -> Line:
    """The summary of a method on a problem from its finished cells, and why others failed."""
    scored = [r for r in results if r.psnr is not None]
    values = {name: [getattr(r, name) for r in scored] for name in SCORES}
    there = {name: [float(v) for v in found if v is not None] for name, found in values.items()}
    scores = {name: spread(found) for name, found in there.items() if found}
    reasons = tuple(dict.fromkeys(failed))
    return Line(*entry, expected, len(results), len(results) - len(scored), reasons, scores)


def markdown(lines: Sequence[Line], pictures: Mapping[str, Pictures], about: Mapping[str, Any]) -> str:
    """The tables: PSNR of all methods on all problems, then all scores of each problem."""
    problems = list(dict.fromkeys(item.problem for item in lines))
    methods = list(dict.fromkeys(item.method for item in lines))
    by = {(item.problem, item.method): item for item in lines}
    text = ["# Methods and problems", "", *(f"* {name}: {value}" for name, value in about.items()), ""]
    text += ["## PSNR in dB", "", *_table(("method", *problems), [(m, *_psnr(by, problems, m)) for m in methods])]
    for problem in problems:
        shown = pictures[problem]
        caption = f"{PROBLEMS[problem].description}; {shown.title}: {', '.join(shown.names)}."
        text += ["", f"## {problem}", "", caption, ""]
        rows = [by[problem, method] for method in methods if (problem, method) in by]
        text += _table(
            ("method", *(HEADS[s] for s in SCORES)),
            [
                (r.method, r.field("psnr"), *(r.scores[s].text(DIGITS[s]) if s in r.scores else "" for s in SCORES[1:]))
                for r in rows
            ],
        )
    text += ["", "## Methods", "", *(f"* `{name}`: {METHODS[name].text}" for name in methods)]
    return "\n".join(text) + "\n"


def _psnr(by: Mapping[tuple[str, str], Line], problems: Sequence[str], method: str) -> list[str]:
    return [by[problem, method].field("psnr") if (problem, method) in by else "not chosen" for problem in problems]


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    cells = [[field.replace("|", "/") for field in row] for row in rows]  # a message may hold what ends a field
    return [f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *cells)]


def write_tables(
    folder: Path,
    config: Benchmark,
    lines: Sequence[Line],
    results: Sequence[Result],
    pictures: Mapping[str, Pictures],
    about: Mapping[str, Any],
) -> None:
    """Writes results.md and results.json, or with --only the files beside them."""
    write_bytes(folder / f"results{part(config)}.md", markdown(lines, pictures, about).encode())
    table = [
        {**item._asdict(), "note": item.note, "scores": {name: s._asdict() for name, s in item.scores.items()}}
        for item in lines
    ]
    write_json(
        folder / f"results{part(config)}.json",
        {"config": dataclasses.asdict(config), "about": dict(about), "table": table, "cells": list(results)},
    )


def part(config: Benchmark) -> str:
    """What the names of tables and pictures end in: a part of the grid must not take the place of the whole."""
    return "_only" if config.only else ""


def summarise(
    config: Benchmark, work: Work, folder: Path, finished: Mapping[str, Result], failed: Mapping[str, str]
) -> list[Line]:
    """Writes tables and pictures of what is finished; returns the fields of the table.

    Args:
      config: of the grid.
      work: its cells.
      folder: of all results.
      finished: fingerprint -> result.
      failed: fingerprint -> why a cell could not be computed.
    """
    lines = []
    for entry in work.fields:
        cells = [job.cell for job in work.jobs if (job.cell.problem, job.cell.method) == (entry.problem, entry.method)]
        done = [finished[cell.fingerprint] for cell in cells if cell.fingerprint in finished]
        lines.append(line(entry, done, len(cells), [failed[c.fingerprint] for c in cells if c.fingerprint in failed]))
    about = {
        "preset": config.preset,
        "seeds": ", ".join(map(str, config.seeds)),
        "networks": _names(work.networks) or "none",
        "figures": "mean ± sample standard deviation over images and seeds; seconds without XLA's compilation; "
        "tracing, a second or so per new shape, is in them",
        "computed with": ", ".join(sorted({result.software for result in finished.values()})) or "nothing yet",
    }
    ordered = [finished[job.cell.fingerprint] for job in work.jobs if job.cell.fingerprint in finished]
    write_tables(folder, config, lines, ordered, work.pictures, about)
    for problem, pictures in work.pictures.items():
        images: dict[str, Any] = {}
        for cell in (job.cell for job in work.jobs if job.shown and job.cell.problem == problem):
            if (result := finished.get(cell.fingerprint)) is None or result.psnr is None:
                continue
            if cell.path(folder).with_suffix(".npy").exists():  # else it is from a file of finished cells
                images[cell.method] = read_image(folder, cell, pictures.image_shape)
        if images:
            figure = gallery(pictures.images[0], images, window=pictures.window, origin=pictures.origin)
            save_figure(folder / f"pictures{part(config)}" / f"{problem}.png", figure, dpi=150)
    return lines


def _names(networks: Networks) -> str:
    everything = [*networks.by_kind.values(), *networks.supervised.values()]
    return ", ".join(f"{Path(item.path).name} (SHA-256 {item.digest[:12]})" for item in everything)
