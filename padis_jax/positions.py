"""Pixel positions on the padded plane: the two extra input channels of the network.

A pixel in row i, column j of a padded plane with sides (Hp, Wp) has the position

    x = 2 (j / (Wp - 1) - 1/2),    y = 2 (i / (Hp - 1) - 1/2),    both in [-1, 1],

x first (PaDIS, arXiv 2406.02462, section 3.2). This is the only place where positions are computed: training crops them
and sampling tiles them from the same array, so that a pixel has the same position in both.
"""

from __future__ import annotations

import numpy as np


def plane_positions(padded_shape: tuple[int, int]) -> np.ndarray:
    """Positions of every pixel of a padded plane.

    Args:
      padded_shape: (Hp, Wp), the sides of the padded plane in pixels, both at least 2.

    Returns:
      float32 array [Hp, Wp, 2]: channel 0 is x (along a row), channel 1 is y (down a column), both from -1 to 1.

    Raises:
      ValueError: if a side is smaller than 2, where the formula divides by zero.
    """
    if min(padded_shape) < 2:
        raise ValueError(f"padded_shape is {padded_shape}: a padded plane needs at least 2 pixels a side")
    y, x = (2 * (np.arange(n, dtype=np.float64) / (n - 1) - 0.5) for n in padded_shape)
    return np.stack(np.broadcast_arrays(x[None, :], y[:, None]), axis=-1).astype(np.float32)
