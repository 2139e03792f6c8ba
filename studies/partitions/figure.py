"""The study's picture: what averaging takes away by noise level, and PSNR by K at a fixed number of evaluations."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from padis_jax.benchmark.paired import interval
from padis_jax.errors import UserError
from padis_jax.figures.style import COLOURS, dress

NAMES = {"small": "56 x 56, P = 16", "large": "256 x 256, P = 56"}
Cells = dict[tuple[int, bool, int, int], float]  # (K, corrected, slice, seed) -> PSNR


def read_cells(folder: Path) -> Cells:
    """The finished cells of a size."""
    found = {}
    for file in sorted(folder.glob("*.json")):
        index, seed, tilings, corrected = map(int, file.stem.split("_"))
        found[tilings, bool(corrected), index, seed] = json.loads(file.read_text())["row"]["psnr"]
    return found


def losses(cells: Cells, tilings: int) -> list[float]:
    """PSNR with K tilings less that with one, of each slice, means over the seeds that both have."""
    pairs: dict[int, list[float]] = {}
    for (k, corrected, index, seed), value in cells.items():
        if k == tilings and not corrected and (1, False, index, seed) in cells:
            pairs.setdefault(index, []).append(value - cells[1, False, index, seed])
    return [float(np.mean(values)) for values in pairs.values()]


def figure(out: Path) -> Figure:
    """Of what is there, at least the moments of one size."""
    moments = {size: out / f"moments_{size}.json" for size in NAMES if (out / f"moments_{size}.json").exists()}
    if not moments:
        raise UserError(f"{out}: nothing is measured yet: run `python -m studies.partitions measured` first")
    drawn = Figure(figsize=(7.2, 2.6), layout="constrained")
    left, right = drawn.subplots(1, 2)
    for colour, (size, name) in zip(COLOURS, NAMES.items(), strict=False):
        if size in moments:
            rows = json.loads(moments[size].read_text())["row"]["levels"]
            sigma = [row["sigma"] for row in rows]
            taken = [100 * (1 - row["average"] / row["one"]) for row in rows]
            share = [100 * row["variance"] / row["sigma"] ** 2 for row in rows]
            left.semilogx(sigma, taken, "o-", color=colour, markersize=4, label=f"error taken away, {name}")
            left.semilogx(sigma, share, "s--", color=colour, markersize=3, label="variance over sigma^2")
        cells = read_cells(out / size)
        counts = [k for k in sorted({k for k, *_ in cells}) if losses(cells, k)]
        if counts:
            found = [interval(losses(cells, k)) for k in counts]
            half = [0.0 if one.high is None else one.high - one.mean for one in found]
            right.errorbar(
                counts, [one.mean for one in found], half, fmt="o-", color=colour, markersize=4, capsize=2, label=name
            )
    left.set_ylim(top=1.45 * left.get_ylim()[1])  # room for the legend
    dress(left, "noise level", "per cent", legend=True)
    dress(right, "tilings in an evaluation, K", "PSNR less that of K = 1 (dB)", legend=True)
    right.set_xscale("log", base=2)
    right.set_xticks([1, 2, 4, 8, 16, 64], ["1", "2", "4", "8", "16", "64"])
    return drawn
