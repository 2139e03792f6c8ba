"""Where a costly function of one positive number is lowest, or 1: numbers a factor apart, and one between them."""

from __future__ import annotations

import math
from collections.abc import Callable

FACTOR = 4.0  # from one number to the next
MOST = 6  # numbers that are tried


def lowest(value: Callable[[float], float], first: float, *, flat: float = 0.0) -> float:
    """Where a positive function of a positive number is lowest: first times powers of FACTOR, and a parabola.

    Args:
      value: with one minimum; infinite where it has none.
      first: the first number, and the answer where its value is less than 1 + flat times the lowest of the parabola.
      flat: 0 for the lowest, however little lower it is.
    """
    found = {power: value(first * FACTOR**power) for power in (-1, 0, 1)}
    while len(found) < MOST:
        best = min(found, key=lambda power: found[power])
        if best - 1 in found and best + 1 in found:
            break
        new = best - 1 if best - 1 not in found else best + 1
        found[new] = value(first * FACTOR**new)
    best = min(found, key=lambda power: found[power])
    sides = [found.get(best + step, math.inf) for step in (-1, 0, 1)]
    shift, low = 0.0, found[best]
    if all(0 < side < math.inf for side in sides):
        left, middle, right = (math.log(side) for side in sides)
        bend = left - 2 * middle + right
        shift = max(-0.5, min(0.5, (left - right) / (2 * bend))) if bend > 0 else 0.0
        low = math.exp(middle - bend * shift**2 / 2)
    return first if found[0] < (1 + flat) * low else first * FACTOR ** (best + shift)


def crossing(value: Callable[[float], float], first: float) -> float:
    """Where a positive function that rises with a positive number is 1: first times powers of FACTOR, and a line.

    Where it does not come to 1 within MOST numbers, the last of them.
    """
    before, now = first, value(first)
    step = FACTOR if now < 1 else 1 / FACTOR
    for _ in range(MOST - 1):
        weight = before * step
        found = value(weight)
        if (found < 1) != (now < 1):
            ends = (math.log(now), math.log(found)) if 0 < found < math.inf and 0 < now < math.inf else (-1.0, 1.0)
            return before * step ** (ends[0] / (ends[0] - ends[1]))
        before, now = weight, found
    return before
