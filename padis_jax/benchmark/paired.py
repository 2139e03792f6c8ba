"""Methods compared image by image: 95 % intervals of the differences in PSNR from finished cells, as a table.

    python -m padis_jax.benchmark --preset table --only ct20 --seeds 0 1 --cnn weights/cnn_head_ct.safetensors \\
        --lines docs/benchmark_table.jsonl
    python -m padis_jax.benchmark.paired docs/benchmark_table.jsonl
    python -m padis_jax.benchmark.paired docs/benchmark_table.jsonl --against dds --problem ct20

The difference to the method of --against is taken cell by cell (same image, same seed) and its mean over seeds for each
image. Images are the sample: the interval is mean +- t s / sqrt(n), with n images, s the sample standard deviation of
their differences and t the 97.5 % point of Student's distribution with n - 1 degrees of freedom. With one image there
is no interval. Cells that are not there are counted, and left out on both sides; methods
of the preset "table" without any are named below each table.
"""

from __future__ import annotations

import argparse
import math
import statistics
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from scipy import stats

from padis_jax.benchmark.cells import Result, read_lines
from padis_jax.benchmark.grid import PRESETS
from padis_jax.benchmark.report import DIGITS, HEADS, SCORES, spread
from padis_jax.errors import UserError, one_line_errors

LEVEL = 0.95
BUDGETS = (5, 10, 25, 50, 100, 1000)
AGAINST = "pnp_admm"


class Interval(NamedTuple):
    """Mean of paired differences and the ends of its interval, None where one image has none; n images."""

    mean: float
    low: float | None
    high: float | None
    n: int

    def text(self) -> str:
        """As a table shows it."""
        ends = "" if self.low is None else f" ({self.low:+.2f} to {self.high:+.2f})"
        return f"{self.mean:+.2f}{ends}"


def interval(differences: Sequence[float]) -> Interval:
    """Student's interval of the mean, of at least one image's difference."""
    mean, n = statistics.fmean(differences), len(differences)
    if n < 2:
        return Interval(mean, None, None, n)
    half = float(stats.t.ppf((1 + LEVEL) / 2, n - 1)) * statistics.stdev(differences) / math.sqrt(n)
    return Interval(mean, mean - half, mean + half, n)


def differences(ours: Sequence[Result], others: Sequence[Result]) -> dict[str, float]:
    """image -> mean over the seeds that both have of PSNR - PSNR of the other; diverged cells are left out."""
    known = {(r.image, r.seed): r.psnr for r in others if r.psnr is not None}
    found: dict[str, list[float]] = {}
    for r in ours:
        if r.psnr is not None and (r.image, r.seed) in known:
            found.setdefault(r.image, []).append(r.psnr - known[r.image, r.seed])
    return {image: statistics.fmean(values) for image, values in found.items()}


def markdown(results: Sequence[Result], *, against: str = AGAINST) -> str:
    """A table for each problem and budget: means and deviations over all cells, and the interval against a method.

    Args:
      results: cells.
      against: the method; of its cells those of the same budget, or its only ones.
    """
    groups: dict[tuple[str, int], dict[str, list[Result]]] = {}
    for r in results:
        groups.setdefault((r.problem, _budget(r)), {}).setdefault(r.method, []).append(r)
    free = {p: methods for (p, budget), methods in groups.items() if budget == 0}
    lines: list[str] = []
    for (problem, budget), own in sorted(groups.items()):
        if budget == 0 and any(p == problem and b for p, b in groups):
            continue  # the methods without a network stand in each of the problem's tables
        lines += _table(problem, budget, {**free.get(problem, {}), **own}, against)
    return "\n".join(lines)


def _table(problem: str, budget: int, methods: dict[str, list[Result]], against: str) -> list[str]:
    cells = {(r.image, r.seed) for found in methods.values() for r in found}
    images, seeds = sorted({image for image, _ in cells}), sorted({seed for _, seed in cells})
    title = f"{problem}, {budget} evaluations" if budget else problem
    about = f"{', '.join(images)}; seeds {', '.join(map(str, seeds))}"
    head = ("method", "cells", *(HEADS[s] for s in SCORES), f"PSNR - {against} (95 %)")
    lines = ["", f"### {title}", "", f"{about}.", "", f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    scored = {name: [r for r in found if r.psnr is not None] for name, found in methods.items()}
    means = {
        name: spread([r.psnr or 0.0 for r in found]).mean if found else -math.inf for name, found in scored.items()
    }
    for name in sorted(methods, key=lambda name: -means[name]):
        count, which = len(scored[name]), ", ".join(sorted({r.image for r in scored[name]}))
        row = [name, f"{count} of {len(cells)}" + (f": {which}" if 0 < count < len(cells) else "")]
        for score in SCORES:
            values = [float(v) for r in scored[name] if (v := getattr(r, score)) is not None]
            if score == "seconds" and values:  # a cell that was interrupted says nothing of the others
                row.append(f"{statistics.median(values):{DIGITS[score]}}")
            else:
                row.append(spread(values).text(DIGITS[score]) if values else "")
        paired = differences(scored[name], scored.get(against, []))
        row.append(interval(list(paired.values())).text() if paired and name != against else "")
        lines.append(f"| {' | '.join(row)} |")
    missing = [name for name in PRESETS["table"].methods if name not in methods]
    return [*lines, "", f"Without a cell: {', '.join(missing)}."] if missing else lines


def _budget(result: Result) -> int:
    """The smallest usual number of evaluations that a single run fits into; 0 of a method without levels."""
    method = result.config.get("method")
    if not isinstance(method, dict) or method.get("family") != "solver":
        return 0
    single = result.evaluations // max(1, int(method.get("samples", 1)))
    return next((budget for budget in BUDGETS if single <= budget), single)


@one_line_errors()
def main(argv: Sequence[str] | None = None) -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("files", nargs="+", help="files of finished cells (--lines of the benchmark)")
    parser.add_argument("--against", default=AGAINST, help=f"the method that others are compared with ({AGAINST})")
    parser.add_argument("--problem", action="append", help="only this one; may be repeated")
    args = parser.parse_args(argv)
    found: dict[str, Result] = {}
    for path in args.files:
        cells = read_lines(path)
        if not cells:
            raise UserError(f"{path}: no such file, or no finished cells in it")
        found |= cells
    results = [r for r in found.values() if not args.problem or r.problem in args.problem]
    if not results:
        raise UserError(f"--problem {', '.join(args.problem)}: no cells of it; there are {_problems(found)}")
    if not any(r.method == args.against for r in results):
        raise UserError(f"--against {args.against}: no cells of it")
    print(markdown(results, against=args.against).strip())


def _problems(results: Mapping[str, Result]) -> str:
    return ", ".join(sorted({r.problem for r in results.values()}))


if __name__ == "__main__":
    main()
