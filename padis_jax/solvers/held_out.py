"""The part of a measurement that is held out, to be predicted from the rest."""

from __future__ import annotations

from typing import Any

import numpy as np

from padis_jax.operators.per_channel import with_channels

SHARE = 0.05  # of the measurement


def measured_entries(operator: Any, shape: tuple[int, ...]) -> np.ndarray:
    """Boolean, in the shape of y: what the operator measures."""
    mask = getattr(operator, "measured", None)
    if mask is None:
        return np.ones(shape, bool)
    entries: np.ndarray = with_channels(np.asarray(mask), shape) > 0
    return entries


def held_out(measured: np.ndarray, *, views: bool, axis: int = 0, channels: bool = True) -> np.ndarray:
    """Boolean, in the shape of y: SHARE of the measured entries, at least one of them.

    Args:
      measured: what is measured.
      views: take rows of an axis, evenly spread over those in which anything is measured; else entries at random, of
        all channels alike.
      axis: that axis.
      channels: whether the third axis, if there is one, is that of channels.
    """
    chosen = np.zeros(measured.shape, bool)
    if views:
        rows = np.flatnonzero(np.moveaxis(measured, axis, 0).reshape(measured.shape[axis], -1).any(-1))
        count = max(1, round(SHARE * len(rows)))
        np.moveaxis(chosen, axis, 0)[rows[((np.arange(count) + 0.5) * len(rows) / count).astype(int)]] = True
    else:
        pixels = measured.reshape(*measured.shape[:2], -1).any(-1) if channels and measured.ndim > 1 else measured
        places = np.flatnonzero(pixels)
        count = max(1, round(SHARE * len(places)))
        picked = np.random.default_rng(0).choice(places, count, replace=False)
        flat = np.zeros(pixels.size, bool)
        flat[picked] = True
        chosen |= flat.reshape(pixels.shape + (1,) * (measured.ndim - pixels.ndim))
    return chosen & measured
