"""Warnings on a result that can be had without a truth.

`worse_explained`: ||y - A x|| / ||y|| of the last row, r, against t of total variation and s = E ||noise|| / ||y||. The prior's
image is doubted where

    r > 2 max(t, s, 0.01)

A right image leaves s of the measurement, within a few per cent of s where there are many entries, so r <= s says nothing
against it, however small t is: TV then fits the noise. Methods stop at up to 1.6 s (docs/benchmark_other.jsonl), hence the
factor. Where the noise is 0 or not known, t also carries what the operator does not model; a hundredth of the measurement
is what a good image may leave for its settings (the prior's image is better than TV's in the noiseless cells of
docs/benchmark_quick.jsonl with r = 0.002 and t = 0.0003).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from padis_jax.runs.solve import TV_ROW

FACTOR, FLOOR = 2.0, 0.01

Scores = Mapping[str, Any]  # a row's fields by their names, as `Row.shown`


def doubts(rows: Sequence[Scores], noise: float) -> list[str]:
    """What speaks against the result of one image, a line each; empty where nothing does.

    Args:
      rows: in their order, the solver's last.
      noise: expected ||noise|| / ||y||; 0 where it is not known.
    """
    if (found := worse_explained(rows, noise)) is None:
        return []
    prior, tv, noise = found
    known = f", the noise {noise:.2%}" if noise else ""
    return [
        f"{rows[-1]['method']} explains the measurement worse than total variation does, beyond the noise: it leaves "
        f"{prior:.2%} of it, {TV_ROW} {tv:.2%}{known}. The prior may not know such objects, or the settings may not suit "
        "the measurement; compare the pictures before trusting either"
    ]


def doubts_of_slices(slices: Sequence[tuple[int, Sequence[Scores], float]]) -> list[str]:
    """The same for slices (number, rows, noise), in one line that names the first few."""
    found = [number for number, rows, noise in slices if worse_explained(rows, noise) is not None]
    if not found:
        return []
    named = ", ".join(map(str, found[:10])) + (" ..." if len(found) > 10 else "")
    return [
        f"{slices[0][1][-1]['method']} explains the measurement worse than total variation does, beyond the noise, in "
        f"{len(found)} of {len(slices)} slices ({named}). The prior may not know such objects, or the settings may not "
        "suit the measurement; compare the pictures before trusting either"
    ]


def worse_explained(rows: Sequence[Scores], noise: float) -> tuple[float, float, float] | None:
    """(r, t, s) where the last row is doubted, else None; see the top of the module."""
    residuals = {row["method"]: row.get("residual") for row in rows}
    tv = residuals.get(TV_ROW)
    if not rows or tv is None or rows[-1]["method"] == TV_ROW or (prior := residuals[rows[-1]["method"]]) is None:
        return None
    noise = noise if math.isfinite(noise) else 0.0
    return (prior, tv, noise) if prior > FACTOR * max(tv, noise, FLOOR) else None
