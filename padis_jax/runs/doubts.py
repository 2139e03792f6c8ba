"""Warnings on a result that can be had without a truth.

`unlike`: the image of total variation, which knows no prior, has another brightness and contrast of its blocks than the
training images of the weights (blocks.py). Of one image it is told before the solver begins.

`worse_explained`: with r = ||y - A x|| / ||y|| of the last row, t that of total variation and s = E ||noise|| / ||y||,
the last image is doubted where

    r > 2 max(t, s, 0.01)

The right image leaves s of the measurement, so r <= s says nothing against an image, however small t is: TV then fits
the noise. Where the noise is not known, t stands for it and for what the operator does not model. The hundredth is what
settings alone leave of a measurement without noise, where images better than TV's have r up to 0.009 and t is 0.0002;
the factor is what methods leave beyond the noise (DDS, enlarging by 8: 1.7 s). Of the cells recorded in docs/, none
that is less than 1 dB below TV passes the bound (tests/test_doubts.py).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from padis_jax.blocks import SIDE, Blocks
from padis_jax.runs.solve import TV_ROW

FACTOR, FLOOR = 2.0, 0.01
_ADVICE = (
    "The prior may not know such objects, or the settings may not suit the measurement; compare the pictures before "
    "trusting either"
)

Scores = Mapping[str, Any]  # a row's fields by their names, as `Row.shown`


def unlike(blocks: Blocks | None, image: Any) -> float | None:
    """The distance of an image [H, W, C] from the training images where it is strange to them, else None."""
    image = np.asarray(image)
    if blocks is None or min(image.shape[:2]) < SIDE or not blocks.strange(image):
        return None
    return blocks.distance(image)


def unlike_text(weights: str, blocks: Blocks, distance: float) -> str:
    """A line of that."""
    return (
        f"the image does not look like those that {weights} was trained on: the brightness and contrast of its blocks "
        f"are {distance:.2f} away from theirs, which stay within {blocks.usual:.2f} of each other. The prior may show "
        "what it knows and not what is there; compare with total variation, or take weights of such images"
    )


def without_blocks(weights: str) -> str:
    """A line on weights that cannot tell."""
    return f"{weights} has no statistics of its training images: whether the image looks like them is not checked"


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
        f"{prior:.2%} of it, {TV_ROW} {tv:.2%}{known}. {_ADVICE}"
    ]


def doubts_of_slices(slices: Sequence[tuple[int, Sequence[Scores], float]]) -> list[str]:
    """The same for slices (number, rows, noise), in one line that names the first few."""
    found = [number for number, rows, noise in slices if worse_explained(rows, noise) is not None]
    if not found:
        return []
    return [
        f"{slices[0][1][-1]['method']} explains the measurement worse than total variation does, beyond the noise, in "
        f"{_named(found, len(slices))}. {_ADVICE}"
    ]


def unlike_slices(found: Sequence[int], of: int) -> list[str]:
    """`unlike_text` of slices, in one line; empty where there are none."""
    if not found:
        return []
    return [
        f"{_named(found, of)} do not look like the images that the weights were trained on, by the brightness and "
        "contrast of their blocks. The prior may show what it knows and not what is there; compare with total variation"
    ]


def _named(found: Sequence[int], of: int) -> str:
    named = ", ".join(map(str, found[:10])) + (" ..." if len(found) > 10 else "")
    return f"{len(found)} of {of} slices ({named})"


def worse_explained(rows: Sequence[Scores], noise: float) -> tuple[float, float, float] | None:
    """(r, t, s) where the last row is doubted, else None; see the top of the module."""
    residuals = {row["method"]: row.get("residual") for row in rows}
    tv = residuals.get(TV_ROW)
    if not rows or tv is None or rows[-1]["method"] == TV_ROW or (prior := residuals[rows[-1]["method"]]) is None:
        return None
    noise = noise if math.isfinite(noise) else 0.0
    return (prior, tv, noise) if prior > FACTOR * max(tv, noise, FLOOR) else None
