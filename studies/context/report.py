"""Tables of whatever cells there are, and whether context is to be kept."""

from __future__ import annotations

import numpy as np

from padis_jax.files import read_records
from studies.context.measured import ARMS, CONTEXT, GROUPS, LEVELS, PLAIN, SOLVED, Found

GAIN, LOSS = 0.5, 0.1  # dB: least on two of the first three problems, most at 20 views
BASELINES, SLICE = "docs/benchmark_quick.jsonl", 41  # the supervised networks' figures, of this slice alone


def supervised() -> dict[str, float]:
    """problem -> PSNR of the network that was trained for it, of slice 41 (docs/studies/baselines.md)."""
    return {
        r["task"]: r["psnr"]
        for r in read_records(BASELINES)
        if (r["method"], r["image"]) == ("supervised", f"slice {SLICE}")
    }


def tables(found: Found) -> str:
    """Means over slices and seeds for each group of slices, paired differences, the rule, and slice 41."""
    lines: list[str] = []
    for group, images in GROUPS.items():
        own = {cell: row for cell, row in found.items() if cell.image in images}
        if not own:
            continue
        lines += [f"**{group} slices** {', '.join(map(str, images))}", ""]
        head = ("problem", "cells", "TV", *ARMS, "context less plain", "of each slice")
        lines += [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
        gains = {}
        for problem in (*LEVELS, *SOLVED):
            line, each = _row(own, problem)
            lines += line
            if len(each) == len(images):
                gains[problem] = float(np.mean(list(each.values())))
        lines += ["", *verdict(gains), ""]
    slice_41 = [_compared(found, problem) for problem in SOLVED]
    if any(slice_41):
        lines += [f"**slice {SLICE}** beside the network that was trained for the problem ({BASELINES})", ""]
        lines += [
            f"| problem | {' | '.join(ARMS)} | supervised |",
            "|---" * (len(ARMS) + 2) + "|",
            *filter(None, slice_41),
        ]
    return "\n".join(lines) + "\n"


def verdict(gains: dict[str, float]) -> list[str]:
    """Whether the rule of the study keeps context, by the mean gains of all four problems; none without them."""
    if not set(SOLVED) <= set(gains):
        return []
    reached = [problem for problem in SOLVED[:3] if gains[problem] >= GAIN]
    kept = len(reached) >= 2 and gains["ct20"] >= -LOSS
    return [
        f"Gains of {GAIN:g} dB: {', '.join(reached) or 'none'}. At 20 views {gains['ct20']:+.2f} dB. "
        f"By the rule context is {'kept' if kept else 'not kept'}."
    ]


def _row(own: Found, problem: str) -> tuple[list[str], dict[int, float]]:
    """The line of a problem, if there is any cell, and the gain of each slice that both arms have, over seeds."""
    values = {cell: row for cell, row in own.items() if cell.problem == problem}
    if not values:
        return [], {}
    pairs = {cell: cell._replace(arm=PLAIN) for cell in values if cell.arm == CONTEXT}
    gains: dict[int, list[float]] = {}
    for cell, plain in pairs.items():
        if plain in values:
            gains.setdefault(cell.image, []).append(values[cell]["psnr"] - values[plain]["psnr"])
    each = {image: float(np.mean(gains[image])) for image in sorted(gains)}
    cells = [problem, str(len(values)), _mean([row["tv"] for row in values.values() if "tv" in row])]
    cells += [_mean([row["psnr"] for cell, row in values.items() if cell.arm == arm]) for arm in ARMS]
    cells += [f"{np.mean(list(each.values())):+.2f}" if each else "-"]
    cells += [", ".join(f"{value:+.2f}" for value in each.values()) or "-"]
    return [f"| {' | '.join(cells)} |"], each


def _compared(found: Found, problem: str) -> str:
    values = {
        arm: [r["psnr"] for c, r in found.items() if (c.problem, c.image, c.arm) == (problem, SLICE, arm)]
        for arm in ARMS
    }
    if not any(values.values()):
        return ""
    return f"| {problem} | {' | '.join(_mean(values[arm]) for arm in ARMS)} | {supervised()[problem]:.2f} |"


def _mean(values: list[float]) -> str:
    return f"{np.mean(values):.2f}" if values else "-"
