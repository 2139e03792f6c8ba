"""The noise levels that a run is asked for: by their number, range and spacing, or by themselves."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from padis_jax.errors import UserError
from padis_jax.fields import check_count
from padis_jax.noise import SIGMA_RANGE, edm_ladder, geometric_ladder
from padis_jax.solvers.registry import Method


def sigmas_of(
    ladder: str | Sequence[float] | np.ndarray,
    levels: int,
    inner: int,
    sigma_max: float | None,
    sigma_min: float | None,
    method: Method,
) -> np.ndarray:
    """[levels], the noise levels that these arguments of `reconstruct` ask for.

    Raises:
      ValueError: for what is no ladder.
    """
    own = None if isinstance(ladder, str) else _own_ladder(ladder, sigma_max, sigma_min)
    levels = levels if own is None else len(own)
    for name, count in (("levels", levels), ("inner", inner), ("levels x inner", levels * inner)):
        check_count(name, count)
    if own is not None:
        return own
    ladders = {"geometric": geometric_ladder, "edm": edm_ladder}
    if ladder not in ladders:
        raise ValueError(f"ladder is {ladder!r}: use one of {', '.join(ladders)}")
    first, last = (
        preset if given is None else given
        for preset, given in ((method.sigma_max, sigma_max), (method.sigma_min, sigma_min))
    )
    return ladders[str(ladder)](levels, first, last)


def _own_ladder(given: Sequence[float] | np.ndarray, sigma_max: float | None, sigma_min: float | None) -> np.ndarray:
    """The levels that a user names, float32."""
    if sigma_max is not None or sigma_min is not None:
        raise UserError("ladder holds the noise levels already: leave sigma_max and sigma_min out")
    try:
        found = np.asarray(given, np.float32)
    except (TypeError, ValueError) as error:
        raise UserError(f"ladder is {given!r}: give 'geometric', 'edm', or numbers") from error
    low, high = SIGMA_RANGE
    if found.ndim != 1 or not found.size or not (np.all(found >= low) and np.all(found <= high)):
        raise UserError(f"ladder {found}: give one list of noise levels, between {low:g} and {high:g}")
    if np.any(np.diff(found) >= 0):
        raise UserError(f"ladder {found}: noise levels must descend")
    return found
